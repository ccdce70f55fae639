//! What happens while nodes are made and run, for those who ask: hooks on saved tensors, and the traces of anomaly mode.
//!
//! Both are a thread's own and stand behind one bit of the mode byte, so that who asks for neither pays for neither.

use super::node::Node;
use crate::mode;
use crate::tensor::Tensor;
use flambeau_core::*;
use parking_lot::RwLock;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Gives a packed tensor back.
pub type Unpack = Box<dyn Fn() -> Result<Tensor> + Send + Sync>;
/// Takes a tensor that a node wants to keep (outside the graph), and keeps something in its place.
pub type Pack = Arc<dyn Fn(&Tensor) -> Result<Unpack> + Send + Sync>;

/// How the binding shows anomalies: the stack at this moment as text, and a warning about a node that failed with the stack
/// at which it was made.
#[derive(Clone, Copy)]
pub struct Reporter {
    /// The stack of calls now.
    pub trace: fn() -> String,
    /// Warns that the node of this name failed.
    pub warn: fn(name: &str, trace: Option<&str>),
}

thread_local! {
    static HOOKS: RefCell<Vec<Pack>> = const { RefCell::new(Vec::new()) };
    static ANOMALY: Cell<Option<bool>> = const { Cell::new(None) };
}
static REPORTER: RwLock<Option<Reporter>> = RwLock::new(None);

fn refresh() {
    let on = HOOKS.with(|h| !h.borrow().is_empty()) || ANOMALY.with(Cell::get).is_some();
    mode::set(mode::WATCHED, on);
}

/// From now on nodes made in this thread keep what `pack` makes of their saved tensors. The last hooks pushed are the ones used.
pub fn push_saved_hooks(pack: Pack) {
    HOOKS.with(|h| h.borrow_mut().push(pack));
    refresh();
}
/// Ends the last [`push_saved_hooks`].
pub fn pop_saved_hooks() {
    let last = HOOKS.with(|h| h.borrow_mut().pop());
    refresh();
    drop(last);
}
/// What the hooks in force make of a tensor that is about to be saved; `None` without hooks.
///
/// # Errors
/// Those of the hook.
pub fn pack(t: &Tensor) -> Result<Option<Unpack>> {
    if mode::current() & mode::WATCHED == 0 {
        return Ok(None);
    }
    let hook = HOOKS.with(|h| h.borrow().last().cloned());
    hook.map(|hook| hook(&t.detach())).transpose()
}

/// Turns anomaly mode on (`Some(check_nan)`) or off for this thread.
pub fn set_anomaly(mode: Option<bool>) {
    ANOMALY.with(|a| a.set(mode));
    refresh();
}
/// Whether anomaly mode is on, and whether it looks for NaN.
pub fn anomaly() -> Option<bool> {
    if mode::current() & mode::WATCHED == 0 {
        return None;
    }
    ANOMALY.with(Cell::get)
}
/// Says how anomalies are shown.
pub fn set_reporter(reporter: Reporter) {
    *REPORTER.write() = Some(reporter);
}
/// The stack to remember with a node that is being made; `None` outside anomaly mode.
pub(crate) fn trace() -> Option<String> {
    anomaly()?;
    let reporter = (*REPORTER.read())?;
    Some((reporter.trace)())
}
/// Tells about a node that failed, in anomaly mode.
pub(crate) fn failed(node: &Node) {
    if anomaly().is_none() {
        return;
    }
    let reporter = *REPORTER.read();
    if let Some(reporter) = reporter {
        (reporter.warn)(&node.name(), node.trace().as_deref());
    }
}
/// Fails when a gradient holds NaN, in anomaly mode with its check.
///
/// # Errors
/// `Runtime`, naming the node and the gradient.
pub(crate) fn check_nan(node: &Node, grads: &[Option<Tensor>]) -> Result<()> {
    if anomaly() != Some(true) {
        return Ok(());
    }
    for (i, g) in grads.iter().enumerate() {
        let Some(g) = g else { continue };
        if !g.dtype().is_differentiable() || g.numel() == 0 {
            continue;
        }
        // A sum is NaN where an element is; infinities of both signs make it NaN too, so the elements decide.
        let g = g.carrier().unwrap_or_else(|| g.clone()).detach();
        let nan = crate::ops::elementwise::isnan(&g)?;
        let count = crate::ops::reduction::sum(&nan, &[], false)?;
        ensure!(
            matches!(crate::ops::device::item(&count)?, Number::Int(0)),
            Runtime,
            "Function '{}' returned nan values in its {i}th output.",
            node.name()
        );
    }
    Ok(())
}
