//! Where the CUDA libraries are: directories of the `nvidia-*` wheels are looked at first, then the system's paths. A
//! library that was opened by its full path is found again by its name, which is how cudarc looks for it.

use parking_lot::Mutex;
use std::path::PathBuf;

static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Adds a directory in which to look for the CUDA libraries (cuBLAS, NVRTC and its builtins).
pub fn add_library_path(directory: PathBuf) {
    let mut directories = DIRECTORIES.lock();
    if !directories.contains(&directory) {
        directories.push(directory);
    }
}

/// Opens, for good, every library in the added directories whose name starts with one of `names`, in that order. What is
/// not there, or does not open, is left to the system's own search.
pub(crate) fn open_first(names: &[&str]) {
    let directories = DIRECTORIES.lock().clone();
    for name in names {
        for directory in &directories {
            let Ok(entries) = std::fs::read_dir(directory) else {
                continue;
            };
            for entry in entries.flatten() {
                let file = entry.file_name();
                let file = file.to_string_lossy();
                // The `alt` variants of NVRTC's wheel have the plain ones' symbols.
                if file.starts_with(name) && !file.contains(".alt.") && (file.contains(".so") || file.ends_with(".dll"))
                {
                    // SAFETY: a vendor's library from a directory that the user named.
                    if let Ok(library) = unsafe { open_global(&entry.path()) } {
                        std::mem::forget(library);
                    }
                }
            }
        }
    }
}

#[cfg(unix)]
unsafe fn open_global(path: &std::path::Path) -> Result<libloading::os::unix::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL)
}
#[cfg(not(unix))]
unsafe fn open_global(path: &std::path::Path) -> Result<libloading::Library, libloading::Error> {
    libloading::Library::new(path)
}
