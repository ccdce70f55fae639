//! A caching allocator: blocks of a few size classes, kept when they are given back. Everything runs in one stream, in
//! order, so a block may be handed out again while work on its former contents is still queued.

use crate::driver::{Address, Driver};
use flambeau_core::backend::MemoryStats;
use flambeau_core::{bail, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Blocks below this size are rounded to 512 bytes, larger ones to 2 MiB.
const SMALL: usize = 1 << 20;
/// A cached block may be larger than what was asked for by this fraction (an eighth) at most.
const SLACK: usize = 8;

#[derive(Default)]
struct State {
    /// Free blocks by size.
    free: BTreeMap<usize, Vec<Address>>,
    /// The size that each block in use really has.
    sizes: std::collections::HashMap<Address, usize>,
    stats: MemoryStats,
}
impl State {
    fn take(&mut self, size: usize) {
        let level = &mut self.stats.allocated;
        level.current += size;
        level.peak = level.peak.max(level.current);
    }
}

/// A device's allocator.
#[derive(Default)]
pub struct Allocator(Mutex<State>);

fn rounded(nbytes: usize) -> usize {
    let unit = if nbytes < SMALL { 512 } else { 2 << 20 };
    nbytes.max(1).div_ceil(unit).saturating_mul(unit)
}

/// A size as people read it.
fn readable(nbytes: usize) -> String {
    let (mib, gib) = ((1usize << 20) as f64, (1usize << 30) as f64);
    if nbytes as f64 >= gib {
        format!("{:.2} GiB", nbytes as f64 / gib)
    } else {
        format!("{:.2} MiB", nbytes as f64 / mib)
    }
}

impl Allocator {
    /// A block of at least `nbytes`.
    ///
    /// # Errors
    /// `OutOfMemory` that names the size, the device and what is free.
    pub fn alloc(&self, driver: &dyn Driver, device: u16, nbytes: usize) -> Result<Address> {
        let want = rounded(nbytes);
        let mut state = self.0.lock();
        let most = want + want / SLACK;
        let cached = state.free.range(want..=most).find(|(_, list)| !list.is_empty()).map(|(size, _)| *size);
        if let Some(size) = cached {
            if let Some(address) = state.free.get_mut(&size).and_then(|list| list.pop()) {
                state.take(size);
                state.sizes.insert(address, size);
                return Ok(address);
            }
        }
        let mut address = driver.alloc(want)?;
        if address.is_none() {
            give_back(&mut state, driver);
            address = driver.alloc(want)?;
        }
        let Some(address) = address else {
            let (free, total) = driver.memory();
            bail!(
                OutOfMemory,
                "CUDA out of memory. Tried to allocate {} ({nbytes} bytes). GPU {device} has a total capacity of {} of which {} is free; {} is in use by tensors",
                readable(nbytes),
                readable(total),
                readable(free),
                readable(state.stats.allocated.current)
            );
        };
        state.take(want);
        let level = &mut state.stats.reserved;
        level.current += want;
        level.peak = level.peak.max(level.current);
        state.sizes.insert(address, want);
        Ok(address)
    }
    /// Keeps a block for later.
    pub fn free(&self, address: Address) {
        let mut state = self.0.lock();
        if let Some(size) = state.sizes.remove(&address) {
            state.stats.allocated.current -= size;
            state.free.entry(size).or_default().push(address);
        }
    }
    /// Bytes in use and bytes held.
    pub fn stats(&self) -> MemoryStats {
        self.0.lock().stats
    }
    /// Peaks count from here on.
    pub fn reset_peaks(&self) {
        let stats = &mut self.0.lock().stats;
        for level in [&mut stats.allocated, &mut stats.reserved] {
            level.peak = level.current;
        }
    }
    /// Gives every unused block back to the driver.
    pub fn trim(&self, driver: &dyn Driver) {
        give_back(&mut self.0.lock(), driver);
    }
}

fn give_back(state: &mut State, driver: &dyn Driver) {
    // Queued work may still use what was given back.
    if driver.synchronize().is_err() {
        return;
    }
    for (size, list) in std::mem::take(&mut state.free) {
        for address in list {
            state.stats.reserved.current -= size;
            // SAFETY: a block of `alloc` with this size, and nobody has it.
            unsafe { driver.free(address, size) };
        }
    }
}
