//! The emulated device (`FLAMBEAU_CUDA=emulated`, for tests): the host's C++ compiler builds the kernels' own text, and blocks run
//! as fibers. It finds missing barriers, invalid launches and bad arithmetic; it cannot see races between blocks.

use crate::cache;
use crate::driver::{Address, Driver, Event, Extent, Function, Gemm};
use flambeau_core::{bail, err, Result};
use parking_lot::Mutex;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

const HEADER: &str = include_str!("emulation/emulation.h");
const RUNTIME: &str = include_str!("emulation/runtime.cpp");
/// Optimised lightly: compiling is what costs. Signed overflow wraps and products are not contracted, as in the kernels on a GPU.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O1",
    "-shared",
    "-fPIC",
    "-fno-exceptions",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-ffp-contract=off",
    "-w",
];

type Entry = unsafe extern "C" fn(*mut *mut c_void, *const u32, usize) -> c_int;

struct State {
    /// Bytes handed out, against the capacity.
    used: usize,
    modules: Vec<libloading::Library>,
    events: Vec<Option<Instant>>,
}

/// A device made of host memory and fibers.
pub struct Emulator {
    compiler: PathBuf,
    version: String,
    directory: PathBuf,
    capacity: usize,
    state: Mutex<State>,
    /// One launch at a time: the scheduler's state is global.
    running: Mutex<()>,
}

fn compiler() -> PathBuf {
    std::env::var_os("FLAMBEAU_CXX").map_or_else(|| PathBuf::from("g++"), PathBuf::from)
}

/// The compiler's version, when there is one that works; asked once.
fn compiler_version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    VERSION
        .get_or_init(|| {
            if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
                return None;
            }
            let output = Command::new(compiler()).arg("--version").output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .as_deref()
}

/// Whether the emulated device can work here: Linux on x86-64 with a C++ compiler (`g++`, or `FLAMBEAU_CXX`).
pub fn is_available() -> bool {
    compiler_version().is_some()
}

impl Emulator {
    /// Opens the device. Its memory is bounded by `FLAMBEAU_CUDA_EMULATED_MEMORY` bytes (4 GiB unless set).
    ///
    /// # Errors
    /// `Runtime` when the host is not Linux on x86-64 or has no C++ compiler, or when the runtime does not build.
    pub fn open() -> Result<Emulator> {
        let Some(version) = compiler_version() else {
            bail!(
                Runtime,
                "the emulated CUDA device needs Linux on x86-64 and g++ (or the compiler named by FLAMBEAU_CXX)"
            );
        };
        let capacity =
            std::env::var("FLAMBEAU_CUDA_EMULATED_MEMORY").ok().and_then(|s| s.parse().ok()).unwrap_or(4 << 30);
        let emulator = Emulator {
            compiler: compiler(),
            version: version.to_owned(),
            directory: cache::directory("cuda-emulated"),
            capacity,
            state: Mutex::new(State { used: 0, modules: Vec::new(), events: Vec::new() }),
            running: Mutex::new(()),
        };
        let runtime = emulator.build(&format!("{HEADER}\n{}", RUNTIME.replace("#include \"emulation.h\"", "")))?;
        emulator.keep_runtime(&runtime)?;
        Ok(emulator)
    }

    #[cfg(unix)]
    fn keep_runtime(&self, path: &Path) -> Result<()> {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the library is our own text; its initialisers do nothing. Global, so that kernels find the scheduler.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
            .map_err(|e| err!(Runtime, "cannot load the emulated device's runtime: {e}"))?;
        self.state.lock().modules.push(library.into());
        Ok(())
    }
    #[cfg(not(unix))]
    fn keep_runtime(&self, _path: &Path) -> Result<()> {
        bail!(Runtime, "the emulated CUDA device needs Linux on x86-64")
    }

