//! Compressed tensors of any form: batches of matrices, blocks in place of entries, values with dense dimensions.
//!
//! Pointers are (batch…, rows + 1), indices (batch…, entries), values (batch…, entries, block…, dense…); sizes (batch…, rows,
//! columns, dense…). Every matrix of a batch has as many entries.

use super::*;
use crate::ops::view as v;

impl Sparse {
    /// How many dimensions of batches a compressed tensor has; 0 of coordinates.
    pub fn batch_dims(&self) -> usize {
        if self.layout.is_compressed() {
            self.indices.dim() - 1
        } else {
            0
        }
    }
    /// Rows and columns of a block, of a layout that has blocks.
    pub fn block(&self) -> Option<[i64; 2]> {
        let at = self.batch_dims() + 1;
        self.layout.is_blocked().then(|| [self.values.sizes()[at], self.values.sizes()[at + 1]])
    }
    /// Dimensions of every value.
    pub fn dense_dims(&self) -> usize {
        self.values.dim() - self.batch_dims() - 1 - if self.layout.is_blocked() { 2 } else { 0 }
    }
    /// The values one after the other, in the order of [`Sparse::coordinates`]: (elements, dense dimensions…).
    ///
    /// # Errors
    /// None in practice.
    pub fn flat_values(&self) -> Result<Tensor> {
        let sizes = self.values.sizes();
        let split = sizes.len() - self.dense_dims();
        if split == 1 {
            return Ok(self.values.clone());
        }
        let mut flat: Dims = SmallVec::from_elem(numel(&sizes[..split]), 1);
        flat.extend_from_slice(&sizes[split..]);
        v::reshape(&self.values, &flat)
    }
    /// The inverse of [`Sparse::flat_values`], for other values.
    pub(super) fn shaped(&self, flat: &Tensor) -> Result<Tensor> {
        let sizes = self.values.sizes();
        if flat.sizes() == sizes {
            return Ok(flat.clone());
        }
        let mut to: Dims = sizes[..sizes.len() - self.dense_dims()].into();
        to.extend_from_slice(&flat.sizes()[1..]);
        v::reshape(flat, &to)
    }
    /// Every element's position: (dimensions with indices, elements). The elements of a block are there one by one.
    ///
    /// # Errors
    /// A device error.
    pub fn coordinates(&self) -> Result<Tensor> {
        let Some(pointers) = &self.pointers else { return Ok(self.indices.clone()) };
        let (pointer_sizes, index_sizes) = (pointers.sizes(), self.indices.sizes());
        let batch = self.batch_dims();
        let (outer_of, inner) = (pointers.to_vec::<i64>()?, self.indices.to_vec::<i64>()?);
        let (n, entries) = (pointer_sizes[batch] as usize, index_sizes[batch] as usize);
        let [height, width] = self.block().unwrap_or([1, 1]);
        let by_row = self.layout.by_row();
        let mut rows: Vec<Vec<i64>> = vec![Vec::with_capacity(inner.len()); batch + 2];
        let batches = numel(&index_sizes[..batch]) as usize;
        for b in 0..batches {
            let mut at = b as i64;
            let mut place: SmallVec<[i64; 4]> = SmallVec::from_elem(0, batch);
            for d in (0..batch).rev() {
                place[d] = at % index_sizes[d];
                at /= index_sizes[d];
            }
            for (outer, w) in outer_of[b * n..(b + 1) * n].windows(2).enumerate() {
                for k in w[0]..w[1] {
                    let inner = inner[b * entries + k as usize];
                    let (r, c) = if by_row { (outer as i64, inner) } else { (inner, outer as i64) };
                    for i in 0..height {
                        for j in 0..width {
                            place.iter().enumerate().for_each(|(d, &p)| rows[d].push(p));
                            rows[batch].push(r * height + i);
                            rows[batch + 1].push(c * width + j);
                        }
                    }
                }
            }
        }
        let count = rows[batch].len() as i64;
        host_indices(&rows, count, self.values.device())
    }
    /// Whether the parts are those of one matrix without blocks.
    pub(super) fn is_matrix(&self) -> bool {
        self.batch_dims() == 0 && !self.layout.is_blocked()
    }
}

