//! Tensors and programs of tests.

use flambeau_core::*;

/// Memory of one tensor, with its layout.
pub struct Array {
    pub data: Vec<u128>,
    pub dtype: DType,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
}

#[allow(dead_code)]
impl Array {
    /// Zeros, row-major.
    pub fn zeros(dtype: DType, sizes: &[i64]) -> Array {
        let strides = contiguous_strides(sizes).to_vec();
        let bytes = (extent(sizes, &strides) as usize + 1) * dtype.size();
        Array { data: vec![0; bytes / 16 + 1], dtype, sizes: sizes.to_vec(), strides }
    }
    /// `f(i)` for the i-th element of memory, with the given strides.
    pub fn with(dtype: DType, sizes: &[i64], strides: &[i64], f: impl Fn(usize) -> f64) -> Array {
        let n = extent(sizes, strides).max(1) as usize;
        let mut data = vec![0u128; n * dtype.size() / 16 + 1];
        for i in 0..n {
            let x = f(i);
            // SAFETY: element `i` lies in `data`.
            unsafe {
                flambeau_cpu::convert::store(
                    dtype,
                    Class::F64,
                    &x as *const f64 as *const u8,
                    1,
                    (data.as_mut_ptr() as *mut u8).add(i * dtype.size()),
                    1,
                )
            };
        }
        Array { data, dtype, sizes: sizes.to_vec(), strides: strides.to_vec() }
    }
    pub fn operand(&self) -> Operand<'_> {
        Operand {
            ptr: self.data.as_ptr() as *mut u8,
            dtype: self.dtype,
            sizes: &self.sizes,
            strides: &self.strides,
            device: Device::Cpu,
        }
    }
    /// The elements in logical order, as doubles.
    pub fn values(&self) -> Vec<f64> {
        (0..numel(&self.sizes) as usize)
            .map(|mut i| {
                let mut at = 0i64;
                for d in (0..self.sizes.len()).rev() {
                    at += (i as i64 % self.sizes[d]) * self.strides[d];
                    i /= self.sizes[d] as usize;
                }
                let mut x = 0f64;
                // SAFETY: the element lies in `data`.
                unsafe {
                    flambeau_cpu::convert::load(
                        self.dtype,
                        Class::F64,
                        (self.data.as_ptr() as *const u8).add(at as usize * self.dtype.size()),
                        1,
                        1,
                        &mut x as *mut f64 as *mut u8,
                    )
                };
                x
            })
            .collect()
    }
}

/// Numbers that look random, in -1..1.
pub fn noise(i: usize) -> f64 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Runs one row of the table.
#[allow(dead_code)]
pub fn apply(f: ScalarFn, class: Class, x: &[&Array], out: &Array) -> Result<()> {
    let inputs = vec![Input::Operand(class); x.len()];
    let args = [0, 1, 2, 3].map(|i| if i < x.len() { i as u16 } else { 0 });
    let steps = [Step { op: StepOp::Apply(f), class, args }];
    let operands: Vec<Operand> = x.iter().map(|a| a.operand()).collect();
    flambeau_cpu::cpu().map(
        &Program { inputs: &inputs, steps: &steps, results: &[x.len() as u16] },
        &operands,
        &[out.operand()],
    )
}
