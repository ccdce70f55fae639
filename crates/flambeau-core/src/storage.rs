//! Memory that tensors share. A storage is ready, or *pending*: the value is recorded but not computed yet, and is
//! computed when somebody asks for its address.

use crate::{err, Device, Error, Result};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU8, AtomicUsize, Ordering};
use std::sync::Arc;

/// How a block of memory is given back.
pub enum Release {
    /// Nothing to do: static or empty memory.
    Nothing,
    /// A backend's allocator: `(address, bytes, tag)`.
    Allocator(unsafe fn(*mut u8, usize, u64), u64),
    /// Memory that someone else lends: an array of NumPy's, a mapped file.
    Owner(Box<dyn std::any::Any + Send + Sync>),
}

/// A block of memory and the way to give it back; freed on drop.
pub struct Memory {
    ptr: *mut u8,
    nbytes: usize,
    release: Release,
}

// SAFETY: the block has one owner, and its release function may be called from any thread.
unsafe impl Send for Memory {}
// SAFETY: `Memory` gives out its address only; accesses are the caller's to synchronise.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes charge of `nbytes` at `ptr`.
    ///
    /// # Safety
    /// The block must stay valid until `release` is applied, which happens exactly once.
    pub unsafe fn new(ptr: *mut u8, nbytes: usize, release: Release) -> Self {
        Memory { ptr, nbytes, release }
    }
    /// No bytes.
    pub fn empty() -> Self {
        // Aligned, so that zero-length slices over it are valid.
        Memory { ptr: 64 as *mut u8, nbytes: 0, release: Release::Nothing }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Release::Allocator(free, tag) = self.release {
            // SAFETY: `new`'s contract: the block is valid and this is its only release.
            unsafe { free(self.ptr, self.nbytes, tag) }
        }
    }
}

/// Computes values that were recorded.
pub trait Pending: Send + Sync {
    /// Makes every value that this recorder still owes ready, or poisons it.
    fn force(&self);
}

const READY: u8 = 0;
const PENDING: u8 = 1;
const POISONED: u8 = 2;

/// A block of memory shared by tensors; see the module.
pub struct Storage {
    state: AtomicU8,
    device: Device,
    ptr: AtomicPtr<u8>,
    nbytes: AtomicUsize,
    version: AtomicU32,
    escaped: AtomicBool,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    memory: Option<Memory>,
    // Apart, because most storages never need any of it and are made and dropped by the million.
    rare: Option<Box<Rare>>,
}
#[derive(Default)]
struct Rare {
    /// Blocks that `resize` replaced: kept, since a kernel or a NumPy array may still look at them.
    retired: Vec<Memory>,
    producer: Option<Arc<dyn Pending>>,
    failure: Option<Error>,
}
impl Rest {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(Default::default)
    }
    fn forget_producer(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.producer = None;
        }
    }
}

