//! A thread pool in which a job is claimed piece by piece. Work is split by size, never by the number of threads, so that
//! results do not depend on it.

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a worker waits awake: to be woken costs tens of microseconds where a hypervisor is asked, and between the operators
/// of a training step lies less than this.
const AWAKE: Duration = Duration::from_micros(500);
/// Turns of the waiting loop between looks at the clock.
const TURNS: u32 = 64;

struct Pool {
    /// Epoch in the high half, tasks left to claim in the low half: a late worker's claim of an old job fails.
    state: AtomicU64,
    /// Tasks not finished.
    pending: AtomicUsize,
    /// The job: a fat pointer to the closure, as two words.
    job: [AtomicUsize; 2],
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
    /// One job at a time; who finds it taken runs its own work alone.
    submit: Mutex<()>,
    workers: AtomicUsize,
    /// The process that started the workers; a fork has none.
    pid: AtomicU32,
    panicked: AtomicUsize,
}

static POOL: Pool = Pool {
    state: AtomicU64::new(0),
    pending: AtomicUsize::new(0),
    job: [AtomicUsize::new(0), AtomicUsize::new(0)],
    sleepers: AtomicU32::new(0),
    lock: Mutex::new(()),
    wake: Condvar::new(),
    submit: Mutex::new(()),
    workers: AtomicUsize::new(0),
    pid: AtomicU32::new(0),
    panicked: AtomicUsize::new(0),
};
static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Which span of a job this thread begins with: 0 for whoever submits, its number for a worker.
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// Threads that parallel work uses.
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = ["FLAMBEAU_NUM_THREADS", "OMP_NUM_THREADS"]
                .iter()
                .find_map(|k| std::env::var(k).ok()?.parse::<usize>().ok().filter(|n| *n > 0))
                // Counts the cores that affinity and cgroup quotas leave to this process.
                .or_else(|| std::thread::available_parallelism().ok().map(|n| n.get()))
                .unwrap_or(1);
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}
/// Sets the number of threads (at least 1).
pub fn set_num_threads(n: usize) {
    THREADS.store(n.max(1), Ordering::Relaxed);
}

fn claim() -> Option<usize> {
    let mut s = POOL.state.load(Ordering::Acquire);
    loop {
        let left = s as u32;
        if left == 0 {
            return None;
        }
        match POOL.state.compare_exchange_weak(s, s - 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(left as usize - 1),
            Err(now) => s = now,
        }
    }
}

fn work() {
    while let Some(i) = claim() {
        let words = [POOL.job[0].load(Ordering::Relaxed), POOL.job[1].load(Ordering::Relaxed)];
        // SAFETY: the words are the closure of the job whose task was just claimed; its submitter waits until `pending`
        // is 0, so the closure outlives this call.
        let f: &(dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(words) };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(i))).is_err() {
            POOL.panicked.store(1, Ordering::Relaxed);
        }
        POOL.pending.fetch_sub(1, Ordering::Release);
    }
}

fn worker(place: usize) {
    INSIDE.with(|i| i.set(true));
    PLACE.with(|p| p.set(place));
    loop {
        let (mut turns, mut since) = (0u32, None);
        while POOL.state.load(Ordering::Relaxed) as u32 == 0 {
            std::hint::spin_loop();
            turns += 1;
            if turns.is_multiple_of(TURNS) && since.get_or_insert_with(Instant::now).elapsed() > AWAKE {
                let mut guard = POOL.lock.lock();
                POOL.sleepers.fetch_add(1, Ordering::SeqCst);
                if POOL.state.load(Ordering::SeqCst) as u32 == 0 {
                    POOL.wake.wait(&mut guard);
                }
                POOL.sleepers.fetch_sub(1, Ordering::SeqCst);
                since = None;
            }
        }
        work();
    }
}