    /// The shared object of `text`, from the cache or built now.
    fn build(&self, text: &str) -> Result<PathBuf> {
        let flags = FLAGS.join(" ");
        let name = cache::hash(&[text.as_bytes(), flags.as_bytes(), self.version.as_bytes()]);
        let object = self.directory.join(format!("{name}.so"));
        if object.exists() {
            return Ok(object);
        }
        let source = cache::temporary(&object.with_extension("cpp")).with_extension("tmp.cpp");
        let output = cache::temporary(&object);
        std::fs::write(&source, text).map_err(|e| err!(Runtime, "cannot write {}: {e}", source.display()))?;
        let done = Command::new(&self.compiler).args(FLAGS).arg(&source).arg("-o").arg(&output).output();
        let done = done.map_err(|e| err!(Runtime, "cannot run {}: {e}", self.compiler.display()))?;
        if !done.status.success() {
            let log = String::from_utf8_lossy(&done.stderr).into_owned();
            let _ = std::fs::remove_file(&output);
            bail!(Runtime, "a kernel does not compile for the emulated device ({}):\n{log}", source.display());
        }
        let _ = std::fs::remove_file(&source);
        std::fs::rename(&output, &object).map_err(|e| err!(Runtime, "cannot write {}: {e}", object.display()))?;
        Ok(object)
    }
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "Emulated CUDA device".to_owned()
    }
    fn capability(&self) -> (i32, i32) {
        (8, 0)
    }
    fn is_emulated(&self) -> bool {
        true
    }
    fn alloc(&self, nbytes: usize) -> Result<Option<Address>> {
        let mut state = self.state.lock();
        if nbytes > self.capacity.saturating_sub(state.used) {
            return Ok(None);
        }
        let Ok(layout) = std::alloc::Layout::from_size_align(nbytes.max(1), 256) else {
            return Ok(None);
        };
        // SAFETY: the layout has a size above zero.
        let p = unsafe { std::alloc::alloc(layout) };
        if p.is_null() {
            return Ok(None);
        }
        state.used += nbytes;
        Ok(Some(p as Address))
    }
    unsafe fn free(&self, address: Address, nbytes: usize) {
        self.state.lock().used -= nbytes;
        // SAFETY: the caller's: `address` came from `alloc` with this size, which used this layout.
        std::alloc::dealloc(address as *mut u8, std::alloc::Layout::from_size_align_unchecked(nbytes.max(1), 256));
    }
    unsafe fn h2d(&self, to: Address, from: *const u8, nbytes: usize) -> Result<()> {
        std::ptr::copy(from, to as *mut u8, nbytes);
        Ok(())
    }
    unsafe fn d2h(&self, to: *mut u8, from: Address, nbytes: usize) -> Result<()> {
        std::ptr::copy(from as *const u8, to, nbytes);
        Ok(())
    }
    unsafe fn d2d(&self, to: Address, from: Address, nbytes: usize) -> Result<()> {
        std::ptr::copy(from as *const u8, to as *mut u8, nbytes);
        Ok(())
    }
    unsafe fn memset(&self, to: Address, value: u8, nbytes: usize) -> Result<()> {
        std::ptr::write_bytes(to as *mut u8, value, nbytes);
        Ok(())
    }
    fn load(&self, source: &str, names: &[String]) -> Result<Vec<Function>> {
        let mut text = format!("{HEADER}\n{source}\n");
        for name in names {
            text.push_str(&format!("FLAMBEAU_EXPORT({name})\n"));
        }
        let path = self.build(&text)?;
        // SAFETY: the library is our own generated text; its initialisers do nothing.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|e| err!(Runtime, "cannot load a kernel of the emulated device: {e}"))?;
        let mut functions = Vec::with_capacity(names.len());
        for name in names {
            // SAFETY: FLAMBEAU_EXPORT gives the symbol this type.
            let entry = unsafe { library.get::<Entry>(format!("{name}_emulated").as_bytes()) }
                .map_err(|e| err!(Runtime, "kernel {name} is missing: {e}"))?;
            functions.push(Function(*entry as usize));
        }
        self.state.lock().modules.push(library);
        Ok(functions)
    }
    unsafe fn launch(&self, function: Function, extent: Extent, arguments: *mut c_void) -> Result<()> {
        let _one = self.running.lock();
        // SAFETY: `function` came from `load`, whose libraries stay loaded for the life of the device.
        let entry: Entry = std::mem::transmute(function.0);
        let ([x, y, z], [tx, ty, tz]) = (extent.grid, extent.block);
        let mut list = [arguments];
        match entry(list.as_mut_ptr(), [x, y, z, tx, ty, tz].as_ptr(), extent.shared as usize) {
            0 => Ok(()),
            1 => bail!(Runtime, "CUDA error: a kernel deadlocked: its threads wait at different barriers"),
            2 => bail!(
                Runtime,
                "CUDA error: invalid launch: grid {:?}, block {:?}, shared {}",
                extent.grid,
                extent.block,
                extent.shared
            ),
            _ => bail!(OutOfMemory, "the emulated CUDA device cannot have memory for its threads' stacks"),
        }
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn record(&self) -> Result<Event> {
        let mut state = self.state.lock();
        state.events.push(Some(Instant::now()));
        Ok(Event(state.events.len() - 1))
    }
    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let state = self.state.lock();
        let at = |e: Event| state.events.get(e.0).copied().flatten().ok_or_else(|| err!(Runtime, "unknown CUDA event"));
        Ok(at(to)?.saturating_duration_since(at(from)?).as_secs_f32() * 1e3)
    }
    fn destroy(&self, event: Event) {
        if let Some(slot) = self.state.lock().events.get_mut(event.0) {
            *slot = None;
        }
    }
    unsafe fn gemm(&self, _gemm: &Gemm) -> Result<bool> {
        Ok(false)
    }
    fn memory(&self) -> (usize, usize) {
        (self.capacity - self.state.lock().used, self.capacity)
    }
}
