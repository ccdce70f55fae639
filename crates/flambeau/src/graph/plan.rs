//! Plans: which recorded operators run together, found by the canonical form of what is to be computed.

use super::Recorded;
use crate::primitive::PlanKey;
use crate::tensor::Meta;
use flambeau_core::*;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Operators in one fused group, at most: what a tile interpreter keeps in the first-level cache.
const MAX_STEPS: usize = 48;
/// Tensor operands of one fused group, at most.
const MAX_OPERANDS: usize = 12;
/// Plans kept, at most; the least recently used goes.
const MAX_PLANS: usize = 256;

/// Counters of the plan cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanStats {
    /// Plans in the cache.
    pub plans: usize,
    /// Flushes that found their plan.
    pub hits: u64,
    /// Flushes that made one.
    pub misses: u64,
    /// Operators that ran inside fused groups, over all flushes.
    pub fused: u64,
}

/// Where a group's input comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// Input `.1` of recorded operator `.0`, loaded in a class.
    Operand(usize, usize, Class),
    /// Number at position `.1` of recorded operator `.0` (a slot: filled from the record at run time).
    Number(usize, usize, Class),
}

/// Several element-by-element operators in one pass.
#[derive(Debug)]
pub(crate) struct Group {
    pub ops: Vec<usize>,
    pub sources: Vec<Source>,
    pub steps: Vec<Step>,
    /// Values to store, each into the output of a recorded operator.
    pub results: Vec<(u16, usize)>,
    /// A reduction at the end: the recorded operator, and the value that it reduces.
    pub reduce: Option<(usize, u16)>,
}

#[derive(Debug)]
pub(crate) enum PlanStep {
    Single(usize),
    Fused(Group),
    /// A matrix product, and the group that follows part by part in its epilogue.
    Product {
        op: usize,
        group: Group,
        /// Whether anything else reads the product itself.
        kept: bool,
    },
}

pub(crate) struct Plan {
    pub steps: Vec<PlanStep>,
    pub fused: u64,
}

#[derive(Default)]
struct Cache {
    plans: HashMap<PlanKey, (Arc<Plan>, u64)>,
    clock: u64,
    stats: PlanStats,
}
static CACHE: Mutex<Option<Cache>> = Mutex::new(None);

pub(crate) fn stats() -> PlanStats {
    let guard = CACHE.lock();
    guard.as_ref().map_or(PlanStats::default(), |c| PlanStats { plans: c.plans.len(), ..c.stats })
}

fn address(m: &Meta) -> usize {
    Arc::as_ptr(&m.storage) as usize
}

/// What is known of the storages that a record touches, by first appearance.
pub(crate) struct Storages {
    numbers: HashMap<usize, usize>,
    /// Whether somebody outside the record can still look at it.
    pub live: Vec<bool>,
}

impl Storages {
    pub(crate) fn of(ops: &[Recorded]) -> Storages {
        let mut numbers = HashMap::new();
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for m in ops.iter().flat_map(|r| r.inputs.iter().chain(&r.outputs)) {
            let next = counts.len();
            let k = *numbers.entry(address(m)).or_insert(next);
            if k == next {
                // Memory that was there before the region is looked at after it.
                let existing = !m.storage.unforced_ptr().is_null();
                counts.push((if existing { usize::MAX } else { Arc::strong_count(&m.storage) }, 0));
            }
            counts[k].1 += 1;
        }
        let live = counts.iter().map(|(total, inside)| *total == usize::MAX || total > inside).collect();
        Storages { numbers, live }
    }
    pub(crate) fn number(&self, m: &Meta) -> usize {
        self.numbers.get(&address(m)).copied().unwrap_or(usize::MAX)
    }
}

/// The plan for a record: found by its canonical form, compared in full, or made.
pub(crate) fn find(ops: &[Recorded], storages: &Storages) -> Arc<Plan> {
    let key = canonical(ops, storages);
    let mut guard = CACHE.lock();
    let cache = guard.get_or_insert_with(Cache::default);
    cache.clock += 1;
    let clock = cache.clock;
    if let Some((plan, used)) = cache.plans.get_mut(&key) {
        *used = clock;
        let plan = plan.clone();
        cache.stats.hits += 1;
        cache.stats.fused += plan.fused;
        return plan;
    }
    let plan = Arc::new(build(ops, storages));
    cache.stats.misses += 1;
    cache.stats.fused += plan.fused;
    if cache.plans.len() >= MAX_PLANS {
        if let Some(oldest) = cache.plans.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| k.clone()) {
            cache.plans.remove(&oldest);
        }
    }
    cache.plans.insert(key, (plan.clone(), clock));
    plan
}

