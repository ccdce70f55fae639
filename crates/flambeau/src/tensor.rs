//! The tensor: a counted reference to a layout over shared storage, with its place in the autograd graph.

use crate::autograd::meta::{AutogradMeta, Place};
use flambeau_core::*;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicPtr, AtomicU32, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Layout, dtype and memory of a tensor: what `infer` and kernels look at.
pub struct Meta {
    pub sizes: Dims,
    /// In elements.
    pub strides: Dims,
    /// Of the first element, in elements from the storage's start.
    pub offset: i64,
    pub dtype: DType,
    pub storage: Arc<Storage>,
    /// A version counter of its own (`x.data`), in place of the storage's.
    pub version: Option<Arc<AtomicU32>>,
    /// What memory lacks of the values: [`CONJ`], [`NEG`], or nothing.
    pub lazy: u8,
}
/// The values are the conjugates of what is in memory (`x.conj()`).
pub const CONJ: u8 = 1;
/// The values are what is in memory, negated (`x.conj().imag`).
pub const NEG: u8 = 2;

impl Clone for Meta {
    #[inline]
    fn clone(&self) -> Meta {
        Meta {
            sizes: copy_dims(&self.sizes),
            strides: copy_dims(&self.strides),
            offset: self.offset,
            dtype: self.dtype,
            storage: self.storage.clone(),
            version: self.version.clone(),
            lazy: self.lazy,
        }
    }
}

impl Meta {
    pub fn dim(&self) -> usize {
        self.sizes.len()
    }
    pub fn numel(&self) -> i64 {
        numel(&self.sizes)
    }
    #[inline]
    pub fn device(&self) -> Device {
        self.storage.device()
    }
    pub fn is_contiguous(&self) -> bool {
        is_contiguous(&self.sizes, &self.strides)
    }
    /// The in-place version that autograd compares.
    #[inline]
    pub fn version(&self) -> u32 {
        match &self.version {
            Some(v) => v.load(Ordering::Relaxed),
            None => self.storage.version().load(Ordering::Relaxed),
        }
    }
    /// Address of the first element.
    ///
    /// # Errors
    /// The failure of a recorded computation.
    #[inline]
    pub fn data_ptr(&self) -> Result<*mut u8> {
        Ok(self.storage.ptr()?.wrapping_offset(self.offset as isize * self.dtype.size() as isize))
    }
    /// The kernel's view of this tensor.
    ///
    /// # Errors
    /// The failure of a recorded computation; `Runtime` for values that are not what is in memory, which no kernel reads.
    #[inline]
    pub fn operand(&self) -> Result<Operand<'_>> {
        ensure!(
            self.lazy == 0,
            Runtime,
            "a lazily conjugated or negated tensor: use resolve_conj().resolve_neg() first"
        );
        Ok(Operand {
            ptr: self.data_ptr()?,
            dtype: self.dtype,
            sizes: &self.sizes,
            strides: &self.strides,
            device: self.device(),
        })
    }
}

pub(crate) const REQUIRES_GRAD: u8 = 1;
pub(crate) const VIEW: u8 = 2;
pub(crate) const INFERENCE_TENSOR: u8 = 4;
pub(crate) const BATCHED: u8 = 8;
/// The Python wrapper is kept alive by this tensor.
const OWNS_WRAPPER: u8 = 16;
/// At least [`LARGE_NUMEL`] elements.
pub(crate) const LARGE: u8 = 32;
/// Indices and values in place of memory of its own; see [`mod@crate::ops::sparse`].
pub(crate) const SPARSE: u8 = 64;
const LARGE_NUMEL: i64 = 1 << 15;

/// A tensor seen as one example of a batch (`vmap`): the logical sizes lack the batch dimension.
pub struct Batched {
    /// The tensor with the batch dimension.
    pub value: Tensor,
    /// Where in `value` it is.
    pub dim: usize,
    /// Nesting level, from 1.
    pub level: u32,
}

