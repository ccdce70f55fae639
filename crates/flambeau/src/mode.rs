//! Thread-local modes. One byte says whether anything but plain eager execution with gradients is on, so that the
//! usual path pays one test.

use flambeau_core::DType;
use std::cell::Cell;

/// Gradients are not recorded (`no_grad`).
pub const NO_GRAD: u8 = 1;
/// Inference mode: no versions, no views, no gradients.
pub const INFERENCE: u8 = 2;
/// Operators are recorded instead of run.
pub const RECORD: u8 = 4;
/// Calls from Python choose their operands' precision by operator (`autocast`). `apply` does not look at this bit.
pub const AUTOCAST: u8 = 8;
/// Nodes of the backward graph are watched while they are made: hooks on saved tensors, anomaly mode.
pub const WATCHED: u8 = 16;
/// What runs is noted with its time; see [`mod@crate::profile`].
pub const PROFILE: u8 = 32;

thread_local! {
    static MODE: Cell<u8> = const { Cell::new(0) };
    static DEFAULT_DTYPE: Cell<DType> = const { Cell::new(DType::F32) };
}
// The default dtype of threads that never set one.
static PROCESS_DEFAULT: parking_lot::RwLock<DType> = parking_lot::RwLock::new(DType::F32);

/// The mode byte of this thread.
#[inline]
pub fn current() -> u8 {
    MODE.with(Cell::get)
}
/// Sets or clears one mode bit; returns whether it was set.
pub fn set(bit: u8, on: bool) -> bool {
    MODE.with(|m| {
        let old = m.get();
        m.set(if on { old | bit } else { old & !bit });
        old & bit != 0
    })
}
/// Whether operators record gradients.
#[inline]
pub fn grad_enabled() -> bool {
    current() & (NO_GRAD | INFERENCE) == 0
}
/// Whether `inference_mode` is on.
#[inline]
pub fn inference() -> bool {
    current() & INFERENCE != 0
}

/// A mode bit that holds until the guard is dropped.
pub struct Guard(u8, bool);
impl Guard {
    /// Sets `bit` to `on` for the guard's life.
    pub fn new(bit: u8, on: bool) -> Guard {
        Guard(bit, set(bit, on))
    }
}
impl Drop for Guard {
    fn drop(&mut self) {
        set(self.0, self.1);
    }
}
/// Runs without recording gradients until dropped.
pub fn no_grad() -> Guard {
    Guard::new(NO_GRAD, true)
}

/// The dtype of new floating-point tensors.
pub fn default_dtype() -> DType {
    DEFAULT_DTYPE.with(Cell::get)
}
/// Changes [`default_dtype`] for this thread and for threads started later.
pub fn set_default_dtype(dtype: DType) {
    *PROCESS_DEFAULT.write() = dtype;
    DEFAULT_DTYPE.with(|d| d.set(dtype));
}
