//! Kernel arguments as the kernels' structs lay them out: words of eight bytes.

use flambeau_core::{Class, Number, Operand, SmallVec};

/// Dimensions that a kernel walks over (`MAX_RANK` in the prelude); operands are collapsed first.
pub const MAX_RANK: usize = 8;

/// Sizes or strides, innermost dimension first.
pub type Reversed = SmallVec<[i64; MAX_RANK]>;

/// Dimensions collapsed as far as all operands allow, innermost first; always at least one.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    pub sizes: Reversed,
    /// By operand, then dimension.
    pub strides: SmallVec<[Reversed; 6]>,
}

impl Walk {
    /// Drops dimensions of size 1 and merges neighbours that every operand walks through evenly.
    pub fn collapse(sizes: &[i64], strides: &[&[i64]]) -> Walk {
        Walk::collapse_in(sizes, strides, |_, _| true)
    }
    /// The same with `may_merge(outer, inner)` to keep dimensions apart.
    pub fn collapse_in(sizes: &[i64], strides: &[&[i64]], may_merge: impl Fn(usize, usize) -> bool) -> Walk {
        let mut walk = Walk { sizes: Reversed::new(), strides: strides.iter().map(|_| Reversed::new()).collect() };
        let mut last = usize::MAX;
        for d in (0..sizes.len()).rev() {
            if sizes[d] == 1 {
                continue;
            }
            let top = walk.sizes.len();
            let even = top > 0
                && may_merge(d, last)
                && strides.iter().zip(&walk.strides).all(|(s, w)| s[d] == w[top - 1] * walk.sizes[top - 1]);
            if even {
                walk.sizes[top - 1] *= sizes[d];
            } else {
                walk.sizes.push(sizes[d]);
                for (s, w) in strides.iter().zip(&mut walk.strides) {
                    w.push(s[d]);
                }
            }
            last = d;
        }
        if walk.sizes.is_empty() {
            walk.sizes.push(1);
            walk.strides.iter_mut().for_each(|w| w.push(0));
        }
        walk
    }
    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.sizes.iter().product()
    }
    /// Whether kernels can walk this many dimensions.
    pub fn fits(&self) -> bool {
        self.sizes.len() <= MAX_RANK
    }
}

/// A kernel's parameter being built.
#[derive(Default)]
pub struct Args(Vec<u64>);

impl Args {
    pub fn new() -> Args {
        Args(Vec::with_capacity(64))
    }
    pub fn i64(&mut self, x: i64) -> &mut Self {
        self.0.push(x as u64);
        self
    }
    pub fn f64(&mut self, x: f64) -> &mut Self {
        self.0.push(x.to_bits());
        self
    }
    pub fn ptr(&mut self, p: *const u8) -> &mut Self {
        self.0.push(p as u64);
        self
    }
    /// `long long x[3]` and the like.
    pub fn array(&mut self, values: &[i64], len: usize) -> &mut Self {
        self.0.extend((0..len).map(|d| values.get(d).copied().unwrap_or(0) as u64));
        self
    }
    /// `Walk`
    pub fn walk(&mut self, sizes: &[i64]) -> &mut Self {
        let n: i64 = sizes.iter().product();
        self.i64(n).i64(sizes.len() as i64).i64((n <= u32::MAX as i64) as i64).array(sizes, MAX_RANK)
    }
    /// `Operand`
    pub fn operand(&mut self, x: &Operand, strides: &[i64]) -> &mut Self {
        self.ptr(x.ptr).i64(x.dtype as i64).array(strides, MAX_RANK)
    }
    /// An `Operand` that the kernel does not look at.
    pub fn no_operand(&mut self) -> &mut Self {
        self.array(&[], 2 + MAX_RANK)
    }
    /// `Num`
    pub fn number(&mut self, x: Number, class: Class) -> &mut Self {
        match class {
            Class::I64 => self.i64(x.to_i64()).i64(0),
            Class::F32 | Class::F64 => self.f64(x.to_f64()).i64(0),
            Class::C32 | Class::C64 => {
                let c = x.to_complex();
                self.f64(c.re).f64(c.im)
            }
        }
    }
    /// `Matrix2`: rows and columns apart by these strides.
    pub fn matrix(&mut self, x: Option<&Operand>, row: i64, column: i64) -> &mut Self {
        match x {
            Some(x) => self.ptr(x.ptr).i64(x.dtype as i64).i64(row).i64(column),
            None => self.array(&[], 4),
        }
    }
    /// The parameter's address.
    pub fn as_mut_ptr(&mut self) -> *mut std::ffi::c_void {
        self.0.as_mut_ptr().cast()
    }
    /// Bytes so far; CUDA takes 4096 at most.
    pub fn nbytes(&self) -> usize {
        self.0.len() * 8
    }
}
