//! Binary search in sorted rows.

use crate::pool;
use flambeau_core::*;

/// See [`Backend::search`].
///
/// # Errors
/// `Unsupported` for operands that are not contiguous float64, float32 or int64.
pub fn search(sorted: &Operand, values: &Operand, right: bool, out: &Operand) -> Result<()> {
    let contiguous = sorted.is_contiguous() && values.is_contiguous() && out.is_contiguous();
    if !contiguous || sorted.dtype != values.dtype || out.dtype != DType::I64 {
        return flambeau_core::backend::unsupported("search");
    }
    match sorted.dtype {
        DType::F32 => typed::<f32>(sorted, values, right, out),
        DType::F64 => typed::<f64>(sorted, values, right, out),
        DType::I64 => typed::<i64>(sorted, values, right, out),
        _ => return flambeau_core::backend::unsupported("search"),
    }
    Ok(())
}

// A NaN must be above every number: "not above" is what is meant, not "at most".
#[allow(clippy::neg_cmp_op_on_partial_ord)]
fn typed<T: Copy + PartialOrd + Sync>(sorted: &Operand, values: &Operand, right: bool, out: &Operand) {
    let n = sorted.sizes.last().map_or(1, |n| *n as usize);
    let total = values.numel() as usize;
    // One row for all values, or a row for each row of values.
    let width =
        if sorted.sizes.len() <= 1 { total.max(1) } else { values.sizes.last().map_or(1, |n| *n as usize).max(1) };
    struct Pointers<T>(*const T, *const T, *mut i64);
    // SAFETY: pieces read shared memory and write disjoint parts of the output.
    unsafe impl<T> Sync for Pointers<T> {}
    let p = Pointers(sorted.ptr as *const T, values.ptr as *const T, out.ptr as *mut i64);
    let p = &p;
    pool::chunks(total, 4096, |lo, hi| {
        for i in lo..hi {
            // SAFETY: the operands are contiguous with `n` elements a row of `sorted` and `total` values and results.
            unsafe {
                let row = std::slice::from_raw_parts(p.0.add(i / width * n), n);
                let v = *p.1.add(i);
                let at = if right { row.partition_point(|x| !(*x > v)) } else { row.partition_point(|x| !(*x >= v)) };
                *p.2.add(i) = at as i64;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_sides() {
        let (row, v) = ([1.0f64, 2.0, 2.0, 3.0], [0.0f64, 2.0, 3.5, f64::NAN]);
        let mut at = [0i64; 4];
        let operand = |p: *const f64, dtype| Operand {
            ptr: p as *mut u8,
            dtype,
            sizes: &[4],
            strides: &[1],
            device: Device::Cpu,
        };
        let out = Operand { ptr: at.as_mut_ptr() as *mut u8, ..operand(std::ptr::null(), DType::I64) };
        search(&operand(row.as_ptr(), DType::F64), &operand(v.as_ptr(), DType::F64), false, &out).unwrap();
        assert_eq!(at, [0, 1, 4, 4]);
        let out = Operand { ptr: at.as_mut_ptr() as *mut u8, ..operand(std::ptr::null(), DType::I64) };
        search(&operand(row.as_ptr(), DType::F64), &operand(v.as_ptr(), DType::F64), true, &out).unwrap();
        assert_eq!(at, [0, 3, 4, 4]);
    }
}