/// How a tensor's elements are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorLayout {
    /// In memory, at strides.
    Strided,
    /// Coordinates and values.
    SparseCoo,
    /// Pointers to rows, columns and values.
    SparseCsr,
    /// Pointers to columns, rows and values.
    SparseCsc,
    /// As `SparseCsr`, of blocks.
    SparseBsr,
    /// As `SparseCsc`, of blocks.
    SparseBsc,
}
impl TensorLayout {
    /// PyTorch's name, `"sparse_coo"`.
    pub fn name(self) -> &'static str {
        match self {
            TensorLayout::Strided => "strided",
            TensorLayout::SparseCoo => "sparse_coo",
            TensorLayout::SparseCsr => "sparse_csr",
            TensorLayout::SparseCsc => "sparse_csc",
            TensorLayout::SparseBsr => "sparse_bsr",
            TensorLayout::SparseBsc => "sparse_bsc",
        }
    }
    /// As messages name it, `"SparseCsr"`.
    pub fn title(self) -> &'static str {
        match self {
            TensorLayout::Strided => "Strided",
            TensorLayout::SparseCoo => "Sparse",
            TensorLayout::SparseCsr => "SparseCsr",
            TensorLayout::SparseCsc => "SparseCsc",
            TensorLayout::SparseBsr => "SparseBsr",
            TensorLayout::SparseBsc => "SparseBsc",
        }
    }
    /// Whether one dimension's indices are kept as pointers.
    pub fn is_compressed(self) -> bool {
        !matches!(self, TensorLayout::Strided | TensorLayout::SparseCoo)
    }
    /// Whether values are blocks.
    pub fn is_blocked(self) -> bool {
        matches!(self, TensorLayout::SparseBsr | TensorLayout::SparseBsc)
    }
    /// Whether pointers are to rows.
    pub fn by_row(self) -> bool {
        matches!(self, TensorLayout::SparseCsr | TensorLayout::SparseBsr)
    }
}

/// What a sparse tensor is made of. Its place in the autograd graph is that of `values`.
#[derive(Clone)]
pub struct Sparse {
    pub layout: TensorLayout,
    /// COO: (sparse dimensions, entries). Compressed: (batch…, entries), the other dimension's index of every entry.
    pub indices: Tensor,
    /// Compressed: where each row (column) of entries begins, and the end.
    pub pointers: Option<Tensor>,
    /// (batch…, entries, block…, dense dimensions…).
    pub values: Tensor,
    /// Entries are in order and none is twice.
    pub coalesced: bool,
}

/// What stands behind a tensor that has no memory of its own.
enum Behind {
    Batched(Batched),
    Sparse(RwLock<Arc<Sparse>>),
}

pub(crate) struct Impl {
    refs: AtomicUsize,
    flags: AtomicU8,
    /// That of `meta`, which most of those who ask for a dtype need nothing else of: a lock costs as much as ten additions.
    dtype: AtomicU8,
    wrapper: AtomicPtr<u8>,
    meta: RwLock<Meta>,
    autograd: Mutex<Place>,
    behind: Option<Box<Behind>>,
}

/// A multi-dimensional array. Cloning copies the reference, not the data.
///
/// `Tensor` is `Send` and `Sync`. Its metadata sits behind small locks; its elements are shared memory which safe code never
/// borrows: reads and writes go through operators, and two threads that write the same elements race as they would in PyTorch.
pub struct Tensor(NonNull<Impl>);

// SAFETY: `Impl` is a counted allocation whose fields are atomics and locks over Send + Sync values.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

static RELEASE_WRAPPER: OnceLock<fn(*mut u8)> = OnceLock::new();

impl Clone for Tensor {
    #[inline]
    fn clone(&self) -> Self {
        self.inner().refs.fetch_add(1, Ordering::Relaxed);
        Tensor(self.0)
    }
}

