//! Tensors as text, in PyTorch's form.

use crate::ops::{indexing, view};
use crate::tensor::{Sparse, Tensor, TensorLayout};
use flambeau_core::*;
use parking_lot::RwLock;

/// How tensors are printed (`set_printoptions`).
#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Digits after the point.
    pub precision: usize,
    /// More elements than this are summarised.
    pub threshold: usize,
    /// Elements kept at either end of a summarised dimension.
    pub edgeitems: usize,
    /// Characters in a line.
    pub linewidth: usize,
    /// Scientific notation: always, never, or as the values ask for.
    pub sci_mode: Option<bool>,
}
impl PrintOptions {
    /// PyTorch's defaults.
    pub const DEFAULT: PrintOptions =
        PrintOptions { precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80, sci_mode: None };
}
static OPTIONS: RwLock<PrintOptions> = RwLock::new(PrintOptions::DEFAULT);
/// The options in force.
pub fn options() -> PrintOptions {
    *OPTIONS.read()
}
/// Changes the options.
pub fn set_options(options: PrintOptions) {
    *OPTIONS.write() = options;
}

/// The printed values, of one kind.
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Unsigned(Vec<u64>),
    Float(Vec<f64>),
    Complex(Vec<f64>, Vec<f64>),
}

/// How a set of floats is written: found from all of them.
struct FloatFormat {
    integers: bool,
    scientific: bool,
    precision: usize,
    width: usize,
}
fn scientific(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(d) => ('-', d),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}
impl FloatFormat {
    fn of(values: &[f64], options: &PrintOptions) -> FloatFormat {
        let precision = options.precision;
        let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite() && *x != 0.0).collect();
        let mut f = FloatFormat { integers: true, scientific: false, precision, width: 1 };
        if finite.is_empty() {
            return f;
        }
        let largest = finite.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        let smallest = finite.iter().fold(f64::INFINITY, |a, x| a.min(x.abs()));
        f.integers = finite.iter().all(|x| *x == x.ceil());
        f.scientific = largest / smallest > 1000.0 || largest > 1e8 || (!f.integers && smallest < 1e-4);
        if let Some(forced) = options.sci_mode {
            f.scientific = forced;
        }
        f.width = finite.iter().map(|x| f.plain(*x).len()).max().unwrap_or(1);
        f
    }
    fn plain(&self, x: f64) -> String {
        if x.is_nan() {
            return "nan".into();
        }
        if x.is_infinite() {
            return if x > 0.0 { "inf".into() } else { "-inf".into() };
        }
        if self.scientific {
            scientific(x, self.precision)
        } else if self.integers {
            format!("{x:.0}.")
        } else {
            format!("{x:.*}", self.precision)
        }
    }
    fn padded(&self, x: f64) -> String {
        format!("{:>w$}", self.plain(x), w = self.width)
    }
}

/// Every printed element as text, all of one width, and that width.
fn elements(values: &Values, options: &PrintOptions) -> (Vec<String>, usize) {
    fn plain(texts: Vec<String>) -> (Vec<String>, usize) {
        let width = texts.iter().map(String::len).max().unwrap_or(1);
        (texts.into_iter().map(|t| format!("{t:>width$}")).collect(), width)
    }
    match values {
        Values::Bool(v) => plain(v.iter().map(|b| if *b { "True".into() } else { "False".into() }).collect()),
        Values::Int(v) => plain(v.iter().map(i64::to_string).collect()),
        Values::Unsigned(v) => plain(v.iter().map(u64::to_string).collect()),
        Values::Float(v) => {
            let f = FloatFormat::of(v, options);
            (v.iter().map(|x| f.padded(*x)).collect(), f.width)
        }
        Values::Complex(re, im) => {
            let (a, b) = (FloatFormat::of(re, options), FloatFormat::of(im, options));
            let texts = re
                .iter()
                .zip(im)
                .map(|(x, y)| {
                    let imaginary = b.padded(*y).trim_start().to_string();
                    let sign = if imaginary.starts_with(['-', '+']) { "" } else { "+" };
                    format!("{}{sign}{imaginary}j", a.padded(*x))
                })
                .collect();
            (texts, a.width + b.width + 1)
        }
    }
}

