//! Signatures in PyTorch's syntax, parsed once at import: `"add(Tensor input, Tensor|Number other, *, Number alpha=1)"`.

use crate::raw::*;

/// What a parameter takes. The names on the right are what signatures write.
#[allow(clippy::enum_variant_names)] // `DType` is the dtype's own name
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    Tensor,
    TensorOrNumber,
    Number,
    Int,
    Float,
    Bool,
    Ints,
    Floats,
    Bools,
    Tensors,
    OptionalTensors,
    Str,
    DType,
    Device,
    Layout,
    MemoryFormat,
    Generator,
    Object,
    /// Not a parameter: where the results go. Last in a Rust function's arguments.
    Dest,
}

/// The spelling of each type in signatures, in the enum's order.
pub const SPELLINGS: [&str; 18] = [
    "Tensor",
    "Tensor|Number",
    "Number",
    "int",
    "float",
    "bool",
    "int[]",
    "float[]",
    "bool[]",
    "Tensor[]",
    "Tensor?[]",
    "str",
    "dtype",
    "device",
    "layout",
    "memory_format",
    "Generator",
    "object",
];

const TYPES: [Type; 18] = [
    Type::Tensor,
    Type::TensorOrNumber,
    Type::Number,
    Type::Int,
    Type::Float,
    Type::Bool,
    Type::Ints,
    Type::Floats,
    Type::Bools,
    Type::Tensors,
    Type::OptionalTensors,
    Type::Str,
    Type::DType,
    Type::Device,
    Type::Layout,
    Type::MemoryFormat,
    Type::Generator,
    Type::Object,
];

/// A default value.
#[derive(Clone, Debug, PartialEq)]
pub enum Default {
    Required,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'static str),
    /// `int[2] stride=1` or `=(1, 1)`.
    Ints(Vec<i64>),
}

/// One parameter.
pub struct Param {
    pub name: &'static str,
    /// The interned name: keywords are compared by address first.
    pub key: Obj,
    pub ty: Type,
    pub optional: bool,
    /// `int[2]`: a single int stands for this many; 0 without a length.
    pub length: u8,
    /// `int[*]`: only a list will do, no single int; where it is the only argument by position, also the ints themselves.
    pub variadic: bool,
    /// Whether the remaining positional arguments may stand for the list: `x.view(2, 3)`, `torch.ones(2, 3)`, and PyTorch's
    /// rule for every list of ints that is the only argument beside the tensor of a method.
    pub collects: bool,
    pub default: Default,
    /// How the signature writes the type.
    pub spelling: &'static str,
}

/// A parsed signature.
pub struct Signature {
    pub text: &'static str,
    pub params: Vec<Param>,
    /// How many parameters can be given by position.
    pub positional: usize,
    /// Bit `i`: parameter `i` has no default.
    pub required: u64,
    /// `-> max(values, indices)`: the named tuple of the results.
    pub returns: Option<(&'static str, Vec<&'static str>)>,
    /// No tensor among the parameters: the default device applies.
    pub is_factory: bool,
}

// SAFETY: interned keys live for ever and are only compared and read while attached.
unsafe impl Sync for Signature {}
// SAFETY: as above.
unsafe impl Send for Signature {}

/// Splits at top-level commas.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out.retain(|s| !s.is_empty());
    out
}

fn parse_default(text: &'static str) -> Default {
    match text {
        "None" => Default::None,
        "True" => Default::Bool(true),
        "False" => Default::Bool(false),
        "inf" => Default::Float(f64::INFINITY),
        "-inf" => Default::Float(f64::NEG_INFINITY),
        _ => {
            if let Ok(i) = text.parse::<i64>() {
                return Default::Int(i);
            }
            if let Ok(f) = text.parse::<f64>() {
                return Default::Float(f);
            }
            if text.starts_with(['(', '[']) {
                let inner = &text[1..text.len() - 1];
                return Default::Ints(inner.split(',').filter_map(|s| s.trim().parse().ok()).collect());
            }
            Default::Str(text.trim_matches(['"', '\'']))
        }
    }
}

