//! What runs, and for how long, for those who ask.
//!
//! A profile is a thread's own and stands behind one bit of the mode byte ([`mode::PROFILE`]), which `apply`, the binder and the
//! engine look at anyway, so that who asks for nothing pays for nothing. Events nest: what Python called, the primitives that it
//! is made of, the nodes of a backward pass and the operators that they call, and ranges that the program names.

use crate::apply::{Dest, Outputs};
use crate::autograd::node::Node;
use crate::mode;
use crate::primitive::Primitive;
use crate::tensor::Tensor;
use flambeau_core::*;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// What an event stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator: `add` is PyTorch's `aten::add`.
    Operator,
    /// A node of a backward pass, or the engine's work around it.
    Backward,
    /// A range that the program named.
    User,
    /// Kernels of a recorded graph.
    Graph,
    /// A change of the memory in use between events.
    Memory,
}

/// One operand, as far as its metadata goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Tensor(Dims, DType),
    List(Vec<(Dims, DType)>),
    Number(Number),
    /// Anything else, or nothing.
    Other,
}

/// Something that ran.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: Cow<'static, str>,
    pub kind: Kind,
    /// Nanoseconds since the profile began.
    pub start: u64,
    /// Nanoseconds since the profile began.
    pub end: u64,
    /// The event around this one.
    pub parent: Option<u32>,
    /// The number of the graph's node that this operator made, or that runs here.
    pub sequence: Option<u64>,
    pub inputs: Vec<Input>,
    /// Where the program was: what [`Options::trace`] returned.
    pub trace: Option<u64>,
    /// By how many bytes the memory in use grew, as the allocator rounds them.
    pub memory: i64,
    /// Arithmetic operations of products and convolutions.
    pub flops: u64,
    /// Where the results are.
    pub device: Device,
}

/// What to note beside names and times.
#[derive(Default)]
pub struct Options {
    /// The operands' sizes and dtypes.
    pub shapes: bool,
    /// Memory in use.
    pub memory: bool,
    /// Arithmetic operations.
    pub flops: bool,
    /// Notes where the program is, and returns a number for the place.
    pub trace: Option<Box<dyn Fn() -> u64>>,
    /// Wait for this device before an event ends, so that its time is the kernels'.
    pub wait_for: Option<Device>,
}

