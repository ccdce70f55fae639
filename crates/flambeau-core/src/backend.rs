//! What a device can do: a few dozen families of kernels, no operators and no tensors.
//!
//! A family that a backend does not have returns [`unsupported`]; the caller then copies the operands to the host, runs
//! the CPU's kernel and copies the results back, with one warning. Unless a method says otherwise: outputs do not
//! overlap inputs, every operand lies on this device, sizes have been checked, and integer index values have **not** been
//! checked against the data.

use crate::storage::Memory;
use crate::{DType, Device, Error, ErrorKind, Number, Operand, Program, Result};

/// The error of a family that a backend lacks.
#[cold]
pub fn unsupported<T>(family: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, family))
}

/// How values are combined along reduced dimensions. Sums are fixed trees: the same bits at any thread count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduction {
    Sum,
    /// Sum, then multiplied by the factor before rounding (mean: 1/n).
    ScaledSum(f64),
    Prod,
    /// Largest value; NaN wins.
    Max,
    /// Smallest value; NaN wins.
    Min,
    /// Index (int64) of the largest value along the single reduced extent (row-major over the reduced dims); first of equals, NaN wins.
    ArgMax,
    ArgMin,
    /// Two outputs: value and its index, as `ArgMax`.
    MaxIndex,
    MinIndex,
    /// Whether any value is not zero.
    Any,
    All,
    /// Two outputs: variance with the divisor `max(0, n - correction)`, and mean.
    VarMean {
        correction: f64,
    },
}

/// A running combination along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scan {
    Sum,
    Prod,
    /// Two outputs: running maximum and its index.
    Max,
    Min,
    LogSumExp,
}

/// Which element of a row is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    /// The smallest but so many; NaN is the largest.
    Kth(usize),
    /// The lower median; the first NaN where there is one.
    Median,
    /// The lower median of what is not NaN.
    NanMedian,
    /// The commonest, the smallest of equally common ones.
    Mode,
}

/// What a scattered write does with a value that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Replace it; of several writes to one place the last in index order stays.
    Set,
    Add,
    Mul,
    Max,
    Min,
}

/// One index tensor of [`Backend::index_read`]: for each element of the iteration, `values` holds an int64 (or int32)
/// index in `-size..size` that is multiplied by `stride` elements.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    /// Index values, with sizes of the whole iteration (broadcast dimensions have stride 0).
    pub values: Operand<'a>,
    /// Size of the dimension that is indexed; the bound that values are checked against.
    pub size: i64,
    /// Elements from one index to the next.
    pub stride: i64,
    /// The dimension's number, for the error message.
    pub dim: usize,
    /// Whether negative values count from the end (advanced indexing) or are out of range (gather, index_select).
    pub wrap: bool,
}

/// Geometry of a convolution over 1 to 3 spatial dimensions. Tensors are N, C, spatial…; weights O, C/groups, spatial….
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    pub stride: Vec<i64>,
    pub padding: Vec<i64>,
    pub dilation: Vec<i64>,
    pub groups: i64,
}

/// Geometry of a pooling window over 1 to 3 spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    pub kernel: Vec<i64>,
    pub stride: Vec<i64>,
    pub padding: Vec<i64>,
    pub dilation: Vec<i64>,
    /// Average pooling: whether padding counts in the divisor.
    pub count_include_pad: bool,
    /// Average pooling: a fixed divisor.
    pub divisor: Option<i64>,
}

/// One step of an optimizer over many parameters. Each list holds one operand a parameter, all of one dtype a parameter.
/// Formulas are those of the papers, with PyTorch's defaults and order of operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerStep {
    /// Lists: parameters, gradients, momentum buffers (empty when `momentum` is 0).
    Sgd { lr: f64, momentum: f64, dampening: f64, weight_decay: f64, nesterov: bool, maximize: bool, first: bool },
    /// Lists: parameters, gradients, first moments, second moments, maxima of the second moments (when `amsgrad`).
    /// `step` counts from 1. `decoupled` is AdamW's weight decay.
    Adam {
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
        amsgrad: bool,
        maximize: bool,
        step: f64,
    },
}