fn canonical(ops: &[Recorded], storages: &Storages) -> PlanKey {
    let mut key = PlanKey::default();
    key.word(ops.len() as u64);
    for live in &storages.live {
        key.word(*live as u64);
    }
    // Offsets count only by whether two operands of one storage share theirs.
    let mut offsets: HashMap<(usize, i64), u64> = HashMap::new();
    for r in ops {
        let name = r.op.name();
        key.word(name.as_ptr() as u64).word(name.len() as u64);
        r.op.key(&mut key);
        key.word(u64::MAX).word((r.inputs.len() as u64) << 8 | r.outputs.len() as u64);
        for m in r.inputs.iter().chain(&r.outputs) {
            let number = storages.number(m);
            let next = offsets.len() as u64;
            let offset = *offsets.entry((number, m.offset)).or_insert(next);
            let device = match m.device() {
                Device::Cpu => 0,
                Device::Meta => 1,
                Device::Cuda(i) => 2 + i as u64,
            };
            key.word(number as u64).word(offset).word(m.dtype as u64 | device << 8).words(&m.sizes).words(&m.strides);
        }
    }
    key
}

/// Memory with its layout: equal means the very same elements in the same order.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Place {
    storage: usize,
    offset: i64,
    dtype: DType,
    sizes: Dims,
    strides: Dims,
}
fn place(m: &Meta, storages: &Storages) -> Place {
    Place {
        storage: storages.number(m),
        offset: m.offset,
        dtype: m.dtype,
        sizes: m.sizes.clone(),
        strides: m.strides.clone(),
    }
}

/// A group or single operator while the plan is made.
struct Draft {
    ops: Vec<usize>,
    fusable: bool,
    sizes: Dims,
    device: Device,
    reads: Vec<usize>,
    writes: Vec<usize>,
    read_places: Vec<Place>,
    written: Vec<Place>,
    closed: bool,
}

impl Draft {
    fn touches(&self, storage: usize) -> bool {
        self.reads.contains(&storage) || self.writes.contains(&storage)
    }
}

/// Whether an operator can be part of a fused group.
fn fusable(r: &Recorded) -> bool {
    let Some(map) = r.op.as_map() else { return false };
    r.outputs.len() == 1
        && !r.inputs.is_empty()
        && numel(&r.outputs[0].sizes) > 0
        && !may_overlap_itself(&r.outputs[0].sizes, &r.outputs[0].strides)
        && map.f.arity() <= 4
}

fn build(ops: &[Recorded], storages: &Storages) -> Plan {
    let mut drafts: Vec<Draft> = Vec::new();
    for (i, r) in ops.iter().enumerate() {
        let reads: Vec<usize> = r.inputs.iter().map(|m| storages.number(m)).collect();
        let writes: Vec<usize> = r.outputs.iter().map(|m| storages.number(m)).collect();
        // The last step that this operator has to come after (or be in).
        let after = drafts.iter().rposition(|d| {
            d.writes.iter().any(|w| reads.contains(w) || writes.contains(w))
                || d.reads.iter().any(|x| writes.contains(x))
        });
        let can = fusable(r);
        if can {
            let start = after.unwrap_or(0);
            let joined = (start..drafts.len()).find(|&k| joins(&drafts[k], r, storages));
            if let Some(k) = joined {
                let d = &mut drafts[k];
                d.ops.push(i);
                d.reads.extend(&reads);
                d.writes.extend(&writes);
                d.read_places.extend(r.inputs.iter().map(|m| place(m, storages)));
                d.written.push(place(&r.outputs[0], storages));
                continue;
            }
        }
        drafts.push(Draft {
            ops: vec![i],
            fusable: can,
            sizes: r.outputs.first().map(|m| m.sizes.clone()).unwrap_or_default(),
            device: r.outputs.first().map_or(Device::Cpu, |m| m.device()),
            read_places: r.inputs.iter().map(|m| place(m, storages)).collect(),
            written: r.outputs.iter().map(|m| place(m, storages)).collect(),
            reads,
            writes,
            closed: false,
        });
    }
    finish(ops, storages, drafts)
}

