//! Caching allocator: freed blocks are kept by size class, small ones per thread, so that a temporary costs neither a
//! system call nor fresh pages.

use flambeau_core::backend::{Level, MemoryStats};
use flambeau_core::storage::{Memory, Release};
use flambeau_core::{err, Result, SmallVec};
use parking_lot::Mutex;
use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

const ALIGN: usize = 64;
/// Blocks up to this size are cached per thread.
const SMALL: usize = 16 << 10;
const SMALL_CLASSES: usize = 9; // 64 … 16384, powers of two
const PER_CLASS: usize = 32;
/// Huge pages are asked for from here on.
const HUGE: usize = 4 << 20;
/// Bytes that the shared cache keeps at most.
const CAP: usize = 1 << 30;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static CACHED: AtomicUsize = AtomicUsize::new(0);
static MOST_IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

struct Small {
    /// Change of `IN_USE` that is not yet counted there: an atomic addition a block is dear beside a cached block.
    uncounted: isize,
    count: [usize; SMALL_CLASSES],
    blocks: [[*mut u8; PER_CLASS]; SMALL_CLASSES],
}
struct SmallCache(UnsafeCell<Small>);
impl Drop for SmallCache {
    fn drop(&mut self) {
        let small = self.0.get_mut();
        count(small.uncounted);
        for class in 0..SMALL_CLASSES {
            for i in 0..small.count[class] {
                // SAFETY: cached blocks were allocated with exactly this layout and belong to the cache alone.
                unsafe { std::alloc::dealloc(small.blocks[class][i], layout(64 << class)) };
            }
        }
    }
}
thread_local! {
    static SMALL_CACHE: SmallCache = const {
        SmallCache(UnsafeCell::new(Small { uncounted: 0, count: [0; SMALL_CLASSES], blocks: [[null_mut(); PER_CLASS]; SMALL_CLASSES] }))
    };
}

