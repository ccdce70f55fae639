//! A representative full set of the generated kernels, so that all can be compiled without a GPU.

use crate::codegen::{self, Library, Unit};
use crate::{attention, elementwise, index, matmul, optimizer, reduce, rows, sort, window};
use flambeau_core::*;
use std::collections::BTreeSet;

/// Kernels that go into one text.
const BATCH: usize = 48;

fn operand(dtype: DType) -> Operand<'static> {
    Operand { ptr: std::ptr::null_mut(), dtype, sizes: &[], strides: &[], device: Device::Cuda(0) }
}

/// Every row of the table in every class it has, and a load and a store of every dtype.
fn maps() -> Vec<Unit> {
    let mut units = Vec::new();
    let mut add = |program: &Program, x: &[Operand], out: &[Operand]| {
        let key = elementwise::key(program, x, out, false);
        // A row without a formula for the class is left out.
        if let Ok(unit) = codegen::map(&codegen::kernel_name("map", &key), program, x, out, false) {
            units.push(unit);
        }
    };
    for &f in ScalarFn::ALL {
        for class in Class::ALL {
            if !f.supports(class) {
                continue;
            }
            let inputs: Vec<Input> = (0..f.arity())
                .map(|i| if i < 2 { Input::Operand(class) } else { Input::Number(Number::Int(1), class) })
                .collect();
            let steps = [Step { op: StepOp::Apply(f), class, args: [0, 1, 2, 3] }];
            let result = [f.arity() as u16];
            let x = vec![operand(class.dtype()); f.arity().min(2)];
            let out = f.result_dtype(class.dtype());
            add(&Program { inputs: &inputs, steps: &steps, results: &result }, &x, &[operand(out)]);
        }
    }
    for &from in DType::ALL {
        for &to in DType::ALL {
            let class = from.class();
            let steps = [Step { op: StepOp::Convert(to, to.class()), class, args: [0; 4] }];
            let program = Program { inputs: &[Input::Operand(class)], steps: &steps, results: &[1] };
            add(&program, &[operand(from)], &[operand(to)]);
        }
    }
    units
}

fn reductions() -> Vec<Unit> {
    let all = [
        Reduction::Sum,
        Reduction::ScaledSum(1.0),
        Reduction::Prod,
        Reduction::Max,
        Reduction::Min,
        Reduction::ArgMax,
        Reduction::ArgMin,
        Reduction::MaxIndex,
        Reduction::MinIndex,
        Reduction::Any,
        Reduction::All,
        Reduction::VarMean { correction: 1.0 },
    ];
    let mut units = Vec::new();
    for class in Class::ALL {
        let program = Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] };
        let x = [operand(class.dtype())];
        for how in all {
            let out = match how {
                Reduction::ArgMax | Reduction::ArgMin => DType::I64,
                Reduction::Any | Reduction::All => DType::Bool,
                _ => class.dtype(),
            };
            if let Ok(key) = reduce::key(how, &program, &x, out, false) {
                units.extend(reduce::unit(&key, how, &program, &x, out, false));
            }
        }
    }
    units
}

fn others() -> Vec<Unit> {
    let mut units = vec![index::unit()];
    for class in Class::ALL {
        let complex = matches!(class, Class::C32 | Class::C64);
        for how in [Scan::Sum, Scan::Prod, Scan::Max, Scan::Min, Scan::LogSumExp] {
            let sums = matches!(how, Scan::Sum | Scan::Prod);
            if sums || (!complex && (class != Class::I64 || how != Scan::LogSumExp)) {
                let code = class.dtype() as i32;
                units.extend(reduce::scan_unit(&[b's', how as u8, class as u8, code as u8], how, class, code));
            }
        }
    }
    for &dtype in DType::ALL {
        let (class, code) = (dtype.class(), dtype as i32);
        units.push(matmul::unit(&[b'g', class as u8, code as u8, code as u8], class, code, code));
        units.push(window::unit(&[b'w', class as u8, code as u8], class, code));
        if !dtype.is_complex() {
            units.push(sort::unit(&[b'q', class as u8, code as u8], class, code));
        }
        if dtype.is_float() {
            units.push(rows::unit(&[b'o', class as u8, code as u8], class, code));
            units.push(attention::unit(&[b't', class as u8, code as u8], class, code));
            units.push(optimizer::unit(&[b'p', class as u8, code as u8], class, code));
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        units.push(matmul::unit(
            &[b'g', 0, dtype as u8, DType::F32 as u8],
            Class::F32,
            dtype as i32,
            DType::F32 as i32,
        ));
    }
    units
}

/// Texts that together hold a representative full set of kernels: every row of the table in every class, conversions between all
/// dtypes, and each family in every class or dtype. Each entry is a name and a text
/// for [`compile_with_nvrtc`](crate::compile_with_nvrtc).
pub fn all_kernel_sources() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (name, units) in [("map", maps()), ("reduce", reductions()), ("families", others())] {
        for (i, batch) in units.chunks(BATCH).enumerate() {
            let libraries: Vec<Library> =
                batch.iter().filter_map(|u| u.library).collect::<BTreeSet<_>>().into_iter().collect();
            let body: String = batch.iter().map(|u| u.body.as_str()).collect();
            texts.push((format!("{name}-{i}"), codegen::join(&libraries, &body)));
        }
    }
    texts
}