/// Parses a signature of the table, whose form the row's const assertion has checked.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn parse(text: &'static str, extra: &'static str) -> Signature {
    let open = text.find('(').unwrap_or(0);
    let (close, returns) = match text.find(" -> ") {
        Some(arrow) => {
            let r = text[arrow + 4..].trim();
            let o = r.find('(').unwrap_or(r.len());
            let fields = r[o..].trim_matches(['(', ')']).split(',').map(str::trim).collect();
            (text[..arrow].rfind(')').unwrap_or(arrow), Some((&r[..o], fields)))
        }
        None => (text.rfind(')').unwrap_or(text.len()), None),
    };
    let mut s = Signature { text, params: Vec::new(), positional: 0, required: 0, returns, is_factory: true };
    let mut keyword_only = false;
    for part in split(&text[open + 1..close]).into_iter().chain(split(extra)) {
        if part == "*" {
            keyword_only = true;
            continue;
        }
        let (declaration, default) = match part.split_once('=') {
            Some((d, v)) => (d.trim(), parse_default(v.trim())),
            None => (part, Default::Required),
        };
        let Some((spelling, name)) = declaration.rsplit_once(' ') else { continue };
        let optional = spelling.ends_with('?');
        let mut base = spelling.trim_end_matches('?');
        let (mut length, mut variadic) = (0, false);
        if let Some((head, tail)) = base.split_once('[') {
            if tail != "]" {
                if tail == "*]" {
                    variadic = true;
                } else {
                    length = tail.trim_end_matches(']').parse().unwrap_or(0);
                }
                base = match head {
                    "int" => "int[]",
                    "float" => "float[]",
                    "bool" => "bool[]",
                    "Tensor" => "Tensor[]",
                    other => other,
                };
            }
        }
        // `out` is one tensor or a tuple of them.
        let ty = if name == "out" {
            Type::Object
        } else {
            SPELLINGS.iter().position(|s| *s == base).map_or(Type::Object, |i| TYPES[i])
        };
        if matches!(ty, Type::Tensor | Type::Tensors | Type::TensorOrNumber) && name != "out" {
            s.is_factory = false;
        }
        if default == Default::Required {
            s.required |= 1 << s.params.len();
        }
        let collects = variadic && ty == Type::Tensors;
        s.params.push(Param { name, key: intern(name), ty, optional, length, variadic, collects, default, spelling });
        if !keyword_only {
            s.positional += 1;
        }
    }
    match &mut s.params[..s.positional] {
        [only] => only.collects |= only.variadic,
        [first, only] => only.collects |= first.ty == Type::Tensor && only.ty == Type::Ints && !only.optional,
        _ => {}
    }
    s
}

/// Whether a signature's parameters have these types in this order (`Dest` aside). For const assertions.
pub const fn matches(text: &str, types: &[(Type, bool)]) -> bool {
    let b = text.as_bytes();
    let mut i = 0;
    while i < b.len() && b[i] != b'(' {
        i += 1;
    }
    i += 1;
    let mut k = 0;
    loop {
        while i < b.len() && (b[i] == b' ' || b[i] == b',') {
            i += 1;
        }
        if i >= b.len() {
            return false;
        }
        if b[i] == b')' {
            break;
        }
        if b[i] == b'*' {
            i += 1;
            continue;
        }
        // The type reaches to the next space.
        let start = i;
        while i < b.len() && b[i] != b' ' {
            i += 1;
        }
        if k >= types.len() || !spells(b, start, i, types[k].0, types[k].1) {
            return false;
        }
        k += 1;
        // The name and default reach to a comma or bracket outside brackets.
        let mut depth = 0;
        while i < b.len() && !(depth == 0 && (b[i] == b',' || b[i] == b')')) {
            if b[i] == b'(' || b[i] == b'[' {
                depth += 1;
            } else if b[i] == b')' || b[i] == b']' {
                depth -= 1;
            }
            i += 1;
        }
    }
    k == types.len() || (k + 1 == types.len() && matches!(types[k].0, Type::Dest))
}

const fn spells(b: &[u8], start: usize, end: usize, ty: Type, optional: bool) -> bool {
    if matches!(ty, Type::Dest) {
        return false;
    }
    let mut end = end;
    let marked = end > start && b[end - 1] == b'?';
    if marked {
        end -= 1;
    }
    if marked != optional {
        return false;
    }
    let want = SPELLINGS[ty as usize].as_bytes();
    // `int[2]` and `int[*]` are `int[]` with something inside the brackets.
    let mut i = 0;
    let mut at = start;
    while i < want.len() {
        if at >= end {
            return false;
        }
        if want[i] == b']' {
            while at < end && b[at] != b']' {
                at += 1;
            }
            if at >= end {
                return false;
            }
        }
        if b[at] != want[i] {
            return false;
        }
        i += 1;
        at += 1;
    }
    at == end
}