struct Layout<'a> {
    texts: &'a [String],
    width: usize,
    sizes: &'a [i64],
    /// Which dimensions were cut.
    cut: &'a [bool],
    edge: usize,
    linewidth: usize,
}
impl Layout<'_> {
    fn write(&self, dim: usize, at: usize, indent: usize) -> String {
        if self.sizes.is_empty() {
            return self.texts[0].clone();
        }
        let n = self.sizes[dim] as usize;
        if dim + 1 == self.sizes.len() {
            let per_line = ((self.linewidth.saturating_sub(indent)) / (self.width + 2)).max(1);
            let mut items: Vec<&str> = self.texts[at..at + n].iter().map(String::as_str).collect();
            if self.cut[dim] {
                items.insert(self.edge, " ...");
            }
            let lines: Vec<String> = items.chunks(per_line).map(|line| line.join(", ")).collect();
            return format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))));
        }
        let step: usize = self.sizes[dim + 1..].iter().map(|n| *n as usize).product();
        let mut parts: Vec<String> = (0..n).map(|i| self.write(dim + 1, at + i * step, indent + 1)).collect();
        if self.cut[dim] {
            parts.insert(self.edge, "...".into());
        }
        let gap = format!(",{}{}", "\n".repeat(self.sizes.len() - dim - 1), " ".repeat(indent + 1));
        format!("[{}]", parts.join(&gap))
    }
}

fn read(t: &Tensor) -> Result<Values> {
    Ok(match t.dtype() {
        DType::Bool => Values::Bool(t.to_vec::<bool>()?),
        DType::U64 => Values::Unsigned(t.to_vec::<u64>()?),
        d if d.is_integral(true) => Values::Int(t.to_vec::<i64>()?),
        d if d.is_complex() => {
            let v = t.to_vec::<Complex64>()?;
            Values::Complex(v.iter().map(|z| z.re).collect(), v.iter().map(|z| z.im).collect())
        }
        _ => Values::Float(t.to_vec::<f64>()?),
    })
}

/// `tensor([1., 2.], requires_grad=True)`: the text of a tensor.
///
/// # Errors
/// The failure of a pending computation.
pub fn repr(t: &Tensor) -> Result<String> {
    let o = options();
    if let Some(b) = t.as_batched() {
        return Ok(format!("BatchedTensor(lvl={}, bdim={}, value=\n{}\n)", b.level, b.dim, repr(&b.value)?));
    }
    if let Some(s) = t.as_sparse() {
        return sparse_repr(t, &s, &o);
    }
    let _off = crate::mode::no_grad();
    let (sizes, dtype, device) = (t.sizes(), t.dtype(), t.device());
    let default = crate::mode::default_dtype();
    let usual = dtype == default || dtype == default.to_complex() || matches!(dtype, DType::I64 | DType::Bool);
    let mut suffixes: Vec<String> = Vec::new();
    if device != Device::Cpu {
        suffixes.push(format!("device='{device}'"));
    }
    let body = if device == Device::Meta {
        suffixes.push(format!("size={}", tuple(&sizes)));
        if dtype != default {
            suffixes.push(format!("dtype={dtype}"));
        }
        "...".to_string()
    } else if numel(&sizes) == 0 {
        if sizes.len() != 1 {
            suffixes.push(format!("size={}", tuple(&sizes)));
        }
        if dtype != default {
            suffixes.push(format!("dtype={dtype}"));
        }
        "[]".to_string()
    } else {
        if !usual {
            suffixes.push(format!("dtype={dtype}"));
        }
        elements_text(t, PREFIX.len(), &o)?
    };
    finish(t, format!("{PREFIX}{body}"), suffixes, false, &o)
}

const PREFIX: &str = "tensor(";

