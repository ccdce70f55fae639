//! From programs to CUDA C. Numbers, sizes and strides are arguments, so a text depends on a program's structure and on
//! its operands' dtypes only (on the emulated device, where compiling is what costs, not even on the dtypes).

use crate::cache;
use flambeau_core::{Class, DType, Error, ErrorKind, Input, Operand, Program, Result, ScalarFn, StepOp};
use std::fmt::Write;

const PRELUDE: &str = include_str!("prelude.cu");
const MATH: &str = include_str!("math.cu");
/// The functions `sf_*`, which only the texts that name one carry.
const SPECIAL: &str = include_str!("special.cu");

/// A text of kernels that come on top of the prelude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    Reduce,
    Scan,
    Index,
    Matmul,
    Window,
    Rows,
    Sort,
    Optimizer,
    Attention,
}

impl Library {
    fn text(self) -> &'static str {
        match self {
            Library::Reduce => include_str!("kernels/reduce.cu"),
            Library::Scan => include_str!("kernels/scan.cu"),
            Library::Index => include_str!("kernels/index.cu"),
            Library::Matmul => include_str!("kernels/matmul.cu"),
            Library::Window => include_str!("kernels/window.cu"),
            Library::Rows => include_str!("kernels/rows.cu"),
            Library::Sort => include_str!("kernels/sort.cu"),
            Library::Optimizer => include_str!("kernels/optimizer.cu"),
            Library::Attention => include_str!("kernels/attention.cu"),
        }
    }
}

/// Kernels that are compiled together: a library and what instantiates it.
#[derive(Clone, Debug)]
pub struct Unit {
    pub library: Option<Library>,
    pub body: String,
    /// The `extern "C"` kernels in `body` (or in the library), in the order in which callers count them.
    pub names: Vec<String>,
}

impl Unit {
    /// The whole text.
    pub fn source(&self) -> String {
        join(self.library.as_slice(), &self.body)
    }
}

/// The prelude, some libraries and a body.
pub fn join(libraries: &[Library], body: &str) -> String {
    let mut text = String::with_capacity(64 << 10);
    text.push_str(PRELUDE);
    text.push_str(MATH);
    if body.contains("sf_") {
        text.push_str(SPECIAL);
    }
    for library in libraries {
        text.push_str(library.text());
    }
    text.push_str(body);
    text
}

/// C++'s name of a class.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::F32 => "float",
        Class::F64 => "double",
        Class::I64 => "i64",
        Class::C32 => "c32",
        Class::C64 => "c64",
    }
}

/// The dtype as a template argument: its number, or -1 (look at run time) on the emulated device.
pub fn dtype_code(dtype: DType, generic: bool) -> i32 {
    if generic {
        -1
    } else {
        dtype as i32
    }
}

/// A name for a kernel that no other kernel's key gives.
pub fn kernel_name(family: &str, key: &[u8]) -> String {
    format!("{family}_{}", &cache::hash(&[key])[..16])
}

/// What a program's text depends on.
pub fn program_key(key: &mut Vec<u8>, program: &Program, x: &[Operand], generic: bool) {
    key.push(program.inputs.len() as u8);
    let mut operand = 0;
    for input in program.inputs {
        match input {
            Input::Operand(class) => {
                let dtype = x.get(operand).map_or(DType::F32, |x| x.dtype);
                key.extend([0, *class as u8, dtype_code(dtype, generic) as u8]);
                operand += 1;
            }
            Input::Number(_, class) => key.extend([1, *class as u8, 0]),
        }
    }
    for step in program.steps {
        match step.op {
            StepOp::Apply(f) => key.extend([0, f as u8, 0]),
            StepOp::Convert(dtype, class) => key.extend([1, dtype as u8, class as u8]),
        }
        key.push(step.class as u8);
        step.args.iter().for_each(|a| key.extend(a.to_le_bytes()));
    }
    key.push(0xff);
    program.results.iter().for_each(|r| key.extend(r.to_le_bytes()));
}

/// The CUDA expression of a row for numbers of `class`.
///
/// # Errors
/// `NotImplemented` when the row has no formula for them.
fn expression(f: ScalarFn, class: Class) -> Result<&'static str> {
    let family = match class {
        Class::F32 | Class::F64 => "float",
        Class::I64 => "int",
        Class::C32 | Class::C64 => "complex",
    };
    f.cuda().iter().find(|(c, _)| *c == family || (*c == "any" && f.supports(class))).map(|(_, text)| *text).ok_or_else(
        || {
            Error::new(
                ErrorKind::NotImplemented,
                format!("\"{}\" not implemented for {family} numbers on CUDA", f.name()),
            )
        },
    )
}

/// Statements that compute the program's values `v0, v1, …`; `load` gives the expression of operand `k`'s place, from which
/// its pointer and dtype are `args_.x[k]`'s.
///
/// # Errors
/// `NotImplemented` for a function without a formula for its class.
pub fn statements(program: &Program, x: &[Operand], generic: bool, load: impl Fn(usize) -> String) -> Result<String> {
    let mut text = String::new();
    let (mut operand, mut number) = (0, 0);
    for (v, input) in program.inputs.iter().enumerate() {
        let class = class_name(input.class());
        match input {
            Input::Operand(_) => {
                let code = dtype_code(x[operand].dtype, generic);
                let place = load(operand);
                let _ = writeln!(
                    text,
                    "    {class} v{v} = load_at<{class}, {code}>(args_.x[{operand}].p, args_.x[{operand}].dtype, {place});"
                );
                operand += 1;
            }
            Input::Number(..) => {
                let _ = writeln!(text, "    {class} v{v} = Number<{class}>::of(args_.c[{number}]);");
                number += 1;
            }
        }
    }
    for (s, step) in program.steps.iter().enumerate() {
        let v = program.inputs.len() + s;
        let class = class_name(step.class);
        match step.op {
            StepOp::Apply(f) => {
                // A block of its own, in which the table's argument names are what the formula says.
                let _ = write!(text, "    {class} v{v}; {{ typedef {class} T;");
                for (name, value) in f.args().iter().zip(step.args) {
                    let _ = write!(text, " const T {name} = v{value};");
                }
                let _ = writeln!(text, " v{v} = T({}); }}", expression(f, step.class)?);
            }
            StepOp::Convert(dtype, to) => {
                let to = class_name(to);
                let _ = writeln!(text, "    {to} v{v} = convert<{to}, {}>(v{});", dtype as i32, step.args[0]);
            }
        }
    }
    Ok(text)
}