impl Drop for Tensor {
    #[inline]
    fn drop(&mut self) {
        let inner = self.inner();
        // The only reference is this one, and nobody can copy it meanwhile: no need to count down.
        let before =
            if inner.refs.load(Ordering::Acquire) == 1 { 1 } else { inner.refs.fetch_sub(1, Ordering::Release) };
        if before == 1 {
            fence(Ordering::Acquire);
            // SAFETY: this was the last reference, so nobody else can reach the allocation.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        } else if before == 2 && inner.flags.load(Ordering::Relaxed) & OWNS_WRAPPER != 0 {
            // Only the wrapper that this tensor keeps alive still refers to it: let both go.
            inner.flags.fetch_and(!OWNS_WRAPPER, Ordering::AcqRel);
            let wrapper = inner.wrapper.load(Ordering::Acquire);
            if let Some(release) = RELEASE_WRAPPER.get() {
                release(wrapper);
            }
        }
    }
}

impl Tensor {
    #[inline]
    pub(crate) fn inner(&self) -> &Impl {
        // SAFETY: the allocation lives while any `Tensor` to it does.
        unsafe { self.0.as_ref() }
    }
    #[inline]
    pub(crate) fn from_meta(meta: Meta, flags: u8, autograd: Option<Box<AutogradMeta>>) -> Tensor {
        Self::build(meta, flags, autograd, None)
    }
    #[inline]
    fn build(meta: Meta, flags: u8, graph: Option<Box<AutogradMeta>>, behind: Option<Box<Behind>>) -> Tensor {
        let flags = if meta.numel() >= LARGE_NUMEL { flags | LARGE } else { flags };
        let mut boxed = Box::<Impl>::new_uninit();
        let p = boxed.as_mut_ptr();
        // SAFETY: as in `over`.
        let boxed = unsafe {
            (&raw mut (*p).refs).write(AtomicUsize::new(1));
            (&raw mut (*p).flags).write(AtomicU8::new(flags));
            (&raw mut (*p).dtype).write(AtomicU8::new(meta.dtype as u8));
            (&raw mut (*p).wrapper).write(AtomicPtr::new(std::ptr::null_mut()));
            (&raw mut (*p).meta).write(RwLock::new(meta));
            (&raw mut (*p).autograd).write(Mutex::new(Place { view: None, graph }));
            (&raw mut (*p).behind).write(behind);
            boxed.assume_init()
        };
        Tensor(NonNull::from(Box::leak(boxed)))
    }
    /// A tensor over `source`'s memory whose layout `draw` makes of `source`'s, written where it will stay: views are made by the
    /// million, and moving their metadata about would cost as much as computing it.
    ///
    /// # Errors
    /// Those of `draw`.
    #[inline]
    pub(crate) fn over(source: &Meta, flags: u8, draw: impl FnOnce(&mut Meta) -> Result<()>) -> Result<Tensor> {
        let mut boxed = Box::<Impl>::new_uninit();
        let p = boxed.as_mut_ptr();
        // SAFETY: `p` points to memory for an `Impl` that nobody else knows, and every field of it is written.
        let mut boxed = unsafe {
            (&raw mut (*p).refs).write(AtomicUsize::new(1));
            (&raw mut (*p).flags).write(AtomicU8::new(flags));
            (&raw mut (*p).dtype).write(AtomicU8::new(0));
            (&raw mut (*p).wrapper).write(AtomicPtr::new(std::ptr::null_mut()));
            (&raw mut (*p).meta).write(RwLock::new(source.clone()));
            (&raw mut (*p).autograd).write(Mutex::new(Place::default()));
            (&raw mut (*p).behind).write(None);
            boxed.assume_init()
        };
        let meta = boxed.meta.get_mut();
        draw(meta)?;
        *boxed.dtype.get_mut() = meta.dtype as u8;
        if meta.numel() >= LARGE_NUMEL {
            *boxed.flags.get_mut() |= LARGE;
        }
        Ok(Tensor(NonNull::from(Box::leak(boxed))))
    }
    /// A new tensor of `source`'s sizes, strides and dtype over other memory, outside the graph.
    #[inline]
    pub(crate) fn shaped_like(source: &Meta, storage: Arc<Storage>) -> Tensor {
        let mut boxed = Box::<Impl>::new_uninit();
        let p = boxed.as_mut_ptr();
        // SAFETY: as in `over`.
        let boxed = unsafe {
            (&raw mut (*p).refs).write(AtomicUsize::new(1));
            (&raw mut (*p).flags).write(AtomicU8::new(if source.numel() >= LARGE_NUMEL { LARGE } else { 0 }));
            (&raw mut (*p).dtype).write(AtomicU8::new(source.dtype as u8));
            (&raw mut (*p).wrapper).write(AtomicPtr::new(std::ptr::null_mut()));
            (&raw mut (*p).meta).write(RwLock::new(Meta {
                sizes: copy_dims(&source.sizes),
                strides: copy_dims(&source.strides),
                offset: 0,
                dtype: source.dtype,
                storage,
                version: None,
                lazy: 0,
            }));
            (&raw mut (*p).autograd).write(Mutex::new(Place::default()));
            (&raw mut (*p).behind).write(None);
            boxed.assume_init()
        };
        Tensor(NonNull::from(Box::leak(boxed)))
    }
    /// A new tensor with this layout over this memory, outside the graph.
    #[inline]
    pub(crate) fn like(meta: &Meta) -> Tensor {
        match Tensor::over(meta, 0, |_| Ok(())) {
            Ok(t) => t,
            Err(_) => unreachable!("an unchanged layout"),
        }
    }
    /// A tensor over existing storage.
    pub fn from_storage(storage: Arc<Storage>, dtype: DType, sizes: &[i64], strides: &[i64], offset: i64) -> Tensor {
        let flags = if crate::mode::inference() { INFERENCE_TENSOR } else { 0 };
        Self::from_meta(
            Meta {
                sizes: Dims::from_slice(sizes),
                strides: Dims::from_slice(strides),
                offset,
                dtype,
                storage,
                version: None,
                lazy: 0,
            },
            flags,
            None,
        )
    }
    /// `value` seen without its dimension `dim`, at a `vmap` level.
    pub fn batched(value: &Tensor, dim: usize, level: u32) -> Tensor {
        let mut meta = value.meta().clone();
        meta.sizes.remove(dim);
        meta.strides.remove(dim);
        let behind = Behind::Batched(Batched { value: value.clone(), dim, level });
        Self::build(meta, BATCHED, None, Some(Box::new(behind)))
    }
    /// What is behind a tensor inside `vmap`.
    #[inline]
    pub fn as_batched(&self) -> Option<&Batched> {
        match self.inner().behind.as_deref() {
            Some(Behind::Batched(b)) => Some(b),
            _ => None,
        }
    }
    /// A sparse tensor. Its storage has no bytes and answers whoever asks for its address with an error.
    pub(crate) fn from_sparse(sizes: &[i64], sparse: Sparse) -> Tensor {
        let (dtype, device) = {
            let m = sparse.values.meta();
            (m.dtype, m.device())
        };
        let storage = Storage::refusing(
            device,
            err!(NotImplemented, "Cannot access storage of {}TensorImpl", sparse.layout.title()),
        );
        let strides = contiguous_strides(sizes);
        let meta = Meta { sizes: sizes.into(), strides, offset: 0, dtype, storage, version: None, lazy: 0 };
        let flags = if crate::mode::inference() { INFERENCE_TENSOR } else { 0 };
        Self::build(meta, flags | SPARSE, None, Some(Box::new(Behind::Sparse(RwLock::new(Arc::new(sparse))))))
    }
    /// The parts of a sparse tensor.
    #[inline]
    pub fn as_sparse(&self) -> Option<Arc<Sparse>> {
        match self.inner().behind.as_deref() {
            Some(Behind::Sparse(s)) => Some(s.read().clone()),
            _ => None,
        }
    }
    /// Whether indices and values stand for this tensor.
    #[inline]
    pub fn is_sparse(&self) -> bool {
        self.flags() & SPARSE != 0
    }
    /// How the elements are kept.
    pub fn layout(&self) -> TensorLayout {
        self.as_sparse().map_or(TensorLayout::Strided, |s| s.layout)
    }
    /// Replaces sizes and parts in place; nothing for a dense tensor.
    pub(crate) fn set_sparse(&self, sizes: &[i64], sparse: Sparse) {
        if let Some(Behind::Sparse(s)) = self.inner().behind.as_deref() {
            let dtype = sparse.values.dtype();
            *s.write() = Arc::new(sparse);
            self.set_meta(|m| {
                m.sizes = sizes.into();
                m.strides = contiguous_strides(sizes);
                m.dtype = dtype;
            });
        }
    }
    /// The tensor whose place in the graph stands for this one: the values of a sparse tensor.
    pub(crate) fn carrier(&self) -> Option<Tensor> {
        self.as_sparse().map(|s| s.values.clone())
    }