/// Whether operator `r` may run inside group `d`.
fn joins(d: &Draft, r: &Recorded, storages: &Storages) -> bool {
    if !d.fusable
        || d.closed
        || d.sizes != r.outputs[0].sizes
        || d.device != r.outputs[0].device()
        || d.ops.len() >= MAX_STEPS
    {
        return false;
    }
    let mut places: Vec<&Place> = d.read_places.iter().filter(|p| !d.written.contains(p)).collect();
    places.dedup();
    if places.len() + r.inputs.len() > MAX_OPERANDS {
        return false;
    }
    // Within a group memory is named by its exact layout: another look at memory that the group writes, or a write to
    // memory that the group reads in another layout, has to wait for the next step.
    for m in &r.inputs {
        let p = place(m, storages);
        if d.written.iter().any(|w| w.storage == p.storage && *w != p) {
            return false;
        }
    }
    let out = place(&r.outputs[0], storages);
    let clashes = |p: &Place| p.storage == out.storage && *p != out;
    !d.read_places.iter().any(clashes)
        && !d.written.iter().any(clashes)
        && !r.inputs.iter().any(|m| clashes(&place(m, storages)))
}

fn finish(ops: &[Recorded], storages: &Storages, mut drafts: Vec<Draft>) -> Plan {
    // Merge a group into the reduction that alone consumes its value.
    let mut merged: Vec<Option<usize>> = vec![None; drafts.len()];
    for k in 0..drafts.len() {
        let i = drafts[k].ops[0];
        if drafts[k].fusable || ops[i].op.as_reduce().is_none() || ops[i].inputs.len() != 1 {
            continue;
        }
        let input = place(&ops[i].inputs[0], storages);
        let Some(g) = (0..k).rev().find(|&g| drafts[g].writes.contains(&input.storage)) else { continue };
        if !drafts[g].fusable
            || drafts[g].closed
            || drafts[g].written.last() != Some(&input)
            || drafts[g].sizes != input.sizes
        {
            continue;
        }
        let alone = drafts[g].written.iter().all(|w| !storages.live[w.storage])
            && drafts.iter().enumerate().all(|(j, d)| {
                j == g || j == k || !d.reads.iter().chain(&d.writes).any(|s| drafts[g].writes.contains(s))
            });
        // Running the group later, at the reduction, must not let it see memory that was written in between.
        let undisturbed = drafts[g + 1..k].iter().all(|d| !d.writes.iter().any(|w| drafts[g].reads.contains(w)));
        if alone && undisturbed {
            merged[k] = Some(g);
            drafts[g].closed = true;
        }
    }
    // Merge a group into the epilogue of the product that it reads.
    let mut followed: Vec<Option<usize>> = vec![None; drafts.len()];
    for k in 0..drafts.len() {
        if let Some(g) = product_before(ops, &drafts, k).filter(|g| !followed.contains(&Some(*g))) {
            followed[k] = Some(g);
        }
    }
    let mut steps = Vec::new();
    let mut fused = 0;
    for (k, d) in drafts.iter().enumerate() {
        if merged.contains(&Some(k)) || followed.contains(&Some(k)) {
            continue;
        }
        if let Some(g) = followed[k] {
            let product = drafts[g].written[0].storage;
            let others = drafts.iter().enumerate().filter(|(j, _)| *j != g && *j != k);
            let kept = storages.live[product] || others.into_iter().any(|(_, d)| d.touches(product));
            fused += d.ops.len() as u64 + 1;
            let group = group(ops, storages, &drafts, k, None);
            steps.push(PlanStep::Product { op: drafts[g].ops[0], group, kept });
            continue;
        }
        match merged[k] {
            Some(g) => {
                fused += drafts[g].ops.len() as u64 + 1;
                steps.push(PlanStep::Fused(group(ops, storages, &drafts, g, Some(d.ops[0]))));
            }
            None if d.fusable && d.ops.len() > 1 => {
                fused += d.ops.len() as u64;
                steps.push(PlanStep::Fused(group(ops, storages, &drafts, k, None)));
            }
            None => steps.extend(d.ops.iter().map(|&i| PlanStep::Single(i))),
        }
    }
    Plan { steps, fused }
}

/// The product in whose epilogue group `k` can run: one that the group reads, and that may wait until then.
fn product_before(ops: &[Recorded], drafts: &[Draft], k: usize) -> Option<usize> {
    let d = &drafts[k];
    if !d.fusable || d.closed {
        return None;
    }
    let reads = |g: &Draft| g.written.first().is_some_and(|p| d.reads.contains(&p.storage));
    let g = (0..k).rev().find(|&g| ops[drafts[g].ops[0]].op.as_product().is_some() && reads(&drafts[g]))?;
    let (product, between) = (&drafts[g], &drafts[g + 1..k]);
    let place = &product.written[0];
    let whole = place.sizes == d.sizes && place.strides == contiguous_strides(&place.sizes);
    // Parts of the product that are not computed yet must not be read, nor what it still reads be written.
    let same = d.read_places.iter().chain(&d.written).all(|p| p.storage != place.storage || p == place);
    let apart = !d.writes.iter().any(|w| product.reads.contains(w));
    let waits = !between.iter().any(|b| b.touches(place.storage) || b.writes.iter().any(|w| product.reads.contains(w)));
    (whole && same && apart && waits && product.device == d.device).then_some(g)
}