/// How far `IN_USE` may be behind in each thread.
const UNCOUNTED: isize = 1 << 18;
impl Small {
    #[inline]
    fn count(&mut self, change: isize) {
        self.uncounted += change;
        if self.uncounted.abs() >= UNCOUNTED {
            count(std::mem::take(&mut self.uncounted));
        }
    }
}
#[cold]
#[inline(never)]
fn count(change: isize) {
    let used = IN_USE.fetch_add(change as usize, Ordering::Relaxed).wrapping_add(change as usize);
    note_peaks(used);
}
/// The books' peaks after `used` bytes came into use. A freed block that is not counted yet may make the sum wrap around:
/// that is not a peak.
fn note_peaks(used: usize) {
    if used <= isize::MAX as usize {
        MOST_IN_USE.fetch_max(used, Ordering::Relaxed);
        MOST_HELD.fetch_max(used + CACHED.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Large free blocks, and how many were ever kept.
static LARGE: Mutex<Large> = Mutex::new(Large { classes: [const { VecDeque::new() }; CLASSES], kept: 0 });
const CLASSES: usize = 4 * usize::BITS as usize;
struct Large {
    /// For each size class, oldest first: when a block was kept, and its address.
    classes: [VecDeque<(u64, usize)>; CLASSES],
    kept: u64,
}
impl Large {
    /// The list of a size class beyond the small ones: four an octave.
    fn class(size: usize) -> usize {
        let octave = (usize::BITS - 1 - size.leading_zeros()) as usize;
        4 * octave + (size >> (octave - 2) & 3)
    }
    /// The size of a list's blocks.
    fn size(class: usize) -> usize {
        (4 + class % 4) << (class / 4 - 2)
    }
    /// The block that has been kept for longest, which leaves the cache.
    fn oldest(&mut self) -> Option<(usize, usize)> {
        let lists = self.classes.iter().enumerate();
        let (_, class) = lists.filter_map(|(class, list)| Some((list.front()?.0, class))).min()?;
        let (_, ptr) = self.classes[class].pop_front()?;
        Some((Self::size(class), ptr))
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: ALIGN is a power of two, and sizes were bounded by `alloc`.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}
/// The size class that holds `n` bytes: powers of two to 16 KiB, then four an octave.
#[inline]
fn class_size(n: usize) -> usize {
    if n <= SMALL {
        return n.max(64).next_power_of_two();
    }
    let step = 1usize << (usize::BITS - 1 - (n - 1).leading_zeros()).saturating_sub(2);
    n.div_ceil(step) * step
}

/// Memory for `n` bytes, aligned to 64.
///
/// # Errors
/// `OutOfMemory` that names the size.
#[inline]
pub fn alloc(n: usize) -> Result<Memory> {
    if n > isize::MAX as usize / 2 {
        return Err(out_of_memory(n));
    }
    let size = class_size(n);
    let ptr = if size <= SMALL {
        let class = size.trailing_zeros() as usize - 6;
        let cached = SMALL_CACHE
            .try_with(|c| {
                // SAFETY: the cache is this thread's, and no reference to it outlives this closure.
                let c = unsafe { &mut *c.0.get() };
                c.count(size as isize);
                if c.count[class] == 0 {
                    return null_mut();
                }
                c.count[class] -= 1;
                c.blocks[class][c.count[class]]
            })
            .unwrap_or(null_mut());
        if cached.is_null() {
            // SAFETY: the layout's size is not zero.
            unsafe { std::alloc::alloc(layout(size)) }
        } else {
            cached
        }
    } else {
        let used = IN_USE.fetch_add(size, Ordering::Relaxed).wrapping_add(size);
        let ptr = large(size);
        note_peaks(used);
        ptr
    };
    if ptr.is_null() {
        IN_USE.fetch_sub(size, Ordering::Relaxed);
        return Err(out_of_memory(n));
    }
    // SAFETY: the block is ours until `free` gets it back; `n` fits in its class.
    Ok(unsafe { Memory::new(ptr, n, Release::Allocator(free, size as u64)) })
}

#[cold]
fn out_of_memory(n: usize) -> flambeau_core::Error {
    err!(OutOfMemory, "DefaultCPUAllocator: can't allocate memory: you tried to allocate {n} bytes.")
}

fn large(size: usize) -> *mut u8 {
    {
        // The block that was freed last may still be in a processor's cache.
        if let Some((_, ptr)) = LARGE.lock().classes[Large::class(size)].pop_back() {
            CACHED.fetch_sub(size, Ordering::Relaxed);
            return ptr as *mut u8;
        }
    }
    // SAFETY: the layout's size is not zero.
    let mut ptr = unsafe { fresh(size) };
    if ptr.is_null() {
        trim();
        // SAFETY: as above.
        ptr = unsafe { fresh(size) };
    }
    ptr
}

/// Asks for huge pages under memory that has not been touched, where it is large enough to hold some.
pub(crate) fn advise_huge(ptr: *mut u8, size: usize) {
    const PAGE: usize = 2 << 20;
    let skip = ptr.align_offset(PAGE);
    if size >= HUGE && skip + PAGE <= size {
        // SAFETY: advice changes no contents, and the range lies within the caller's memory.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(ptr.add(skip) as *mut libc::c_void, size - skip, libc::MADV_HUGEPAGE)
        };
    }
}

/// # Safety
/// `size` is not zero.
unsafe fn fresh(size: usize) -> *mut u8 {
    if size < HUGE {
        return std::alloc::alloc(layout(size));
    }
    // Straight from the system: aligned to huge pages, and a size beyond memory is refused rather than promised.
    let ptr = libc::mmap(
        null_mut(),
        size,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    if ptr == libc::MAP_FAILED {
        return null_mut();
    }
    #[cfg(target_os = "linux")]
    libc::madvise(ptr, size, libc::MADV_HUGEPAGE);
    ptr as *mut u8
}

/// # Safety
/// `ptr` came from `fresh(size)` (or the small path) and nobody uses it any more.
unsafe fn release(ptr: *mut u8, size: usize) {
    if size < HUGE {
        std::alloc::dealloc(ptr, layout(size));
    } else {
        libc::munmap(ptr as *mut libc::c_void, size);
    }
}

/// # Safety
/// Called once by `Memory`, with the block of class size `tag`.
unsafe fn free(ptr: *mut u8, _nbytes: usize, tag: u64) {
    let size = tag as usize;
    if size <= SMALL {
        let class = size.trailing_zeros() as usize - 6;
        let kept = SMALL_CACHE
            .try_with(|c| {
                let c = &mut *c.0.get();
                c.count(-(size as isize));
                if c.count[class] == PER_CLASS {
                    return false;
                }
                c.blocks[class][c.count[class]] = ptr;
                c.count[class] += 1;
                true
            })
            .unwrap_or(false);
        if !kept {
            std::alloc::dealloc(ptr, layout(size));
        }
        return;
    }
    IN_USE.fetch_sub(size, Ordering::Relaxed);
    if size > CAP {
        return release(ptr, size);
    }
    // What was last freed is what is likely to be wanted again: older blocks make room for it.
    let mut dropped: SmallVec<[(usize, usize); 4]> = SmallVec::new();
    {
        let mut large = LARGE.lock();
        while CACHED.load(Ordering::Relaxed) + size > CAP {
            let Some((size, ptr)) = large.oldest() else { break };
            CACHED.fetch_sub(size, Ordering::Relaxed);
            dropped.push((size, ptr));
        }
        CACHED.fetch_add(size, Ordering::Relaxed);
        large.kept += 1;
        let kept = large.kept;
        large.classes[Large::class(size)].push_back((kept, ptr as usize));
    }
    for (size, ptr) in dropped {
        release(ptr as *mut u8, size);
    }
}

/// Gives cached blocks back to the system.
pub fn trim() {
    loop {
        let Some((size, ptr)) = LARGE.lock().oldest() else { return };
        CACHED.fetch_sub(size, Ordering::Relaxed);
        // SAFETY: a block that has left the cache is nobody's.
        unsafe { release(ptr as *mut u8, size) };
    }
}
/// Bytes in use and bytes held (in use or cached); small blocks of other threads to within 256 KiB each.
pub fn stats() -> MemoryStats {
    // SAFETY: as in `alloc`.
    let _ = SMALL_CACHE.try_with(|c| count(std::mem::take(unsafe { &mut (*c.0.get()).uncounted })));
    let used = IN_USE.load(Ordering::Relaxed);
    MemoryStats {
        allocated: Level { current: used, peak: MOST_IN_USE.load(Ordering::Relaxed) },
        reserved: Level { current: used + CACHED.load(Ordering::Relaxed), peak: MOST_HELD.load(Ordering::Relaxed) },
    }
}
/// Peaks count from here on.
pub fn reset_peaks() {
    let now = stats();
    MOST_IN_USE.store(now.allocated.current, Ordering::Relaxed);
    MOST_HELD.store(now.reserved.current, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes() {
        for n in [0, 1, 64, 65, 16384, 16385, 20000, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let size = class_size(n);
            assert!(size >= n && (n < 64 || size <= n * 2), "{n} {size}");
        }
    }
    #[test]
    fn lists_know_their_sizes() {
        for n in (15..40).flat_map(|o| [1usize << o, (1 << o) + 1, 5 << (o - 2), 6 << (o - 2), (7 << (o - 2)) + 1]) {
            let size = class_size(n);
            assert_eq!(Large::size(Large::class(size)), size, "{n}");
        }
    }
    #[test]
    fn a_full_cache_drops_its_oldest_blocks() {
        // Memory that is not touched costs nothing. Nobody else asks for blocks of these sizes.
        let blocks: Vec<_> = (0..40).map(|_| alloc(57 << 20).unwrap()).collect();
        drop(blocks);
        assert!(CACHED.load(Ordering::Relaxed) <= CAP + (64 << 20));
        let kept = || LARGE.lock().classes[Large::class(class_size(71 << 20))].len();
        drop(alloc(71 << 20).unwrap());
        assert_eq!(kept(), 1);
        let block = alloc(71 << 20).unwrap();
        assert_eq!(kept(), 0);
        drop(block);
    }
    #[test]
    fn too_large_is_an_error() {
        assert!(alloc(1 << 60).is_err());
        assert!(alloc(usize::MAX).is_err());
    }
}