impl Storage {
    /// Memory that is ready.
    #[inline]
    pub fn new(memory: Memory, device: Device) -> Arc<Storage> {
        Arc::new(Storage {
            state: AtomicU8::new(READY),
            device,
            ptr: AtomicPtr::new(memory.ptr),
            nbytes: AtomicUsize::new(memory.nbytes),
            version: AtomicU32::new(0),
            escaped: AtomicBool::new(false),
            rest: Mutex::new(Rest { memory: Some(memory), rare: None }),
        })
    }
    /// A value of `nbytes` that `producer` will compute when asked.
    pub fn pending(nbytes: usize, device: Device, producer: Arc<dyn Pending>) -> Arc<Storage> {
        Arc::new(Storage {
            state: AtomicU8::new(PENDING),
            device,
            ptr: AtomicPtr::new(std::ptr::null_mut()),
            nbytes: AtomicUsize::new(nbytes),
            version: AtomicU32::new(0),
            escaped: AtomicBool::new(false),
            rest: Mutex::new(Rest {
                memory: None,
                rare: Some(Box::new(Rare { producer: Some(producer), ..Rare::default() })),
            }),
        })
    }
    /// No bytes, and `refusal` for whoever asks for an address.
    pub fn refusing(device: Device, refusal: Error) -> Arc<Storage> {
        Arc::new(Storage {
            state: AtomicU8::new(POISONED),
            device,
            ptr: AtomicPtr::new(std::ptr::null_mut()),
            nbytes: AtomicUsize::new(0),
            version: AtomicU32::new(0),
            escaped: AtomicBool::new(false),
            rest: Mutex::new(Rest {
                memory: None,
                rare: Some(Box::new(Rare { failure: Some(refusal), ..Rare::default() })),
            }),
        })
    }
    /// The address of the first byte, after computing the value if it is still pending.
    ///
    /// # Errors
    /// The error with which the recorded computation failed.
    #[inline]
    pub fn ptr(&self) -> Result<*mut u8> {
        if self.state.load(Ordering::Acquire) == READY {
            Ok(self.ptr.load(Ordering::Relaxed))
        } else {
            self.forced()
        }
    }
    #[cold]
    fn forced(&self) -> Result<*mut u8> {
        if self.is_pending() {
            let producer = self.rest.lock().rare.as_ref().and_then(|r| r.producer.clone());
            if let Some(producer) = producer {
                producer.force();
            }
        }
        match self.state.load(Ordering::Acquire) {
            READY => Ok(self.ptr.load(Ordering::Relaxed)),
            _ => Err(self
                .rest
                .lock()
                .rare
                .as_ref()
                .and_then(|r| r.failure.clone())
                .unwrap_or_else(|| err!(Runtime, "a recorded value was never computed"))),
        }
    }
    /// Whether the value is recorded but not computed.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.state.load(Ordering::Acquire) == PENDING
    }
    /// Gives a pending storage its memory, filled or about to be filled by the caller.
    pub fn fulfil(&self, memory: Memory) {
        let mut rest = self.rest.lock();
        self.ptr.store(memory.ptr, Ordering::Relaxed);
        rest.memory = Some(memory);
        rest.forget_producer();
        self.state.store(READY, Ordering::Release);
    }
    /// Gives a pending storage memory that is about to be filled: it stays pending until [`Storage::settle`].
    pub fn provide(&self, memory: Memory) {
        let mut rest = self.rest.lock();
        self.ptr.store(memory.ptr, Ordering::Release);
        rest.memory = Some(memory);
    }
    /// Marks a pending value as failed; whoever asks for it gets `failure`.
    pub fn poison(&self, failure: Error) {
        let mut rest = self.rest.lock();
        if self.state.load(Ordering::Relaxed) == PENDING {
            rest.rare().failure = Some(failure);
            rest.forget_producer();
            self.state.store(POISONED, Ordering::Release);
        }
    }
    /// Marks memory that is there as awaiting recorded writes, so that whoever asks for its address gets them done first.
    pub fn defer(&self, producer: Arc<dyn Pending>) {
        let mut rest = self.rest.lock();
        rest.rare().producer = Some(producer);
        self.state.store(PENDING, Ordering::Release);
    }
    /// The recorded writes to memory that was there are done.
    pub fn settle(&self) {
        let mut rest = self.rest.lock();
        if rest.memory.is_some() && self.state.load(Ordering::Relaxed) == PENDING {
            rest.forget_producer();
            self.state.store(READY, Ordering::Release);
        }
    }
    /// The address as it is, without forcing: null while there is no memory. For the executor of recorded operators.
    pub fn unforced_ptr(&self) -> *mut u8 {
        self.ptr.load(Ordering::Acquire)
    }
    /// Notes that the memory is visible to code outside (NumPy, a raw address): recorded reads and writes of it must not
    /// be put off.
    pub fn set_escaped(&self) {
        self.escaped.store(true, Ordering::Release);
    }
    /// Whether [`Storage::set_escaped`] was called.
    pub fn is_escaped(&self) -> bool {
        self.escaped.load(Ordering::Acquire)
    }
    /// Replaces the memory by a larger or smaller block (the caller has copied what is to stay).
    pub fn replace(&self, memory: Memory) {
        let mut rest = self.rest.lock();
        self.ptr.store(memory.ptr, Ordering::Relaxed);
        self.nbytes.store(memory.nbytes, Ordering::Relaxed);
        if let Some(old) = rest.memory.replace(memory) {
            rest.rare().retired.push(old);
        }
    }
    /// How many times tensors over this memory were written in place: the version that autograd compares.
    #[inline]
    pub fn version(&self) -> &AtomicU32 {
        &self.version
    }
    /// Size in bytes.
    #[inline]
    pub fn nbytes(&self) -> usize {
        self.nbytes.load(Ordering::Relaxed)
    }
    /// Where the memory is.
    #[inline]
    pub fn device(&self) -> Device {
        self.device
    }
}