struct Session {
    options: Options,
    began: Instant,
    events: Vec<Event>,
    open: Vec<u32>,
    in_use: i64,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    // The primitive whose event has just been opened is on its way to `apply`.
    static OPENED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's events are noted.
#[inline]
pub fn on() -> bool {
    mode::current() & mode::PROFILE != 0
}

/// Begins to note what this thread runs.
///
/// # Errors
/// `Runtime` when that is done already.
pub fn start(options: Options) -> Result<()> {
    SESSION.with(|s| {
        let mut s = s.borrow_mut();
        ensure!(s.is_none(), Runtime, "Profiler is already enabled on this thread");
        let session = Session { in_use: 0, options, began: Instant::now(), events: Vec::new(), open: Vec::new() };
        *s = Some(Session { in_use: session.in_use(), ..session });
        mode::set(mode::PROFILE, true);
        Ok(())
    })
}
/// Ends it and returns what was noted, in the order in which events began. Events that are still open end now.
pub fn stop() -> Vec<Event> {
    mode::set(mode::PROFILE, false);
    let session = SESSION.with(|s| s.borrow_mut().take());
    let Some(mut session) = session else { return Vec::new() };
    while session.open.last().is_some() {
        session.close();
    }
    session.events
}

impl Session {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
    fn in_use(&self) -> i64 {
        if !self.options.memory {
            return 0;
        }
        let device = self.options.wait_for.unwrap_or(Device::Cpu);
        crate::apply::backend(device).map_or(0, |b| b.memory_stats().allocated.current as i64)
    }
    fn open(&mut self, name: Cow<'static, str>, kind: Kind, inputs: Vec<Input>, sequence: Option<u64>) {
        let in_use = self.in_use();
        let parent = self.open.last().copied();
        if parent.is_none() {
            self.note_memory(in_use);
        }
        let inherited = parent.and_then(|p| {
            let p = &self.events[p as usize];
            if p.kind == Kind::User {
                None
            } else {
                p.trace
            }
        });
        self.open.push(self.events.len() as u32);
        self.events.push(Event {
            name,
            kind,
            start: 0,
            end: 0,
            parent,
            sequence,
            inputs,
            trace: inherited,
            memory: -in_use,
            flops: 0,
            device: Device::Cpu,
        });
        let now = self.now();
        if let Some(e) = self.events.last_mut() {
            e.start = now;
        }
    }
    /// Notes what was allocated or freed since the last event ended.
    fn note_memory(&mut self, in_use: i64) {
        if in_use == self.in_use {
            return;
        }
        let now = self.now();
        self.events.push(Event {
            name: "[memory]".into(),
            kind: Kind::Memory,
            start: now,
            end: now,
            parent: None,
            sequence: None,
            inputs: Vec::new(),
            trace: None,
            memory: in_use - self.in_use,
            flops: 0,
            device: Device::Cpu,
        });
        self.in_use = in_use;
    }
    fn close(&mut self) {
        let end = self.now();
        let in_use = self.in_use();
        if let Some(i) = self.open.pop() {
            let e = &mut self.events[i as usize];
            e.end = end;
            e.memory += in_use;
        }
        if self.open.is_empty() {
            self.in_use = in_use;
        }
    }
    fn top(&mut self) -> Option<&mut Event> {
        let i = *self.open.last()?;
        self.events.get_mut(i as usize)
    }
}

/// Runs `body` on the session, which is there while the bit is set. Callbacks must not run inside.
fn with<T>(body: impl FnOnce(&mut Session) -> T) -> Option<T> {
    SESSION.try_with(|s| s.try_borrow_mut().ok()?.as_mut().map(body)).ok().flatten()
}

/// An open event; it ends when this is dropped.
pub struct Span {
    depth: usize,
}
impl Drop for Span {
    fn drop(&mut self) {
        let waits = with(|s| s.options.wait_for).flatten();
        if let Some(device) = waits {
            // An error of the device shows at the program's own next look at it.
            let _ = crate::apply::backend(device).and_then(|b| b.synchronize());
        }
        with(|s| {
            while s.open.len() > self.depth {
                s.close();
            }
        });
    }
}

/// Begins an event, if this thread is profiled. `inputs` is asked only when shapes are noted.
pub fn enter(name: impl Into<Cow<'static, str>>, kind: Kind, inputs: impl FnOnce() -> Vec<Input>) -> Option<Span> {
    if !on() {
        return None;
    }
    open(name.into(), kind, inputs, None)
}
#[cold]
fn open(
    name: Cow<'static, str>,
    kind: Kind,
    inputs: impl FnOnce() -> Vec<Input>,
    sequence: Option<u64>,
) -> Option<Span> {
    let (shapes, depth) = with(|s| (s.options.shapes, s.open.len()))?;
    let inputs = if shapes { inputs() } else { Vec::new() };
    with(|s| s.open(name, kind, inputs, sequence))?;
    locate();
    Some(Span { depth })
}
/// Begins an event that [`exit`] ends: for ranges that no scope of Rust's holds. Returns its number.
pub fn begin(name: String, inputs: Vec<Input>) -> Option<usize> {
    let span = enter(name, Kind::User, || inputs)?;
    let depth = span.depth;
    std::mem::forget(span);
    Some(depth)
}
/// Ends what [`begin`] began, and everything inside it.
pub fn exit(depth: usize) {
    if on() {
        drop(Span { depth });
    }
}

/// Asks where the program is, for an event that has no operator around it. The callback runs Python, and with it operators, so
/// the profile is off meanwhile.
fn locate() {
    let wanted = with(|s| match s.top() {
        Some(e) if e.trace.is_none() => s.options.trace.take(),
        _ => None,
    });
    let Some(trace) = wanted.flatten() else { return };
    let place = {
        let _off = mode::Guard::new(mode::PROFILE, false);
        trace()
    };
    with(|s| {
        s.options.trace = Some(trace);
        let now = s.now();
        if let Some(e) = s.top() {
            e.trace = Some(place);
            // Looking for the place is not the event's time.
            e.start = now;
        }
    });
}

fn describe(t: &Tensor) -> Input {
    let m = t.meta();
    Input::Tensor(m.sizes.clone(), m.dtype)
}

/// A primitive on its way through `apply`: opens its event and runs it by `again`, which comes back here and then gets `None`. A
/// primitive that is all of what the event around it stands for has no event of its own.
#[cold]
pub(crate) fn primitive(
    op: &dyn Primitive,
    x: &[&Tensor],
    dest: Dest,
    again: &mut dyn FnMut() -> Result<Outputs>,
) -> Option<Result<Outputs>> {
    if OPENED.with(|o| o.replace(false)) {
        return None;
    }
    let mut name: Cow<'static, str> = Cow::Borrowed(op.name());
    if let Dest::Inplace(_) = dest {
        if !name.ends_with('_') {
            name = Cow::Owned(format!("{name}_"));
        }
    }
    let merged = with(|s| s.top().is_some_and(|e| e.kind == Kind::Operator && e.name == name)).unwrap_or(false);
    let span = if merged { None } else { open(name, Kind::Operator, || x.iter().map(|t| describe(t)).collect(), None) };
    OPENED.with(|o| o.set(true));
    let result = again();
    // Where the way to `apply` ended early.
    OPENED.with(|o| o.set(false));
    if let Ok(outs) = &result {
        note_result(op.name(), x, outs);
    }
    drop(span);
    Some(result)
}

fn note_result(name: &str, x: &[&Tensor], outs: &[Tensor]) {
    let sequence =
        outs.first().and_then(|t| t.autograd().graph.as_ref().and_then(|m| m.edge.as_ref().map(|e| e.node.seq)));
    let wanted = with(|s| s.options.flops).unwrap_or(false);
    let work = if wanted { flops(name, x, outs) } else { 0 };
    let device = outs.first().map_or(Device::Cpu, Tensor::device);
    with(|s| {
        if let Some(e) = s.top() {
            e.flops += work;
            e.device = device;
            if sequence.is_some_and(|n| n != u64::MAX) {
                e.sequence = sequence;
            }
        }
    });
}

/// Operations of a primitive: a multiplication and an addition for each term of a product, one for each element of a sum or product
/// of tensors.
fn flops(name: &str, x: &[&Tensor], outs: &[Tensor]) -> u64 {
    let count = |t: &Tensor| t.numel() as u64;
    let Some(out) = outs.first() else { return 0 };
    match name {
        "add" | "mul" => count(out),
        "bmm" | "linear" => 2 * count(out) * x.first().and_then(|t| t.sizes().last().copied()).unwrap_or(0) as u64,
        "convolution" => {
            // The weights of one output channel meet each place of the output.
            let channels = x.get(1).and_then(|w| w.sizes().first().copied()).unwrap_or(1).max(1) as u64;
            2 * count(out) * (x.get(1).map_or(0, |w| count(w)) / channels)
        }
        "convolution_input_grad" => {
            // The other way round: each place of the first operand meets the weights of its channel.
            let (Some(g), Some(w)) = (x.first(), x.get(1)) else { return 0 };
            2 * count(g) * (count(w) / w.sizes().first().copied().unwrap_or(1).max(1) as u64)
        }
        "convolution_weight_grad" => {
            let Some(g) = x.first() else { return 0 };
            2 * count(g) * (count(out) / out.sizes().first().copied().unwrap_or(1).max(1) as u64)
        }
        "scaled_dot_product_attention" => {
            // Scores from queries and keys, and their sums over values.
            let (Some(q), Some(k), Some(v)) = (x.first(), x.get(1), x.get(2)) else { return 0 };
            let last = |t: &Tensor| t.sizes().last().copied().unwrap_or(0).max(0) as u64;
            let keys = k.sizes().iter().rev().nth(1).copied().unwrap_or(0) as u64;
            2 * count(q) / last(q).max(1) * keys * (last(q) + last(v))
        }
        _ => 0,
    }
}

/// A node of the backward pass that is about to run; two events, as PyTorch has them.
#[cold]
pub(crate) fn node(node: &Node) -> Option<Span> {
    let name = match node.variable() {
        Some(_) => "torch::autograd::AccumulateGrad".to_owned(),
        None => node.name(),
    };
    let sequence = (node.seq != u64::MAX).then_some(node.seq);
    let around = format!("autograd::engine::evaluate_function: {name}");
    let span = open(around.into(), Kind::Backward, Vec::new, sequence)?;
    std::mem::forget(open(name.into(), Kind::Backward, Vec::new, sequence));
    Some(span)
}