/// A discrete Fourier transform over some dimensions. `inverse` means the exponent's sign is positive; nothing is scaled but
/// by the factor that [`Backend::fft`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fft {
    /// Complex to complex, of one size.
    Complex { inverse: bool },
    /// Real to the non-negative half of the spectrum: the last of the dimensions has `n / 2 + 1` elements in the output.
    FromReal,
    /// Half a Hermitian spectrum to real values: positive exponent; the output's size decides between even and odd `n`.
    /// The imaginary parts that symmetry makes zero are not read.
    ToReal,
}

/// A decomposition of each matrix of a batch, or a solver that uses one. Operands: inputs → outputs; matrices are (b…, m, n)
/// in any layout, k = min(m, n); pivots and infos are int32, with LAPACK's meaning. Dtypes: float32, float64, complex64,
/// complex128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decomposition {
    /// A (n, n) → L, or U read from the upper triangle; info: order of the first leading minor that is not positive.
    Cholesky { upper: bool },
    /// A → packed L U, pivots (k), info: position of the first zero pivot.
    Lu { pivot: bool },
    /// L U (n, n), pivots (n), B (n, r) → X with `A X = B`, or `Aᴴ X = B`.
    LuSolve { adjoint: bool },
    /// Pivots (k) → P (m, m) with `A = P L U`.
    Permutation,
    /// A → reflectors below R, tau (k).
    Qr,
    /// A (m, n), tau (k) → the first n columns of the product of the reflectors.
    HouseholderProduct,
    /// A (n, n) triangular, B (n, r) → X. Only the triangle is read.
    SolveTriangular { upper: bool, unitriangular: bool },
    /// A (n, n), of which the lower triangle is read → packed L D, pivots (n), info.
    Ldl { hermitian: bool },
    /// L D, pivots, B (n, r) → X.
    LdlSolve { hermitian: bool },
    /// A (n, n), of which the lower triangle is read → values (n) ascending, real; and vectors (n, n) where wanted.
    Eigh,
    /// A (n, n) → values (n), complex; and vectors (n, n) where wanted.
    Eig,
    /// A → S (k) descending; or U, S, Vᴴ, whose sizes say whether they are full or reduced.
    Svd,
}

/// Extras of a matrix product.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every row of the product; 1-d of the product's last size.
    pub bias: Option<Operand<'a>>,
    /// Add the product to what `out` holds instead of replacing it.
    pub accumulate: bool,
    /// What follows, done part by part while the product is near.
    pub then: Option<Then<'a>>,
}

/// A program that runs for every element of a result as soon as that has been computed.
#[derive(Clone, Copy, Debug)]
pub struct Then<'a> {
    pub program: &'a Program<'a>,
    /// Operands of the result's number of elements and last size; one of them is the result itself. Broadcast dimensions have
    /// stride 0. None of the others shares memory with the result or an output.
    pub x: &'a [Operand<'a>],
    /// Outputs of the same sizes; one may be the memory of the result.
    pub out: &'a [Operand<'a>],
}

/// Arguments of attention beside the tensors.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Multiplied with the scores before the softmax.
    pub scale: f64,
    /// Position `i` of the queries sees keys `0..=i`.
    pub causal: bool,
    /// Added to the scores (float) or selecting them (bool, true = may attend); broadcast to N, heads, L, S.
    pub mask: Option<Operand<'a>>,
}

/// A device's kernels.
#[allow(clippy::too_many_arguments)]
pub trait Backend: Send + Sync {
    /// Which device this is.
    fn device(&self) -> Device;