/// The kernel of `map`.
///
/// # Errors
/// `NotImplemented` for a function without a formula for its class.
pub fn map(name: &str, program: &Program, x: &[Operand], out: &[Operand], generic: bool) -> Result<Unit> {
    let (nx, nc) = (x.len(), program.inputs.len() - x.len());
    let mut body = format!(
        "struct Args_{name} {{ Walk w; Operand x[{}]; Operand out[{}]; Num c[{}]; }};\n\
         extern \"C\" __global__ void {name}(const Args_{name} args_) {{\n  \
         for (i64 i_ = first_index(); i_ < args_.w.n; i_ += index_step()) {{\n    \
         Coordinates at_ = unravel(args_.w, i_);\n",
        nx.max(1),
        out.len().max(1),
        nc.max(1)
    );
    body.push_str(&statements(program, x, generic, |k| format!("offset(at_, args_.w, args_.x[{k}].stride)"))?);
    for (k, (out, v)) in out.iter().zip(program.results).enumerate() {
        let class = class_name(program.class_of(*v));
        let code = dtype_code(out.dtype, generic);
        let _ = writeln!(
            body,
            "    store_at<{class}, {code}>(args_.out[{k}].p, args_.out[{k}].dtype, offset(at_, args_.w, args_.out[{k}].stride), v{v});"
        );
    }
    body.push_str("  }\n}\n");
    Ok(Unit { library: None, body, names: vec![name.to_owned()] })
}

/// The kernels of `reduce`: by threads, by blocks, and the merge of parts. `accumulator` is the way of combining, over the
/// program's class.
///
/// # Errors
/// `NotImplemented` for a function without a formula for its class.
pub fn reduce(
    name: &str,
    program: &Program,
    accumulator: &str,
    x: &[Operand],
    out: DType,
    generic: bool,
) -> Result<Unit> {
    let (nx, nc) = (x.len().max(1), (program.inputs.len() - x.len()).max(1));
    let result = program.results[0];
    let class = class_name(program.class_of(result));
    let out = dtype_code(out, generic);
    let statements = statements(program, x, generic, |k| {
        format!("offset(o_, args_.outer, args_.x[{k}].outer) + offset(i_, args_.inner, args_.x[{k}].inner)")
    })?;
    let body = format!(
        "struct Args_{name} {{ Walk outer, inner; i64 part, parts; u64 parameter; char *partial, *from; Operand out[2]; Source x[{nx}]; Num c[{nc}]; \
         static const int OUT = {out}; }};\n\
         struct Program_{name} {{ static __device__ inline {class} value(const Args_{name} &args_, const Coordinates &o_, const Coordinates &i_) {{\n\
         {statements}    return v{result};\n}} }};\n\
         typedef {accumulator} Acc_{name};\n\
         extern \"C\" __global__ void {name}_thread(const Args_{name} args_) {{ reduce_thread<Acc_{name}, Program_{name}>(args_); }}\n\
         extern \"C\" __global__ void {name}_block(const Args_{name} args_) {{\n  \
         __shared__ __align__(16) char room[256 * sizeof(Acc_{name})];\n  reduce_block<Acc_{name}, Program_{name}>(args_, room);\n}}\n\
         extern \"C\" __global__ void {name}_merge(const Args_{name} args_) {{ reduce_merge<Acc_{name}>(args_, args_.from); }}\n"
    );
    Ok(Unit {
        library: Some(Library::Reduce),
        body,
        names: ["thread", "block", "merge"].iter().map(|k| format!("{name}_{k}")).collect(),
    })
}

/// Kernels of a library that are templates over a class and a dtype code: `(function, parameter, threads, bytes of shared
/// memory)`; `threads` is the third template argument when there is one.
pub fn instances(
    library: Library,
    name: &str,
    class: Class,
    codes: &[i32],
    kernels: &[(&str, &str, Option<u32>, usize)],
) -> Unit {
    let class = class_name(class);
    let mut unit = Unit { library: Some(library), body: String::new(), names: Vec::new() };
    for (function, parameter, threads, shared) in kernels {
        let mut template = class.to_owned();
        codes.iter().for_each(|c| template.push_str(&format!(", {c}")));
        let kernel = format!("{name}_{function}_{}", threads.map_or(String::new(), |t| t.to_string()));
        if let Some(threads) = threads {
            template.push_str(&format!(", {threads}"));
        }
        let (room, argument) = match (shared, threads) {
            (0, None) => (String::new(), ""),
            (0, Some(_)) => ("  char *room = 0;\n".to_owned(), ", room"),
            (n, _) => (format!("  __shared__ __align__(16) char room[{n}];\n"), ", room"),
        };
        let _ = write!(
            unit.body,
            "extern \"C\" __global__ void {kernel}(const {parameter} args_) {{\n{room}  {function}<{template}>(args_{argument});\n}}\n"
        );
        unit.names.push(kernel);
    }
    unit
}
