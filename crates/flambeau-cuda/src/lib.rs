//! Flambeau's CUDA backend. Kernels are CUDA C text, compiled at first use: by NVRTC on a GPU, or by the host's C++
//! compiler on the emulated device (`FLAMBEAU_CUDA=emulated`), which needs no GPU and is what the tests run on.
//!
//! Nothing here links to CUDA: the driver, NVRTC and cuBLAS are opened at run time, and a machine without them simply
//! has no CUDA device.

mod allocator;
mod args;
mod attention;
mod backend;
mod cache;
mod catalogue;
mod codegen;
mod compiler;
mod cudarc_driver;
mod driver;
mod elementwise;
mod emulator;
mod index;
mod libraries;
mod matmul;
mod optimizer;
mod reduce;
mod rows;
mod sort;
mod window;

use backend::CudaBackend;
pub use catalogue::all_kernel_sources;
pub use compiler::compile_with_nvrtc;
pub use driver::{Driver, Event, Extent, Function};
pub use libraries::add_library_path;

use flambeau_core::{bail, Backend, Result};
use std::sync::OnceLock;

fn is_emulated() -> bool {
    std::env::var_os("FLAMBEAU_CUDA").is_some_and(|v| v == "emulated")
}

/// Whether there is a CUDA device: a driver with at least one, or the emulated device where it can work. Never an error.
pub fn is_available() -> bool {
    device_count() > 0
}

/// How many devices there are; 0 without a driver.
pub fn device_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| if is_emulated() { emulator::is_available() as usize } else { cudarc_driver::device_count() })
}

/// Device `index`, opened at the first call.
///
/// # Errors
/// `Runtime` when there is no driver or no such device.
pub(crate) fn device(index: u16) -> Result<&'static CudaBackend> {
    static DEVICES: OnceLock<Vec<OnceLock<Result<CudaBackend>>>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| (0..device_count().max(1)).map(|_| OnceLock::new()).collect());
    let Some(slot) = devices.get(index as usize) else {
        bail!(Runtime, "CUDA error: invalid device ordinal: cuda:{index} of {} devices", device_count());
    };
    let opened = slot.get_or_init(|| {
        let driver: Box<dyn Driver> = if is_emulated() {
            Box::new(emulator::Emulator::open()?)
        } else {
            Box::new(cudarc_driver::Cuda::open(index as usize)?)
        };
        CudaBackend::new(index, driver)
    });
    opened.as_ref().map_err(Clone::clone)
}

/// The backend of device `index`, opened at the first call.
///
/// # Errors
/// `Runtime` that says what is missing when there is no driver or no such device.
pub fn backend(index: u16) -> Result<&'static dyn Backend> {
    Ok(device(index)?)
}

/// The device's name, as the driver gives it.
///
/// # Errors
/// As [`backend`].
pub fn device_name(index: u16) -> Result<String> {
    Ok(device(index)?.driver.name())
}

/// The device's compute capability (major, minor).
///
/// # Errors
/// As [`backend`].
pub fn device_capability(index: u16) -> Result<(i32, i32)> {
    Ok(device(index)?.driver.capability())
}

/// Bytes free on the device and bytes that it has.
///
/// # Errors
/// As [`backend`].
pub fn memory_info(index: u16) -> Result<(usize, usize)> {
    Ok(device(index)?.driver.memory())
}

/// The device's driver, for launches and timing outside the families.
///
/// # Errors
/// As [`backend`].
pub fn driver(index: u16) -> Result<&'static dyn Driver> {
    Ok(&*device(index)?.driver)
}