/// A value inside a group.
#[derive(Clone, Copy)]
struct Val {
    number: u16,
    class: Class,
    dtype: DType,
}

/// Writes a group's program.
fn group(ops: &[Recorded], storages: &Storages, drafts: &[Draft], k: usize, reduce: Option<usize>) -> Group {
    let d = &drafts[k];
    // Inputs come first in the numbering of values, and their number is not known yet: they count from 0, results of
    // steps from STEP, and are renumbered at the end.
    const STEP: u16 = 1 << 14;
    let mut sources: Vec<Source> = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut loaded: HashMap<(Place, Class), u16> = HashMap::new();
    let mut current: HashMap<Place, Val> = HashMap::new();
    let mut writer: HashMap<Place, usize> = HashMap::new();
    let push = |steps: &mut Vec<Step>, op: StepOp, class: Class, args: [u16; 4]| -> u16 {
        steps.push(Step { op, class, args });
        STEP + steps.len() as u16 - 1
    };
    let in_class = |steps: &mut Vec<Step>, v: Val, class: Class| -> u16 {
        if v.class == class {
            v.number
        } else {
            push(steps, StepOp::Convert(v.dtype, class), v.class, [v.number, 0, 0, 0])
        }
    };
    for &i in &d.ops {
        let r = &ops[i];
        let Some(map) = r.op.as_map() else { continue };
        let kinds: SmallVec<[(DType, usize); 4]> = r.inputs.iter().map(|m| (m.dtype, m.sizes.len())).collect();
        let class = map.class(&kinds);
        let mut args = [0u16; 4];
        let mut next = 0;
        for (position, arg) in args.iter_mut().enumerate().take(map.f.arity()) {
            if map.numbers[position].is_some() {
                sources.push(Source::Number(i, position, class));
                *arg = sources.len() as u16 - 1;
                continue;
            }
            let p = place(&r.inputs[next], storages);
            *arg = match current.get(&p) {
                Some(v) => in_class(&mut steps, *v, class),
                None => *loaded.entry((p, class)).or_insert_with(|| {
                    sources.push(Source::Operand(i, next, class));
                    sources.len() as u16 - 1
                }),
            };
            next += 1;
        }
        let out = &r.outputs[0];
        let mut value =
            if map.f == ScalarFn::Identity { args[0] } else { push(&mut steps, StepOp::Apply(map.f), class, args) };
        // What storing and loading the value would have done to it. Comparisons are 0 or 1 in every class.
        let home = out.dtype.class();
        let mut in_now = class;
        let boolean = out.dtype == DType::Bool && map.f.rule() == DTypeRule::Predicate;
        if !boolean && (class != home || out.dtype != home.dtype()) {
            value = push(&mut steps, StepOp::Convert(out.dtype, home), class, [value, 0, 0, 0]);
            in_now = home;
        }
        let p = place(out, storages);
        current.insert(p.clone(), Val { number: value, class: in_now, dtype: out.dtype });
        writer.insert(p, i);
    }
    let mut results: Vec<(u16, usize)> = Vec::new();
    let mut reduced = None;
    if let Some(r) = reduce {
        let p = place(&ops[r].inputs[0], storages);
        if let Some(v) = current.get(&p) {
            let want = ops[r].inputs[0].dtype.class();
            reduced = Some((r, in_class(&mut steps, *v, want)));
        }
    } else {
        let mut stored: Vec<(usize, Place)> = writer.iter().map(|(p, i)| (*i, p.clone())).collect();
        stored.sort_by_key(|(i, _)| *i);
        for (i, p) in stored {
            let needed = storages.live[p.storage]
                || drafts.iter().enumerate().any(|(j, d)| j != k && d.reads.contains(&p.storage))
                || drafts.iter().enumerate().any(|(j, d)| j != k && d.writes.contains(&p.storage));
            if needed {
                results.push((current[&p].number, i));
            }
        }
    }
    // Renumber: inputs, then steps.
    let inputs = sources.len() as u16;
    let fix = |v: u16| if v >= STEP { v - STEP + inputs } else { v };
    for s in &mut steps {
        let arity = match s.op {
            StepOp::Apply(f) => f.arity(),
            StepOp::Convert(..) => 1,
        };
        for a in &mut s.args[..arity] {
            *a = fix(*a);
        }
    }
    results.iter_mut().for_each(|(v, _)| *v = fix(*v));
    let reduce = reduced.map(|(r, v)| (r, fix(v)));
    Group { ops: d.ops.clone(), sources, steps, results, reduce }
}