/// `(2, 3)`.
fn tuple(sizes: &[i64]) -> String {
    let inside: Vec<String> = sizes.iter().map(i64::to_string).collect();
    if inside.len() == 1 {
        format!("({},)", inside[0])
    } else {
        format!("({})", inside.join(", "))
    }
}
/// The elements in brackets, summarised where there are many.
fn elements_text(t: &Tensor, indent: usize, o: &PrintOptions) -> Result<String> {
    let sizes = t.sizes();
    if numel(&sizes) == 0 {
        return Ok("[]".to_string());
    }
    let mut shown = t.detach();
    let mut cut = vec![false; sizes.len()];
    if numel(&sizes) as usize > o.threshold {
        for d in 0..sizes.len() {
            let (n, edge) = (sizes[d], o.edgeitems as i64);
            if n > 2 * edge {
                let ends: Vec<i64> = (0..edge).chain(n - edge..n).collect();
                let index = crate::ops::device::to_device(&Tensor::from_slice(&ends, &[2 * edge])?, t.device())?;
                shown = indexing::index_select(&shown, d as i64, &index)?;
                cut[d] = true;
            }
        }
    }
    let shown = view::contiguous(&shown)?;
    let values = read(&shown)?;
    let (texts, width) = elements(&values, o);
    let shown_sizes = shown.sizes();
    let layout =
        Layout { texts: &texts, width, sizes: &shown_sizes, cut: &cut, edge: o.edgeitems, linewidth: o.linewidth };
    Ok(layout.write(0, 0, indent))
}
/// The text of a sparse tensor: its parts, then what it is.
fn sparse_repr(t: &Tensor, s: &Sparse, o: &PrintOptions) -> Result<String> {
    let _off = crate::mode::no_grad();
    let (dtype, device) = (t.dtype(), t.device());
    let default = crate::mode::default_dtype();
    let mut suffixes: Vec<String> = Vec::new();
    if device != Device::Cpu {
        suffixes.push(format!("device='{device}'"));
    }
    suffixes.push(format!("size={}", tuple(&t.sizes())));
    let meta = device == Device::Meta;
    if !meta {
        suffixes.push(format!("nnz={}", s.nnz()));
    }
    if !(dtype == default || dtype == default.to_complex() || matches!(dtype, DType::I64 | DType::Bool)) {
        suffixes.push(format!("dtype={dtype}"));
    }
    let names = match s.layout {
        TensorLayout::SparseCsr | TensorLayout::SparseBsr => ["crow_indices", "col_indices"],
        TensorLayout::SparseCsc | TensorLayout::SparseBsc => ["ccol_indices", "row_indices"],
        _ => ["", "indices"],
    };
    let mut parts = Vec::new();
    let pointers = s.pointers.as_ref().map(|p| (names[0], p));
    for (name, part) in pointers.into_iter().chain([(names[1], &s.indices), ("values", &s.values)]) {
        let head = format!("{name}=tensor(");
        let sizes = part.sizes();
        let body = if meta { "...".to_string() } else { elements_text(part, PREFIX.len() + head.len(), o)? };
        let size = if meta || numel(&sizes) == 0 { format!(", size={}", tuple(&sizes)) } else { String::new() };
        parts.push(format!("{head}{body}{size})"));
    }
    suffixes.push(format!("layout=torch.{}", s.layout.name()));
    let text = format!("{PREFIX}{}", parts.join(&format!(",\n{}", " ".repeat(PREFIX.len()))));
    finish(t, text, suffixes, s.layout == TensorLayout::SparseCoo, o)
}
/// Appends what a tensor is, in lines of the width asked for; `newline`: from a new line on.
fn finish(t: &Tensor, mut out: String, mut suffixes: Vec<String>, newline: bool, o: &PrintOptions) -> Result<String> {
    match t.grad_fn()? {
        Some(edge) => suffixes.push(format!("grad_fn=<{}>", edge.node.name())),
        None if t.requires_grad() => suffixes.push("requires_grad=True".into()),
        None => {}
    }
    // As though a comma and one more character stood after the text already.
    let mut column = out.len() - out.rfind('\n').map_or(0, |i| i + 1) + 2;
    for (i, s) in suffixes.into_iter().enumerate() {
        if (newline && i == 0) || column + s.len() + 2 > o.linewidth {
            out.push_str(&format!(",\n{}{s}", " ".repeat(PREFIX.len())));
            column = PREFIX.len() + s.len();
        } else {
            out.push_str(&format!(", {s}"));
            column += s.len() + 2;
        }
    }
    out.push(')');
    Ok(out)
}

impl std::fmt::Display for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match repr(self) {
            Ok(text) => f.write_str(&text),
            Err(e) => write!(f, "tensor(<{e}>)"),
        }
    }
}
impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