/// `t` in a compressed layout, in blocks of a size for a layout that has them; the last `dense` dimensions stay dense.
///
/// # Errors
/// `Runtime` for too few dimensions, sizes that are no multiples of the block's, or batches of different numbers of entries.
pub fn compress(t: &Tensor, layout: TensorLayout, block: Option<[i64; 2]>, dense: usize) -> Result<Tensor> {
    let name = layout.name();
    let sizes = t.sizes();
    let n = sizes.len();
    ensure!(
        n >= 2 + dense,
        Runtime,
        "to_{name}: compressed layouts have at least two dimensions beside {dense} dense ones, got sizes {}",
        Shape(&sizes)
    );
    ensure!(
        block.is_some() == layout.is_blocked(),
        Runtime,
        "to_{name}: a blocksize is needed for blocks, and for nothing else"
    );
    let batch = n - 2 - dense;
    let [height, width] = block.unwrap_or([1, 1]);
    ensure!(
        height > 0 && width > 0 && sizes[batch] % height == 0 && sizes[batch + 1] % width == 0,
        Runtime,
        "to_{name}: tensor sparse size ({},{}) must be divisible by given blocksize ({height},{width})",
        sizes[batch],
        sizes[batch + 1]
    );
    let coordinates = if t.is_sparse() { to_coo(t)? } else { to_sparse(t, Some((n - dense) as i64))? };
    let coordinates = coalesce(&coordinates)?;
    let s = coo_parts("to_sparse", &coordinates)?;
    ensure!(
        s.sparse_dims() == n - dense,
        Runtime,
        "to_{name}: the tensor has {} dense dimensions, {dense} were asked for",
        n - s.sparse_dims()
    );
    let rows = host_rows(&s.indices)?;
    let count = s.nnz() as usize;
    let by_row = layout.by_row();
    // Where an element's entry is: which matrix, which row (column) of entries, which place along it.
    let entry = |i: usize| -> [i64; 3] {
        let matrix = (0..batch).fold(0, |at, d| at * sizes[d] + rows[d][i]);
        let (r, c) = (rows[batch][i] / height, rows[batch + 1][i] / width);
        if by_row {
            [matrix, r, c]
        } else {
            [matrix, c, r]
        }
    };
    let keys: Vec<[i64; 3]> = (0..count).map(entry).collect();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| keys[i]);
    let mut found: Vec<[i64; 3]> = Vec::new();
    let mut entry_of = vec![0i64; count];
    for &i in &order {
        if found.last() != Some(&keys[i]) {
            found.push(keys[i]);
        }
        entry_of[i] = found.len() as i64 - 1;
    }
    let matrices = numel(&sizes[..batch]);
    let per_matrix = if matrices == 0 { 0 } else { found.len() as i64 / matrices };
    let outer = if by_row { sizes[batch] / height } else { sizes[batch + 1] / width };
    let mut at = vec![0i64; (matrices * (outer + 1)) as usize];
    for [matrix, row, _] in &found {
        at[(matrix * (outer + 1) + row + 1) as usize] += 1;
    }
    for matrix in 0..matrices {
        let own = &mut at[(matrix * (outer + 1)) as usize..((matrix + 1) * (outer + 1)) as usize];
        for i in 1..own.len() {
            own[i] += own[i - 1];
        }
        ensure!(
            own.last() == Some(&per_matrix),
            Runtime,
            "to_{name}: Expect the same number of specified elements per batch."
        );
    }
    let device = s.values.device();
    let mut value_sizes: Dims = sizes[..batch].into();
    value_sizes.push(per_matrix);
    let values = if block.is_some() {
        let places: Vec<i64> = (0..count)
            .map(|i| (entry_of[i] * height + rows[batch][i] % height) * width + rows[batch + 1][i] % width)
            .collect();
        value_sizes.extend([height, width]);
        convert::add_up(&s.values, &host_list(&places, device)?, found.len() as i64 * height * width)?
    } else if order.windows(2).all(|w| w[0] < w[1]) {
        s.values.clone()
    } else {
        let order: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        indexing::index_select(&s.values, 0, &host_list(&order, device)?)?
    };
    value_sizes.extend_from_slice(&s.values.sizes()[1..]);
    let values = if values.sizes() == value_sizes { values } else { v::reshape(&values, &value_sizes)? };
    let list = |numbers: &[i64], last: i64| -> Result<Tensor> {
        let mut shape: Dims = sizes[..batch].into();
        shape.push(last);
        v::reshape(&host_list(numbers, device)?, &shape)
    };
    let inner: Vec<i64> = found.iter().map(|k| k[2]).collect();
    let made = compressed(layout, list(&at, outer + 1)?, list(&inner, per_matrix)?, values, &sizes);
    if t.is_sparse() || block.is_none() || !t.requires_grad() {
        return Ok(made);
    }
    // Zeros inside blocks are elements of the dense tensor, too, and have gradients.
    let parts = parts("to_sparse", &made)?;
    Ok(with_values(&sizes, &parts, parts.shaped(&values_at(t, &parts.coordinates()?)?)?))
}
/// `t` with the layout, the blocks and the dense dimensions of `like`.
///
/// # Errors
/// As [`compress`].
pub(super) fn to_form(t: &Tensor, like: &Sparse) -> Result<Tensor> {
    if like.layout.is_compressed() {
        return compress(t, like.layout, like.block(), like.dense_dims());
    }
    to_coo(t)
}
/// A compressed tensor from pointers, indices and values. `check_order`: indices are to be in order and distinct, too.
///
/// # Errors
/// `Runtime` for parts that do not fit each other, as PyTorch's invariants word it.
pub fn sparse_compressed_tensor(
    layout: TensorLayout,
    pointers: &Tensor,
    indices: &Tensor,
    values: &Tensor,
    sizes: Option<&[i64]>,
    check_order: bool,
) -> Result<Tensor> {
    let by_row = layout.by_row();
    let (p, i, rows, columns) = if by_row {
        ("crow_indices", "col_indices", "rows", "ncols")
    } else {
        ("ccol_indices", "row_indices", "columns", "nrows")
    };
    for (name, t) in [(p, pointers), (i, indices)] {
        ensure!(t.dim() >= 1 && !t.is_sparse(), Runtime, "{name} must have dimensionality >= 1 but got {}", t.dim());
        ensure!(
            matches!(t.dtype(), DType::I64 | DType::I32),
            Runtime,
            "{p} and {i} must be an int32 or int64 type, but got {}",
            t.dtype().title()
        );
    }
    let batch = indices.dim() - 1;
    ensure!(
        pointers.dim() == batch + 1,
        Runtime,
        "{p} and {i} dimensionalities must be equal but got {} and {}, respectively",
        pointers.dim(),
        indices.dim()
    );
    let blocked = layout.is_blocked();
    let entry_dims = batch + if blocked { 3 } else { 1 };
    ensure!(
        values.dim() >= entry_dims && !values.is_sparse(),
        Runtime,
        "values must have dimensionality > sum of batch and block dimensionalities (={batch} + {}) but got {}",
        if blocked { 2 } else { 0 },
        values.dim()
    );
    let (pointer_sizes, index_sizes, value_sizes) = (pointers.sizes(), indices.sizes(), values.sizes());
    ensure!(
        pointer_sizes[..batch] == index_sizes[..batch] && value_sizes[..batch] == index_sizes[..batch],
        Runtime,
        "all batch dimensions of {p} (={}), {i} (={}), and values (={}) must be equal",
        Shape(&pointer_sizes[..batch]),
        Shape(&index_sizes[..batch]),
        Shape(&value_sizes[..batch])
    );
    let n = value_sizes[batch];
    ensure!(
        index_sizes[batch] == n,
        Runtime,
        "number of elements in {i} must match number of values: got {} and {n}",
        index_sizes[batch]
    );
    ensure!(pointer_sizes[batch] >= 1, Runtime, "{p} must have at least one element along its last dimension");
    let [height, width] = if blocked { [value_sizes[batch + 1], value_sizes[batch + 2]] } else { [1, 1] };
    ensure!(height > 0 && width > 0, Runtime, "values: blocks have at least one row and one column");
    let (at, inner) = (pointers.to_vec::<i64>()?, indices.to_vec::<i64>()?);
    let most = inner.iter().copied().max().unwrap_or(-1);
    let mut found: Dims = index_sizes[..batch].into();
    let counted = pointer_sizes[batch] - 1;
    let (a, b) = if by_row { (counted, most + 1) } else { (most + 1, counted) };
    found.extend([a * height, b * width]);
    found.extend_from_slice(&value_sizes[entry_dims..]);
    let sizes = sizes.unwrap_or(&found);
    ensure!(
        sizes.len() == found.len(),
        Runtime,
        "tensor dimensionality must be sum of batch, base, and dense dimensionalities (={batch} + 2 + {}) but got {}",
        value_sizes.len() - entry_dims,
        sizes.len()
    );
    check_sizes(sizes, DType::Bool)?;
    ensure!(
        sizes[..batch] == found[..batch] && sizes[batch + 2..] == found[batch + 2..],
        Runtime,
        "batch and dense dimensions of the sizes {} do not fit those of the parts, {}",
        Shape(sizes),
        Shape(&found)
    );
    ensure!(
        sizes[batch] % height == 0 && sizes[batch + 1] % width == 0,
        Runtime,
        "tensor shape[{batch}] (={}) and shape[{}] (={}) must be divisible with the blocksize ({height}, {width})",
        sizes[batch],
        batch + 1,
        sizes[batch + 1]
    );
    let (high, wide) = (sizes[batch] / height, sizes[batch + 1] / width);
    let (outer, along) = if by_row { (high, wide) } else { (wide, high) };
    ensure!(
        counted == outer,
        Runtime,
        "{p}.shape[-1] must be equal to the number of {rows} + 1 (={}), but got {}",
        outer + 1,
        pointer_sizes[batch]
    );
    for (b, at) in at.chunks(pointer_sizes[batch] as usize).enumerate() {
        let inner = &inner[b * n as usize..(b + 1) * n as usize];
        ensure!(at[0] == 0, Runtime, "`{p}[..., 0] == 0` is not satisfied.");
        ensure!(at.last() == Some(&n), Runtime, "`{p}[..., -1] == nnz` is not satisfied.");
        ensure!(
            at.windows(2).all(|w| (0..=along.max(n)).contains(&(w[1] - w[0]))),
            Runtime,
            "`0 <= {p}[..., 1:] - {p}[..., :-1] <= {columns}` is not satisfied."
        );
        ensure!(inner.iter().all(|j| (0..along).contains(j)), Runtime, "`0 <= {i} < {columns}` is not satisfied.");
        ensure!(
            !check_order || at.windows(2).all(|w| inner[w[0] as usize..w[1] as usize].windows(2).all(|j| j[0] < j[1])),
            Runtime,
            "`{i}[..., {p}[..., i - 1]:{p}[..., i]] for all i = 1, ..., {} are sorted and distinct along the last dimension values` \
             is not satisfied.",
            if by_row { "nrows" } else { "ncols" }
        );
    }
    let device = values.device();
    let to = |t: &Tensor| crate::ops::device::to_device(&t.detach(), device);
    Ok(compressed(layout, to(pointers)?, to(indices)?, linked(values)?, sizes))
}
/// The two dimensions of rows and columns exchanged: rows become columns without anything moving but inside blocks.
pub(super) fn flipped(t: &Tensor) -> Result<Tensor> {
    let s = parts("transpose", t)?;
    let layout = match s.layout {
        TensorLayout::SparseCsr => TensorLayout::SparseCsc,
        TensorLayout::SparseCsc => TensorLayout::SparseCsr,
        TensorLayout::SparseBsr => TensorLayout::SparseBsc,
        _ => TensorLayout::SparseBsr,
    };
    let batch = s.batch_dims();
    let mut sizes = t.sizes();
    sizes.swap(batch, batch + 1);
    let values = if layout.is_blocked() {
        v::transpose(&s.values, batch as i64 + 1, batch as i64 + 2)?
    } else {
        s.values.clone()
    };
    Ok(Tensor::from_sparse(&sizes, Sparse { layout, values, ..(*s).clone() }))
}
/// One matrix, or batch of them, of a batch.
pub(super) fn select_batch(t: &Tensor, d: usize, index: i64) -> Result<Tensor> {
    let s = parts("select", t)?;
    let Some(pointers) = &s.pointers else { bail!(Runtime, "select: a compressed tensor without pointers") };
    let mut sizes = t.sizes();
    sizes.remove(d);
    let of = |x: &Tensor| v::select(x, d as i64, index);
    Ok(compressed(s.layout, of(pointers)?, of(&s.indices)?, of(&s.values)?, &sizes))
}