fn ensure_workers(n: usize) {
    let pid = std::process::id();
    if POOL.pid.swap(pid, Ordering::Relaxed) != pid {
        // First use, or the child of a fork: threads do not survive one.
        POOL.workers.store(0, Ordering::Relaxed);
        POOL.sleepers.store(0, Ordering::Relaxed);
    }
    while POOL.workers.load(Ordering::Relaxed) < n {
        let place = POOL.workers.load(Ordering::Relaxed) + 1;
        let started = std::thread::Builder::new().name("flambeau".into()).spawn(move || worker(place));
        if started.is_err() {
            return;
        }
        POOL.workers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `f(0)` … `f(n - 1)`, in any order, on several threads; returns when all are done. Inside a task, serially.
pub fn parallel<F: Fn(usize) + Sync>(n: usize, f: F) {
    let threads = num_threads().min(n);
    if threads <= 1 || INSIDE.with(Cell::get) {
        (0..n).for_each(f);
        return;
    }
    let Some(_submit) = POOL.submit.try_lock() else {
        (0..n).for_each(f);
        return;
    };
    ensure_workers(threads - 1);
    let f: &(dyn Fn(usize) + Sync) = &f;
    // SAFETY: a fat reference is two words; only its bits are kept, and used only until `pending` is 0 below.
    let words: [usize; 2] = unsafe { std::mem::transmute(f) };
    POOL.job[0].store(words[0], Ordering::Relaxed);
    POOL.job[1].store(words[1], Ordering::Relaxed);
    POOL.pending.store(n, Ordering::Relaxed);
    let epoch = (POOL.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
    POOL.state.store(epoch << 32 | n as u64, Ordering::SeqCst);
    if POOL.sleepers.load(Ordering::SeqCst) > 0 {
        let _guard = POOL.lock.lock();
        POOL.wake.notify_all();
    }
    INSIDE.with(|i| i.set(true));
    work();
    INSIDE.with(|i| i.set(false));
    let mut turns = 0u32;
    while POOL.pending.load(Ordering::Acquire) != 0 {
        turns += 1;
        if turns > 20_000 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
    if POOL.panicked.swap(0, Ordering::Relaxed) != 0 {
        panic!("a parallel task panicked");
    }
}

/// Pieces that nobody has taken yet: the first in the low half, the end in the high half.
#[repr(align(128))]
struct Span(AtomicU64);
impl Span {
    fn new(lo: usize, hi: usize) -> Self {
        Span(AtomicU64::new(lo as u64 | (hi as u64) << 32))
    }
    /// The first piece, or the last for a thread that helps out.
    fn take(&self, first: bool) -> Option<usize> {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let (lo, hi) = (now & u32::MAX as u64, now >> 32);
            if lo >= hi {
                return None;
            }
            let next = if first { (lo + 1) | hi << 32 } else { lo | (hi - 1) << 32 };
            match self.0.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(if first { lo } else { hi - 1 } as usize),
                Err(found) => now = found,
            }
        }
    }
}

/// Splits `0..n` in fixed pieces of `grain` and runs `f(lo, hi)` on each. Every thread takes a contiguous span of pieces, the
/// same one whenever the sizes are the same, so that it finds in its cache what it wrote there; then it helps the others from
/// the end.
pub fn chunks<F: Fn(usize, usize) + Sync>(n: usize, grain: usize, f: F) {
    // Pieces are counted in halves of a word.
    let grain = grain.max(1).max(n >> 31);
    let pieces = n.div_ceil(grain);
    let threads = num_threads().min(pieces);
    let run = |i: usize| f(i * grain, ((i + 1) * grain).min(n));
    if threads <= 1 || INSIDE.with(Cell::get) {
        (0..pieces).for_each(run);
        return;
    }
    let spans: SmallVec<[Span; 8]> =
        (0..threads).map(|k| Span::new(k * pieces / threads, (k + 1) * pieces / threads)).collect();
    parallel(threads, |_| {
        let me = PLACE.with(Cell::get);
        for d in 0..threads {
            while let Some(i) = spans[(me + d) % threads].take(d == 0) {
                run(i);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 8] {
            set_num_threads(threads);
            for n in [0, 1, 2, 7, 1000] {
                let sum = AtomicU64::new(0);
                parallel(n, |i| {
                    sum.fetch_add(i as u64 + 1, Ordering::Relaxed);
                });
                assert_eq!(sum.load(Ordering::Relaxed), (n * (n + 1) / 2) as u64);
                let sum = AtomicU64::new(0);
                chunks(n, 3, |lo, hi| {
                    sum.fetch_add((lo..hi).map(|i| i as u64 + 1).sum::<u64>(), Ordering::Relaxed);
                });
                assert_eq!(sum.load(Ordering::Relaxed), (n * (n + 1) / 2) as u64);
            }
        }
    }
}
