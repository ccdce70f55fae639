//! CUDA C to a GPU's code with NVRTC, which needs neither a GPU nor a CUDA toolkit.

use crate::cache;
use crate::libraries;
use cudarc::nvrtc::{result, sys};
use flambeau_core::{bail, err, Result};
use std::ffi::{CStr, CString};
use std::sync::OnceLock;

/// No contraction across recorded operators: products that may be fused say so themselves.
const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false"];

/// NVRTC's version, when the library is there; looked for until it is.
fn version() -> Option<(i32, i32)> {
    static VERSION: OnceLock<(i32, i32)> = OnceLock::new();
    if let Some(v) = VERSION.get() {
        return Some(*v);
    }
    libraries::open_first(&["libnvrtc-builtins", "nvrtc-builtins", "libnvrtc", "nvrtc64"]);
    // SAFETY: asking for a library's presence opens and closes it.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers lead to integers; the library is present.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().ok()?;
    Some(*VERSION.get_or_init(|| (major, minor)))
}

/// Compiles CUDA C for `arch` (`"sm_80"`) to a cubin.
///
/// # Errors
/// `Runtime` when NVRTC is missing, or with the compiler's log.
pub fn compile_with_nvrtc(source: &str, arch: &str) -> Result<Vec<u8>> {
    if version().is_none() {
        bail!(Runtime, "CUDA kernels are compiled with NVRTC, which was not found: install the nvidia-cuda-nvrtc package or a CUDA toolkit");
    }
    let text = CString::new(source).map_err(|_| err!(Runtime, "a kernel's text has a zero byte"))?;
    let program = result::create_program(&text, None).map_err(|e| err!(Runtime, "NVRTC: {e:?}"))?;
    let mut options = vec![format!("--gpu-architecture={arch}")];
    options.extend(OPTIONS.iter().map(|s| s.to_string()));
    // SAFETY: `program` was just created and is destroyed once, below.
    let outcome = unsafe {
        match result::compile_program(program, &options) {
            Ok(()) => cubin(program),
            Err(_) => {
                let log = result::get_program_log(program);
                let log = log.map(|l| CStr::from_ptr(l.as_ptr()).to_string_lossy().into_owned()).unwrap_or_default();
                Err(err!(Runtime, "a kernel does not compile for {arch}:\n{log}"))
            }
        }
    };
    // SAFETY: created above, not used after this.
    unsafe { result::destroy_program(program) }.map_err(|e| err!(Runtime, "NVRTC: {e:?}"))?;
    outcome
}

/// # Safety
/// `program` was compiled for a real architecture.
unsafe fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>> {
    let mut size = 0usize;
    sys::nvrtcGetCUBINSize(program, &mut size).result().map_err(|e| err!(Runtime, "NVRTC: {e:?}"))?;
    let mut bytes = vec![0u8; size];
    sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()).result().map_err(|e| err!(Runtime, "NVRTC: {e:?}"))?;
    Ok(bytes)
}

/// As [`compile_with_nvrtc`], through the user's cache on disk, keyed by text, architecture, options and compiler version.
///
/// # Errors
/// As [`compile_with_nvrtc`].
pub(crate) fn compile_cached(source: &str, arch: &str) -> Result<Vec<u8>> {
    let Some((major, minor)) = version() else {
        return compile_with_nvrtc(source, arch);
    };
    let options = OPTIONS.join(" ");
    let key = format!("{arch} {major}.{minor} {options}");
    let path =
        cache::directory("cuda-kernels").join(format!("{}.cubin", cache::hash(&[source.as_bytes(), key.as_bytes()])));
    if let Ok(bytes) = std::fs::read(&path) {
        return Ok(bytes);
    }
    let bytes = compile_with_nvrtc(source, arch)?;
    cache::write(&path, &bytes);
    Ok(bytes)
}
