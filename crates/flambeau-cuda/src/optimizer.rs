//! Optimizer steps over many parameters at once.

use crate::args::Args;
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::Extent;
use flambeau_core::*;

/// Tensors a launch takes (`TENSORS` in the kernels).
const TENSORS: usize = 32;

/// The kernels for one float dtype.
pub(crate) fn unit(key: &[u8], class: Class, code: i32) -> Unit {
    let list = [("sgd", "StepArgs", None, 0), ("adam", "StepArgs", None, 0)];
    codegen::instances(Library::Optimizer, &codegen::kernel_name("k", key), class, &[code], &list)
}

/// See [`Backend::optimizer`].
pub(crate) fn step(b: &CudaBackend, step: &OptimizerStep, lists: &[&[Operand]]) -> Result<()> {
    let Some(parameters) = lists.first() else {
        return Ok(());
    };
    // Every list's tensors must lie in memory as the parameters do, in one piece.
    for list in lists {
        for (o, p) in list.iter().zip(*parameters) {
            let alike = o.dtype == p.dtype
                && o.sizes == p.sizes
                && (o.strides == p.strides || (o.is_contiguous() && p.is_contiguous()));
            if !alike || !p.dtype.is_float() || !is_non_overlapping_and_dense(p.sizes, p.strides) {
                return unsupported("optimizer over tensors of different layouts or dtypes");
            }
        }
    }
    let mut done = vec![false; parameters.len()];
    for i in 0..parameters.len() {
        if done[i] {
            continue;
        }
        let dtype = parameters[i].dtype;
        let same: Vec<usize> = (i..parameters.len()).filter(|&j| !done[j] && parameters[j].dtype == dtype).collect();
        for group in same.chunks(TENSORS) {
            launch(b, step, lists, dtype, group)?;
            group.iter().for_each(|&j| done[j] = true);
        }
    }
    Ok(())
}

fn launch(b: &CudaBackend, step: &OptimizerStep, lists: &[&[Operand]], dtype: DType, group: &[usize]) -> Result<()> {
    let (class, code) = (dtype.class(), codegen::dtype_code(dtype, b.generic()));
    let key = [b'p', class as u8, code as u8];
    let kernels = b.kernels(&key, || Ok(unit(&key, class, code)))?;
    let mut args = Args::new();
    for list in 0..5 {
        let tensors = lists.get(list).copied().unwrap_or(&[]);
        for t in 0..TENSORS {
            args.ptr(group.get(t).and_then(|&j| tensors.get(j)).map_or(std::ptr::null_mut(), |o| o.ptr));
        }
    }
    let sizes: Vec<i64> = group.iter().map(|&j| lists[0][j].numel()).collect();
    args.array(&sizes, TENSORS).i64(dtype as i64);
    let kernel = match *step {
        OptimizerStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first } => {
            let flags =
                nesterov as i64 | (maximize as i64) << 1 | (first as i64) << 2 | ((momentum != 0.0) as i64) << 5;
            args.i64(flags).f64(lr).f64(momentum).f64(dampening).f64(0.0).f64(weight_decay).f64(1.0).f64(1.0);
            kernels[0]
        }
        OptimizerStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step } => {
            let flags = (maximize as i64) << 1 | (decoupled as i64) << 3 | (amsgrad as i64) << 4;
            args.i64(flags).f64(lr).f64(beta1).f64(beta2).f64(eps).f64(weight_decay);
            args.f64(1.0 - beta1.powf(step)).f64((1.0 - beta2.powf(step)).sqrt());
            kernels[1]
        }
    };
    let most = sizes.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Ok(());
    }
    let mut extent = Extent::linear(most);
    extent.grid[0] = extent.grid[0].min(4096);
    extent.grid[1] = group.len() as u32;
    b.launch(kernel, extent, &mut args)
}
