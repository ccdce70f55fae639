//! Sizes and strides. Strides and offsets count elements, not bytes.

use crate::{bail, DType, Device, Result, SmallVec};

/// Dimensions that [`Dims`] holds without a heap allocation.
const INLINE_DIMS: usize = 5;
/// Sizes or strides; five dimensions without a heap allocation.
pub type Dims = SmallVec<[i64; INLINE_DIMS]>;

/// The order of a tensor's dimensions in memory, as a user asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryFormat {
    /// Row-major.
    Contiguous,
    /// As the input.
    Preserve,
    /// N, H, W, C.
    ChannelsLast,
    /// N, D, H, W, C.
    ChannelsLast3d,
}

/// A copy of sizes or strides: a plain move of bytes unless they are on the heap.
#[inline]
pub fn copy_dims(dims: &Dims) -> Dims {
    if dims.spilled() {
        dims.clone()
    } else {
        // SAFETY: not spilled, so the value holds integers and no pointer: its bytes may be copied.
        unsafe { std::ptr::read(dims) }
    }
}

/// Whether two sizes or strides are equal; shorter than a call of the library's comparison.
#[inline]
pub fn same_dims(a: &[i64], b: &[i64]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    for i in 0..a.len() {
        if a[i] != b[i] {
            return false;
        }
    }
    true
}

/// The product of the sizes (1 for a 0-dim tensor).
#[inline]
pub fn numel(sizes: &[i64]) -> i64 {
    let mut n = 1;
    for &s in sizes {
        n *= s;
    }
    n
}

/// Row-major strides. A size of 0 counts as 1, as in PyTorch.
#[inline]
pub fn contiguous_strides(sizes: &[i64]) -> Dims {
    let mut strides: Dims = if sizes.len() <= INLINE_DIMS {
        SmallVec::from_buf_and_len([1; INLINE_DIMS], sizes.len())
    } else {
        SmallVec::from_elem(1, sizes.len())
    };
    let mut next = 1i64;
    for d in (0..sizes.len()).rev() {
        strides[d] = next;
        next = next.wrapping_mul(sizes[d].max(1));
    }
    strides
}

/// Whether the elements lie row-major without gaps; dimensions of size 1 do not matter.
#[inline]
pub fn is_contiguous(sizes: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1i64;
    let strides = &strides[..sizes.len()];
    for d in (0..sizes.len()).rev() {
        if sizes[d] != 1 {
            if strides[d] != expected {
                return numel(sizes) == 0;
            }
            expected = expected.wrapping_mul(sizes[d]);
        }
    }
    true
}

/// Strides of a 4-d tensor stored as N, H, W, C (5-d: N, D, H, W, C).
pub fn channels_last_strides(sizes: &[i64]) -> Dims {
    let n = sizes.len();
    let mut strides: Dims = SmallVec::from_elem(0, n);
    let mut next = 1i64;
    let order = std::iter::once(1).chain((2..n).rev()).chain(std::iter::once(0));
    for d in order {
        strides[d] = next;
        next = next.wrapping_mul(sizes[d].max(1));
    }
    strides
}

/// Whether a 4-d or 5-d layout is channels_last (ambiguous layouts count, as in PyTorch's `is_contiguous` query).
pub fn is_channels_last(sizes: &[i64], strides: &[i64]) -> bool {
    if sizes.len() != 4 && sizes.len() != 5 {
        return false;
    }
    let want = channels_last_strides(sizes);
    (0..sizes.len()).all(|d| sizes[d] == 1 || strides[d] == want[d])
}

/// Dense strides in the order that `strides` already has, so that an output follows its input's layout
/// (a permuted dense tensor keeps its permutation, anything else becomes row-major).
#[inline]
pub fn preserve_strides(sizes: &[i64], strides: &[i64]) -> Dims {
    if is_contiguous(sizes, strides) {
        return contiguous_strides(sizes);
    }
    preserve_order(sizes, strides)
}
fn preserve_order(sizes: &[i64], strides: &[i64]) -> Dims {
    if !is_non_overlapping_and_dense(sizes, strides) {
        // Keep the order of the dimensions all the same: a strided slice of a channels_last tensor stays so.
        let mut order: SmallVec<[usize; 5]> = (0..sizes.len()).collect();
        if strides.contains(&0) {
            return contiguous_strides(sizes);
        }
        order.sort_by_key(|&d| std::cmp::Reverse(strides[d]));
        let mut out: Dims = SmallVec::from_elem(1, sizes.len());
        let mut next = 1i64;
        for &d in order.iter().rev() {
            out[d] = next;
            next *= sizes[d].max(1);
        }
        return out;
    }
    strides.into()
}

/// Whether the elements fill one block of memory, each once, in any order of dimensions.
#[inline]
pub fn is_non_overlapping_and_dense(sizes: &[i64], strides: &[i64]) -> bool {
    is_row_major(sizes, strides) || is_dense_permutation(sizes, strides)
}
/// [`is_contiguous`], except that nothing is assumed of empty tensors.
#[inline]
fn is_row_major(sizes: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1i64;
    for d in (0..sizes.len()).rev() {
        if sizes[d] != 1 {
            if strides[d] != expected {
                return false;
            }
            expected = expected.wrapping_mul(sizes[d]);
        }
    }
    true
}
fn is_dense_permutation(sizes: &[i64], strides: &[i64]) -> bool {
    let mut dims: SmallVec<[(i64, i64); 5]> =
        sizes.iter().zip(strides).filter(|(s, _)| **s != 1).map(|(s, t)| (*t, *s)).collect();
    dims.sort_unstable();
    let mut expected = 1;
    for (stride, size) in dims {
        if stride != expected {
            return false;
        }
        expected *= size;
    }
    true
}