    // ---- metadata ---------------------------------------------------------------------------------------------------
    /// Layout, dtype and storage, locked for reading.
    #[inline]
    pub fn meta(&self) -> RwLockReadGuard<'_, Meta> {
        self.inner().meta.read_recursive()
    }
    /// The metadata without its lock.
    ///
    /// # Safety
    /// Nobody else has this tensor yet, so nobody can be changing its metadata.
    #[inline]
    pub(crate) unsafe fn unshared_meta(&self) -> &Meta {
        &*self.inner().meta.data_ptr()
    }
    /// Replaces layout or storage in place (`unsqueeze_`, `set_`, `x.data = y`).
    pub(crate) fn set_meta(&self, change: impl FnOnce(&mut Meta)) {
        let mut meta = self.inner().meta.write();
        change(&mut meta);
        self.inner().dtype.store(meta.dtype as u8, Ordering::Relaxed);
        self.set_flag(LARGE, meta.numel() >= LARGE_NUMEL);
    }
    pub fn sizes(&self) -> Dims {
        copy_dims(&self.meta().sizes)
    }
    /// In elements.
    pub fn strides(&self) -> Dims {
        copy_dims(&self.meta().strides)
    }
    /// Of the first element, in elements from the storage's start.
    pub fn offset(&self) -> i64 {
        self.meta().offset
    }
    pub fn size(&self, dim: i64) -> Result<i64> {
        let m = self.meta();
        if m.sizes.is_empty() {
            bail!(Index, "Dimension specified as {dim} but tensor has no dimensions");
        }
        Ok(m.sizes[wrap_dim(dim, m.dim())?])
    }
    /// Number of dimensions.
    pub fn dim(&self) -> usize {
        self.meta().dim()
    }
    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> i64 {
        self.meta().numel()
    }
    #[inline]
    pub fn dtype(&self) -> DType {
        DType::ALL[self.inner().dtype.load(Ordering::Relaxed) as usize]
    }
    pub fn device(&self) -> Device {
        self.meta().device()
    }
    pub fn is_contiguous(&self) -> bool {
        self.meta().is_contiguous()
    }
    /// [`CONJ`] and [`NEG`]: what memory lacks of the values.
    #[inline]
    pub fn lazy(&self) -> u8 {
        self.meta().lazy
    }
    pub fn storage(&self) -> Arc<Storage> {
        self.meta().storage.clone()
    }
    /// Address of the first element; forces a pending value. On CUDA a device address.
    pub fn data_ptr(&self) -> Result<*mut u8> {
        ensure!(self.as_batched().is_none(), Batch, "vmap: an example of a batch has no memory of its own to look at");
        self.meta().data_ptr()
    }
    /// The in-place version that autograd compares.
    pub fn version(&self) -> u32 {
        self.meta().version()
    }
    /// Moves the version on: the memory is about to be, or was, written in place.
    pub fn bump_version(&self) {
        let m = self.meta();
        match &m.version {
            Some(v) => v.fetch_add(1, Ordering::Relaxed),
            None => m.storage.version().fetch_add(1, Ordering::Relaxed),
        };
    }
    /// Whether both are the same tensor (not merely the same memory).
    #[inline]
    pub fn is_same(&self, other: &Tensor) -> bool {
        self.0 == other.0
    }
    /// An identity for maps; valid while the tensor lives.
    pub fn id(&self) -> usize {
        self.0.as_ptr() as usize
    }
    pub(crate) fn ref_count(&self) -> usize {
        self.inner().refs.load(Ordering::Acquire)
    }

    // ---- flags and autograd metadata --------------------------------------------------------------------------------
    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        self.inner().flags.load(Ordering::Relaxed)
    }
    pub(crate) fn set_flag(&self, flag: u8, on: bool) {
        if on {
            self.inner().flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.inner().flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }
    /// Whether there are so many elements (32,768) that an operator on them outweighs letting other threads run meanwhile.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.flags() & LARGE != 0
    }
    /// Made in inference mode.
    pub fn is_inference(&self) -> bool {
        self.flags() & INFERENCE_TENSOR != 0
    }
    /// Stores all flags of a tensor that nobody else has.
    #[inline]
    pub(crate) fn set_flags_unshared(&self, flags: u8) {
        self.inner().flags.store(flags, Ordering::Relaxed);
    }
    /// The autograd metadata without its lock.
    ///
    /// # Safety
    /// Nobody else has this tensor yet, and no other reference to its autograd metadata is alive.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn unshared_autograd(&self) -> &mut Place {
        &mut *self.inner().autograd.data_ptr()
    }
    pub(crate) fn autograd(&self) -> MutexGuard<'_, Place> {
        self.inner().autograd.lock()
    }

    // ---- the Python wrapper -----------------------------------------------------------------------------------------
    /// The address of the Python object that wraps this tensor, null when there is none.
    #[inline]
    pub fn wrapper(&self) -> *mut u8 {
        self.inner().wrapper.load(Ordering::Acquire)
    }
    /// Notes (or clears, with null) the wrapper.
    #[inline]
    pub fn set_wrapper(&self, wrapper: *mut u8) {
        self.inner().wrapper.store(wrapper, Ordering::Release);
    }
    /// From now on the tensor keeps its wrapper alive, until only the wrapper refers to it. Returns false (and does
    /// nothing) when nobody but the wrapper refers to the tensor.
    pub fn own_wrapper(&self) -> bool {
        if self.ref_count() < 2 {
            return false;
        }
        self.inner().flags.fetch_or(OWNS_WRAPPER, Ordering::AcqRel);
        true
    }
    /// Takes back the ownership that `own_wrapper` gave; true when it had been given.
    pub fn disown_wrapper(&self) -> bool {
        self.inner().flags.fetch_and(!OWNS_WRAPPER, Ordering::AcqRel) & OWNS_WRAPPER != 0
    }
    /// Sets the function that releases an owned wrapper.
    pub fn on_release_wrapper(release: fn(*mut u8)) {
        let _ = RELEASE_WRAPPER.set(release);
    }
}

/// An argument that is a tensor or a number.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Tensor(&'a Tensor),
    Number(Number),
}
impl<'a> From<&'a Tensor> for Value<'a> {
    fn from(t: &'a Tensor) -> Self {
        Value::Tensor(t)
    }
}
impl<T: Into<Number>> From<T> for Value<'_> {
    fn from(x: T) -> Self {
        Value::Number(x.into())
    }
}
