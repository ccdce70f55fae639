//! The extension's allocator: small blocks that were freed are kept by size in each thread. Programs of small tensors make and
//! drop layouts, storages and nodes by the million, and the system's allocator takes three times as many instructions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Sizes are rounded up to this.
const STEP: usize = 32;
/// Larger blocks are the system's.
const LARGEST: usize = 1024;
/// The alignment that the system gives every block.
const ALIGN: usize = 16;
const CLASSES: usize = LARGEST / STEP;
/// Free blocks of a size that a thread keeps.
const KEPT: u32 = 256;

/// A thread's free blocks: of each size a list, linked through the blocks' own first words.
struct Cache {
    first: [*mut u8; CLASSES],
    count: [u32; CLASSES],
    /// The thread's end is watched.
    watched: bool,
    /// The thread is ending: nothing is kept any more.
    closed: bool,
}
thread_local! {
    // No destructor of its own, which an allocator may not have everywhere: `WATCH` has it.
    static CACHE: UnsafeCell<Cache> = const {
        UnsafeCell::new(Cache { first: [null_mut(); CLASSES], count: [0; CLASSES], watched: false, closed: false })
    };
    static WATCH: Watch = const { Watch };
}
struct Watch;
impl Drop for Watch {
    fn drop(&mut self) {
        CACHE.with(|c| {
            // SAFETY: the cache is this thread's, and nothing below allocates.
            let c = unsafe { &mut *c.get() };
            c.closed = true;
            for class in 0..CLASSES {
                while !c.first[class].is_null() {
                    let block = c.first[class];
                    // SAFETY: a block in the list is free, its first word is the next one's address, and it was allocated with
                    // exactly this layout.
                    unsafe {
                        c.first[class] = *(block as *mut *mut u8);
                        System.dealloc(block, layout(class));
                    }
                }
            }
        });
    }
}

#[inline(always)]
fn layout(class: usize) -> Layout {
    // SAFETY: the alignment is a power of two and the size is small.
    unsafe { Layout::from_size_align_unchecked((class + 1) * STEP, ALIGN) }
}
/// The class of a block, if it is kept by class.
#[inline(always)]
fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= ALIGN && layout.size() > 0).then(|| (layout.size() - 1) / STEP)
}

/// See the module.
pub struct Caching;

// SAFETY: a block is the system's, of the layout asked for or of its class's, which holds it; what class that is follows from
// the layout alone, so it is given back with the layout that it was made with. A block is in a list only while it is free.
unsafe impl GlobalAlloc for Caching {
    #[inline]
    unsafe fn alloc(&self, wanted: Layout) -> *mut u8 {
        let Some(class) = class_of(wanted) else { return System.alloc(wanted) };
        CACHE.with(|c| {
            let c = &mut *c.get();
            let block = c.first[class];
            if block.is_null() {
                return fresh(class, c);
            }
            c.first[class] = *(block as *mut *mut u8);
            c.count[class] -= 1;
            block
        })
    }
    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, given: Layout) {
        let Some(class) = class_of(given) else { return System.dealloc(block, given) };
        CACHE.with(|c| {
            let c = &mut *c.get();
            if c.count[class] >= KEPT || c.closed {
                return System.dealloc(block, layout(class));
            }
            *(block as *mut *mut u8) = c.first[class];
            c.first[class] = block;
            c.count[class] += 1;
        });
    }
    #[inline]
    unsafe fn realloc(&self, block: *mut u8, old: Layout, size: usize) -> *mut u8 {
        let new = Layout::from_size_align_unchecked(size, old.align());
        match (class_of(old), class_of(new)) {
            (Some(a), Some(b)) if a == b => block,
            (None, None) => System.realloc(block, old, size),
            _ => {
                let to = self.alloc(new);
                if !to.is_null() {
                    std::ptr::copy_nonoverlapping(block, to, old.size().min(size));
                    self.dealloc(block, old);
                }
                to
            }
        }
    }
    #[inline]
    unsafe fn alloc_zeroed(&self, wanted: Layout) -> *mut u8 {
        if class_of(wanted).is_none() {
            return System.alloc_zeroed(wanted);
        }
        let block = self.alloc(wanted);
        if !block.is_null() {
            std::ptr::write_bytes(block, 0, wanted.size());
        }
        block
    }
}

/// A block from the system.
#[cold]
#[inline(never)]
unsafe fn fresh(class: usize, cache: *mut Cache) -> *mut u8 {
    if !(*cache).watched {
        (*cache).watched = true;
        // May itself allocate, which by now goes on below.
        let _ = WATCH.try_with(|_| ());
    }
    System.alloc(layout(class))
}