/// Whether two different indices can name the same memory. `false` only when that is certain not to happen.
pub fn may_overlap_itself(sizes: &[i64], strides: &[i64]) -> bool {
    let mut dims: SmallVec<[(i64, i64); 5]> =
        sizes.iter().zip(strides).filter(|(s, _)| **s > 1).map(|(s, t)| (t.abs(), *s)).collect();
    dims.sort_unstable();
    let mut reach = 0;
    for (stride, size) in dims {
        if stride <= reach {
            return true;
        }
        reach += stride * (size - 1);
    }
    false
}

/// How many elements past the first the layout reaches, plus one; 0 when it has no elements.
pub fn extent(sizes: &[i64], strides: &[i64]) -> i64 {
    if numel(sizes) == 0 {
        return 0;
    }
    1 + sizes.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum::<i64>()
}

/// The bytes of a dense tensor, after checking that sizes are not negative and that their bytes can be counted.
///
/// # Errors
/// `Runtime` that names the sizes.
#[inline]
pub fn check_sizes(sizes: &[i64], dtype: DType) -> Result<usize> {
    let mut bytes = dtype.size() as i64;
    for &n in sizes {
        if n < 0 {
            bail!(Runtime, "Trying to create tensor with negative dimension {n}: {}", Shape(sizes));
        }
        bytes = match bytes.checked_mul(n) {
            Some(b) => b,
            None if sizes.contains(&0) => 0,
            None => bail!(Runtime, "Storage size calculation overflowed with sizes={}", Shape(sizes)),
        };
    }
    Ok(bytes as usize)
}

/// The sizes of operands broadcast together.
///
/// # Errors
/// `Runtime` that names the two sizes and the dimension, as PyTorch words it.
pub fn broadcast_shapes(a: &[i64], b: &[i64]) -> Result<Dims> {
    let n = a.len().max(b.len());
    let mut out: Dims = SmallVec::from_elem(1, n);
    for i in 0..n {
        let x = if i + a.len() >= n { a[i + a.len() - n] } else { 1 };
        let y = if i + b.len() >= n { b[i + b.len() - n] } else { 1 };
        out[i] = match (x, y) {
            _ if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => bail!(
                Runtime,
                "The size of tensor a ({x}) must match the size of tensor b ({y}) at non-singleton dimension {i}"
            ),
        };
    }
    Ok(out)
}

/// A dimension index from the user, wrapped into `0..n` (a 0-dim tensor counts as one dimension).
///
/// # Errors
/// `Index`, as PyTorch words it.
pub fn wrap_dim(dim: i64, n: usize) -> Result<usize> {
    let m = n.max(1) as i64;
    if dim < -m || dim >= m {
        bail!(Index, "Dimension out of range (expected to be in range of [{}, {}], but got {dim})", -m, m - 1);
    }
    Ok(if dim < 0 { dim + m } else { dim } as usize)
}

/// Sizes printed as PyTorch prints them: `[2, 3]`.
pub struct Shape<'a>(pub &'a [i64]);
impl std::fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (i, n) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{n}")?;
        }
        f.write_str("]")
    }
}

/// One operand of a kernel: where its first element is, and how to walk it. On a CUDA device `ptr` is a device
/// address and never dereferenced by the host.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Address of the element at index 0 (storage base plus offset).
    pub ptr: *mut u8,
    pub dtype: DType,
    pub sizes: &'a [i64],
    /// In elements.
    pub strides: &'a [i64],
    pub device: Device,
}

// SAFETY: an operand is a description of memory; whoever dereferences it answers for the access.
unsafe impl Send for Operand<'_> {}
// SAFETY: as above.
unsafe impl Sync for Operand<'_> {}

impl Operand<'_> {
    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> i64 {
        numel(self.sizes)
    }
    /// Whether the elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        is_contiguous(self.sizes, self.strides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(contiguous_strides(&[2, 3, 4])[..], [12, 4, 1]);
        assert_eq!(channels_last_strides(&[2, 3, 4, 5])[..], [60, 1, 15, 3]);
        assert!(is_channels_last(&[2, 3, 4, 5], &[60, 1, 15, 3]));
        assert!(is_contiguous(&[1, 3], &[77, 1]) && !is_contiguous(&[2, 3], &[1, 2]));
        assert_eq!(broadcast_shapes(&[3, 1], &[4]).unwrap()[..], [3, 4]);
        assert!(broadcast_shapes(&[2], &[3]).is_err());
        assert!(may_overlap_itself(&[3, 3], &[0, 1]) && !may_overlap_itself(&[2, 3], &[1, 2]));
        assert!(wrap_dim(2, 2).is_err() && wrap_dim(-1, 3).unwrap() == 2);
        assert!(check_sizes(&[1 << 40, 1 << 40], DType::F32).is_err());
    }
}
