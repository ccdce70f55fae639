//! Where a tensor's memory is.

use crate::{err, Result};
use std::fmt;

/// A device, as PyTorch writes it: `cpu`, `cuda:0`, `meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Device {
    #[default]
    Cpu,
    /// A CUDA device by its index.
    Cuda(u16),
    /// Shapes and dtypes without memory.
    Meta,
}

impl Device {
    /// Parses `"cpu"`, `"cuda"`, `"cuda:1"`, `"meta"`.
    ///
    /// # Errors
    /// `Runtime` for an unknown device type or a malformed index.
    pub fn parse(text: &str) -> Result<Device> {
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => {
                (kind, index.parse::<u16>().map_err(|_| err!(Runtime, "Invalid device string: '{text}'"))?)
            }
            None => (text, 0),
        };
        match kind {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(index)),
            "meta" => Ok(Device::Meta),
            _ => Err(err!(Runtime, "Expected one of cpu, cuda, meta device type at start of device string: {text}")),
        }
    }
    /// The device type alone: `"cpu"`, `"cuda"`, `"meta"`.
    pub fn kind(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Meta => "meta",
        }
    }
    /// The index that PyTorch shows: none for the CPU and meta devices.
    pub fn index(self) -> Option<u16> {
        match self {
            Device::Cuda(i) => Some(i),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cuda(i) => write!(f, "cuda:{i}"),
            other => f.write_str(other.kind()),
        }
    }
}
