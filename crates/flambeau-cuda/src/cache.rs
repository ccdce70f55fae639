//! The cache of compiled kernels on disk: files named by a hash of everything that went into them.

use std::io::Write;
use std::path::{Path, PathBuf};

/// 128 bits of FNV-1a: stable between builds and machines, which the standard library's hashers do not promise.
pub fn hash(parts: &[&[u8]]) -> String {
    let mut h: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        for &byte in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            h = (h ^ byte as u128).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    format!("{h:032x}")
}

/// The directory of the user's caches with `kind` below it, created; the temporary directory when there is no home.
pub fn directory(kind: &str) -> PathBuf {
    let base = std::env::var_os("FLAMBEAU_CACHE_DIR")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("XDG_CACHE_HOME").map(|d| PathBuf::from(d).join("flambeau")))
        .or_else(|| std::env::var_os("LOCALAPPDATA").map(|d| PathBuf::from(d).join("flambeau")))
        .or_else(|| std::env::var_os("HOME").map(|d| PathBuf::from(d).join(".cache").join("flambeau")));
    for base in base.into_iter().chain([std::env::temp_dir().join("flambeau")]) {
        let dir = base.join(kind);
        if std::fs::create_dir_all(&dir).is_ok() {
            return dir;
        }
    }
    std::env::temp_dir()
}

/// A name beside `path` that no other process or thread uses.
pub fn temporary(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{n}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Writes a file so that others see all of it or nothing. A failure is no error: the cache is then simply cold.
pub fn write(path: &Path, bytes: &[u8]) {
    let temporary = temporary(path);
    let written = std::fs::File::create(&temporary).and_then(|mut f| f.write_all(bytes)).is_ok();
    if !written || std::fs::rename(&temporary, path).is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}
