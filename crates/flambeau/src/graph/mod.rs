//! Deferred execution: inside a region operators infer and are recorded; values are computed when somebody looks, or at the
//! region's end. Element-by-element chains run as one fused program, with the bits of eager execution.

mod execute;
mod plan;

pub use plan::PlanStats;

use crate::mode;
use crate::primitive::Primitive;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;

/// Operators recorded before a flush happens by itself.
const MAX_OPS: usize = 8192;

/// One recorded operator.
pub(crate) struct Recorded {
    pub op: Arc<dyn Primitive>,
    pub inputs: SmallVec<[Meta; 3]>,
    pub outputs: SmallVec<[Meta; 1]>,
}

/// What a thread's region has recorded and not computed.
#[derive(Default)]
pub(crate) struct Recorder {
    ops: Mutex<Vec<Recorded>>,
    /// Held while recorded operators run, so that a second thread waits for their values.
    running: Mutex<()>,
    failure: Mutex<Option<Error>>,
}

impl Pending for Recorder {
    fn force(&self) {
        let _running = self.running.lock();
        let ops = std::mem::take(&mut *self.ops.lock());
        if ops.is_empty() {
            return;
        }
        if let Err(e) = execute::flush(ops) {
            self.failure.lock().get_or_insert(e);
        }
    }
}

thread_local! {
    static RECORDER: RefCell<Option<Arc<Recorder>>> = const { RefCell::new(None) };
    static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

fn recorder() -> Arc<Recorder> {
    RECORDER.with(|r| r.borrow_mut().get_or_insert_with(Arc::default).clone())
}

/// Opens a region in this thread; regions nest.
pub fn enter() {
    DEPTH.with(|d| d.set(d.get() + 1));
    mode::set(mode::RECORD, true);
}
/// Closes a region; the outermost computes everything that is still needed.
///
/// # Errors
/// The first failure among the recorded operators.
pub fn exit() -> Result<()> {
    let depth = DEPTH.with(|d| {
        d.set(d.get().saturating_sub(1));
        d.get()
    });
    if depth > 0 {
        return Ok(());
    }
    mode::set(mode::RECORD, false);
    flush()
}
/// Computes everything that this thread has recorded.
///
/// # Errors
/// As [`exit`].
pub fn flush() -> Result<()> {
    let Some(recorder) = RECORDER.with(|r| r.borrow().clone()) else { return Ok(()) };
    recorder.force();
    let failure = recorder.failure.lock().take();
    failure.map_or(Ok(()), Err)
}
/// Runs `f` in a region.
///
/// # Errors
/// That of `f`, or of a recorded operator.
pub fn region<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    enter();
    let out = f();
    let end = exit();
    let out = out?;
    end?;
    Ok(out)
}
/// Plans that exist, and how often they were found.
pub fn stats() -> PlanStats {
    plan::stats()
}

/// Storage of a value that this thread's region owes.
pub(crate) fn pending_storage(nbytes: usize, device: Device) -> Arc<Storage> {
    Storage::pending(nbytes, device, recorder())
}

/// Appends an operator to the region.
pub(crate) fn record(op: Arc<dyn Primitive>, x: &[&Meta], outs: &[Tensor]) -> Result<()> {
    let recorder = recorder();
    let mut at_once = false;
    let inputs: SmallVec<[Meta; 3]> = x.iter().map(|m| (*m).clone()).collect();
    let outputs: SmallVec<[Meta; 1]> = outs.iter().map(|t| t.meta().clone()).collect();
    for m in &outputs {
        if !m.storage.is_pending() {
            m.storage.defer(recorder.clone());
        }
        at_once |= m.storage.is_escaped();
    }
    at_once |= inputs.iter().any(|m| m.storage.is_escaped());
    let many = {
        let mut ops = recorder.ops.lock();
        ops.push(Recorded { op, inputs, outputs });
        ops.len() >= MAX_OPS
    };
    if many || at_once {
        return flush();
    }
    Ok(())
}
