//! What the benchmarks of kernels share.

use flambeau_core::*;
use flambeau_cpu::cpu;
use std::sync::Arc;

/// A dense float32 tensor with numbers in [0, 1], in memory as tensors have it.
pub struct Matrix {
    data: Arc<Storage>,
    sizes: Vec<i64>,
    strides: Vec<i64>,
}
impl Matrix {
    /// A tensor of these sizes, row-major.
    pub fn new(sizes: &[i64]) -> Matrix {
        let n = numel(sizes) as usize;
        let data = Storage::new(cpu().alloc(n * 4).expect("there is memory"), Device::Cpu);
        let numbers = data.ptr().expect("it is ready") as *mut f32;
        for i in 0..n {
            // SAFETY: the block has `n` numbers and no other user.
            unsafe { numbers.add(i).write((i * 7919 % 1013) as f32 / 1013.0) };
        }
        Matrix { data, sizes: sizes.to_vec(), strides: contiguous_strides(sizes).to_vec() }
    }
    /// The tensor as kernels take it, which may write to it.
    pub fn operand(&self) -> Operand<'_> {
        Operand {
            ptr: self.data.ptr().expect("it is ready"),
            dtype: DType::F32,
            sizes: &self.sizes,
            strides: &self.strides,
            device: Device::Cpu,
        }
    }
    /// The same memory, or its beginning, as numbers of another dtype.
    pub fn operand_of(&self, dtype: DType) -> Operand<'_> {
        Operand { dtype, ..self.operand() }
    }
    /// Bytes that it takes.
    pub fn bytes(&self) -> f64 {
        numel(&self.sizes) as f64 * 4.0
    }
}

/// An element-wise function of up to two operands.
pub fn apply(f: ScalarFn, x: &[Operand], out: &Operand) {
    let inputs = vec![Input::Operand(Class::F32); x.len()];
    let mut args = [0u16; 4];
    (0..x.len()).for_each(|i| args[i] = i as u16);
    let steps = [Step { op: StepOp::Apply(f), class: Class::F32, args }];
    let program = Program { inputs: &inputs, steps: &steps, results: &[x.len() as u16] };
    cpu().map(&program, x, &[*out]).expect("the kernel runs");
}