    // ---- memory ---------------------------------------------------------------------------------------------------
    /// Uninitialised memory, aligned to 64 bytes on the host and 256 on a device.
    ///
    /// # Errors
    /// `OutOfMemory` that names the size.
    fn alloc(&self, nbytes: usize) -> Result<Memory>;
    /// Sets `nbytes` at `ptr` to `value`.
    fn fill_bytes(&self, ptr: *mut u8, value: u8, nbytes: usize) -> Result<()>;
    /// Copies host memory to this device; complete on return.
    fn upload(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()>;
    /// Copies this device's memory to the host; waits for the work that produces it.
    fn download(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()>;
    /// Copies within the device.
    fn copy_bytes(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()>;
    /// Waits for everything that was started.
    fn synchronize(&self) -> Result<()>;

    // ---- element by element -----------------------------------------------------------------------------------------
    /// Runs `program` for every element. All operands have the same sizes (broadcast dimensions have stride 0); every
    /// `out` has them too. An output may be the very same memory and layout as an input.
    fn map(&self, program: &Program, x: &[Operand], out: &[Operand]) -> Result<()>;
    /// Runs `program` (one result) for every element and combines the results over the dimensions set in `dims` (bit d =
    /// dimension d). Outputs have the same rank, with size 1 in the reduced dimensions. Reducing nothing but empty
    /// extents yields the neutral element (the caller refuses Max, Min, ArgMax of nothing).
    fn reduce(&self, how: Reduction, program: &Program, x: &[Operand], dims: u64, out: &[Operand]) -> Result<()>;
    /// Running combination along `dim`; outputs have `x`'s sizes (second output int64 indices for Max and Min).
    fn scan(&self, how: Scan, x: &Operand, dim: usize, out: &[Operand]) -> Result<()>;

    // ---- indexed ------------------------------------------------------------------------------------------------------
    /// `out[i] = x[i · strides + Σ index_k[i] · stride_k]`. `x.strides` are over the iteration's sizes (= `out.sizes`), 0
    /// where an index tensor supplies the position.
    ///
    /// # Errors
    /// `Index` for a value out of range, naming index, dimension and size.
    fn index_read(&self, x: &Operand, index: &[Index], out: &Operand) -> Result<()>;
    /// The reverse: writes `values[i]` (or `number` where `values` is none) to `x` at that position. Additions happen in
    /// index order.
    fn index_write(&self, x: &Operand, index: &[Index], values: &Operand, how: Write) -> Result<()>;
    /// How many elements of `x` are not zero.
    fn count_nonzero(&self, x: &Operand) -> Result<i64>;
    /// Coordinates of the elements that are not zero, row-major, into `out` of sizes (count, rank), int64.
    fn nonzero(&self, x: &Operand, out: &Operand) -> Result<()>;
    /// The elements of `x` where `mask` (same sizes, bool) is true, row-major, into the 1-d `out`.
    fn masked_select(&self, _x: &Operand, _mask: &Operand, _out: &Operand) -> Result<()> {
        unsupported("masked_select")
    }
    /// A sparse matrix applied along `dim`: `out[j] = Σ weight[k] x[index[k]]` over `k` in `starts[j]..starts[j + 1]`, in this order; or
    /// its transpose. Contiguous operands, float32 or float64; `starts` and `index` are int64.
    ///
    /// # Errors
    /// `Index` for an index out of range.
    #[allow(clippy::too_many_arguments)]
    fn weave(
        &self,
        _x: &Operand,
        _starts: &Operand,
        _index: &Operand,
        _weight: &Operand,
        _dim: usize,
        _transposed: bool,
        _out: &Operand,
    ) -> Result<()> {
        unsupported("weave")
    }
    /// Values and their int64 positions sorted along `dim`; NaN is the largest. Always stable.
    fn sort(&self, x: &Operand, dim: usize, descending: bool, values: &Operand, indices: &Operand) -> Result<()>;
    /// The `k` largest (smallest) along `dim`, sorted; outputs have size k there.
    fn topk(&self, _x: &Operand, _dim: usize, _largest: bool, _values: &Operand, _indices: &Operand) -> Result<()> {
        unsupported("topk")
    }
    /// One element along `dim` by its rank, and its position; outputs have size 1 there.
    fn pick(&self, _x: &Operand, _dim: usize, _which: Pick, _values: &Operand, _indices: &Operand) -> Result<()> {
        unsupported("pick")
    }

    /// Where each of `values` (…, m) belongs in the last dimension of `sorted` (n, or …, n): before its equals, or after them
    /// (`right`). Operands are contiguous, in the own dtype of one class; `out` is int64.
    fn search(&self, _sorted: &Operand, _values: &Operand, _right: bool, _out: &Operand) -> Result<()> {
        unsupported("search")
    }

    // ---- products -----------------------------------------------------------------------------------------------------
    /// Batched product of (b…, m, k) and (b…, k, n) into (b…, m, n); equal batch sizes (stride 0 where broadcast), any
    /// strides, one dtype; or int8 (a uint8 as well) times int8 into int32. Floats below 32 bits accumulate in f32.
    fn matmul(&self, a: &Operand, b: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()>;
    fn conv(&self, x: &Operand, w: &Operand, bias: Option<&Operand>, geometry: &Conv, out: &Operand) -> Result<()>;
    /// The gradient of [`Backend::conv`] with respect to its input (which is also a transposed convolution).
    fn conv_input_grad(&self, g: &Operand, w: &Operand, geometry: &Conv, gx: &Operand) -> Result<()>;
    fn conv_weight_grad(&self, g: &Operand, x: &Operand, geometry: &Conv, gw: &Operand) -> Result<()>;
    /// Attention of q (n, h, l, e), k (n, h, s, e), v (n, h, s, f) into out (n, h, l, f), and the logarithm of each row's sum
    /// of exponentials (n, h, l), float32 or float64. A row that sees nothing gives zeros.
    fn attention(
        &self,
        _q: &Operand,
        _k: &Operand,
        _v: &Operand,
        _p: &Attention,
        _out: &Operand,
        _lse: &Operand,
    ) -> Result<()> {
        unsupported("attention")
    }
    fn attention_grad(
        &self,
        _g: &Operand,
        _q: &Operand,
        _k: &Operand,
        _v: &Operand,
        _out: &Operand,
        _lse: &Operand,
        _p: &Attention,
        _gq: &Operand,
        _gk: &Operand,
        _gv: &Operand,
    ) -> Result<()> {
        unsupported("attention_grad")
    }

    // ---- transforms ---------------------------------------------------------------------------------------------------
    /// The Fourier transform of `x` over `dims`, times `scale`. float32, float64 and their complex dtypes.
    fn fft(&self, _kind: Fft, _x: &Operand, _dims: &[usize], _scale: f64, _out: &Operand) -> Result<()> {
        unsupported("fft")
    }

    /// Decomposes or solves a batch of matrices.
    ///
    /// # Errors
    /// `LinAlg` for an iteration that does not converge; singular matrices are said in the info.
    fn decompose(&self, _how: Decomposition, _x: &[Operand], _out: &[Operand]) -> Result<()> {
        unsupported("decompose")
    }

    // ---- windows ------------------------------------------------------------------------------------------------------
    /// Maximum over windows of (n, c, spatial…), and the int64 position of each maximum in its channel's flattened plane.
    fn max_pool(&self, x: &Operand, geometry: &Pool, out: &Operand, indices: Option<&Operand>) -> Result<()>;
    fn avg_pool(&self, _x: &Operand, _geometry: &Pool, _out: &Operand) -> Result<()> {
        unsupported("avg_pool")
    }
    fn avg_pool_grad(&self, _g: &Operand, _geometry: &Pool, _gx: &Operand) -> Result<()> {
        unsupported("avg_pool_grad")
    }

    // ---- rows ---------------------------------------------------------------------------------------------------------
    /// Softmax (or its logarithm) along `dim`.
    fn softmax(&self, x: &Operand, dim: usize, log: bool, out: &Operand) -> Result<()>;
    /// Its gradient from the output `y`: `y (g - Σ g y)`, or `g - exp(y) Σ g` for the logarithm.
    fn softmax_grad(&self, g: &Operand, y: &Operand, dim: usize, log: bool, gx: &Operand) -> Result<()>;
    /// Normalises rows: `x` and `out` are (rows, n), `mean` and `rstd` (rows), float32 or float64; weight and bias (n).
    fn layer_norm(
        &self,
        x: &Operand,
        weight: Option<&Operand>,
        bias: Option<&Operand>,
        eps: f64,
        out: &Operand,
        mean: &Operand,
        rstd: &Operand,
    ) -> Result<()>;
    /// Gradients with respect to input, weight and bias, those that are asked for.
    fn layer_norm_grad(
        &self,
        g: &Operand,
        x: &Operand,
        mean: &Operand,
        rstd: &Operand,
        weight: Option<&Operand>,
        gx: Option<&Operand>,
        gw: Option<&Operand>,
        gb: Option<&Operand>,
    ) -> Result<()>;
    /// Normalises every channel of `x` (n, c, s) by its own mean and biased variance, which come out as `mean` and `var`
    /// (c), float32 or float64; weight and bias (c) may have any float dtype. Either the last dimension of `x` and `out` is
    /// adjacent, or the channels are, of one dense block.
    fn batch_norm(
        &self,
        _x: &Operand,
        _weight: Option<&Operand>,
        _bias: Option<&Operand>,
        _eps: f64,
        _out: &Operand,
        _mean: &Operand,
        _var: &Operand,
    ) -> Result<()> {
        unsupported("batch_norm")
    }
    /// Gradients of [`Backend::batch_norm`] with respect to input, weight and bias, those that are asked for.
    fn batch_norm_grad(
        &self,
        _g: &Operand,
        _x: &Operand,
        _mean: &Operand,
        _var: &Operand,
        _weight: Option<&Operand>,
        _eps: f64,
        _gx: Option<&Operand>,
        _gw: Option<&Operand>,
        _gb: Option<&Operand>,
    ) -> Result<()> {
        unsupported("batch_norm_grad")
    }
    /// The steps of an LSTM layer. `gates` (steps, batch, 4 hidden) is the inputs' part, biases included, in the order input,
    /// forget, cell, output; `h0` and `c0` (batch, hidden) are contiguous, `w` is (4 hidden, hidden). Gives the hidden states
    /// `out` and the cells (steps, batch, hidden), the gates' activations, and the last cell. Numbers of a sequence's row are
    /// adjacent. `reverse` begins at the last step. float32 and float64.
    fn lstm(
        &self,
        _gates: &Operand,
        _h0: &Operand,
        _c0: &Operand,
        _w: &Operand,
        _reverse: bool,
        _out: &Operand,
        _last: &Operand,
        _cells: &Operand,
        _active: &Operand,
    ) -> Result<()> {
        unsupported("lstm")
    }
    /// Gradients of [`Backend::lstm`] with respect to gates, `h0` and `c0`, from those of `out` and of the last cell. The weight's
    /// is a product of the gates' with the hidden states before.
    fn lstm_grad(
        &self,
        _g: &Operand,
        _g_last: &Operand,
        _active: &Operand,
        _cells: &Operand,
        _c0: &Operand,
        _w: &Operand,
        _reverse: bool,
        _g_gates: &Operand,
        _g_h0: &Operand,
        _g_c0: &Operand,
    ) -> Result<()> {
        unsupported("lstm_grad")
    }
    /// Loss of each row of `logits` (rows, classes) for int64 `target` (rows): `lse - logits[target]`, 0 where target is
    /// `ignore`; and the logarithm of the row's sum of exponentials.
    ///
    /// # Errors
    /// `Index` for a target outside the classes.
    fn cross_entropy(
        &self,
        _logits: &Operand,
        _target: &Operand,
        _ignore: i64,
        _loss: &Operand,
        _lse: &Operand,
    ) -> Result<()> {
        unsupported("cross_entropy")
    }
    /// `(exp(logits - lse) - onehot(target)) g` by row, 0 where target is `ignore`; `g` has one value a row (stride 0 when
    /// all are equal).
    fn cross_entropy_grad(
        &self,
        _g: &Operand,
        _logits: &Operand,
        _target: &Operand,
        _lse: &Operand,
        _ignore: i64,
        _gx: &Operand,
    ) -> Result<()> {
        unsupported("cross_entropy_grad")
    }

    // ---- the rest -----------------------------------------------------------------------------------------------------
    /// One optimizer step over many parameters at once, written in place.
    fn optimizer(&self, _step: &OptimizerStep, _lists: &[&[Operand]]) -> Result<()> {
        unsupported("optimizer")
    }
    /// The kernels' one-element fast path: `out = f(x…)` without a program, when every operand is contiguous, of `dtype`,
    /// with `n` elements. `None` when this backend has no such kernel.
    fn direct(&self, _f: crate::ScalarFn, _dtype: DType, _n: usize) -> Option<DirectKernel> {
        None
    }
    /// What the allocator has given out and what it holds.
    fn memory_stats(&self) -> MemoryStats {
        MemoryStats::default()
    }
    /// Peaks count from here on.
    fn reset_peak_memory_stats(&self) {}
    /// Gives unused cached memory back.
    fn trim(&self) {}
    /// Fills a contiguous operand with a number (converted to its dtype).
    fn fill(&self, out: &Operand, value: Number) -> Result<()>;
}

/// Bytes now, and the most there were since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub current: usize,
    pub peak: usize,
}
/// An allocator's books, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Blocks that somebody has.
    pub allocated: Level,
    /// Blocks that somebody has and blocks kept for reuse.
    pub reserved: Level,
}

/// A kernel over contiguous memory: `(n, x0, x1, x2, x3, out)`, unused pointers null, out not partially overlapping.
pub type DirectKernel = unsafe fn(usize, *const u8, *const u8, *const u8, *const u8, *mut u8);
