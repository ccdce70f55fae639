//! Tensors in files: the safetensors format, whose headers are checked before anything is read and which holds no code.

use crate::apply::allocate;
use crate::ops::device::to_cpu_contiguous;
use crate::tensor::Tensor;
use flambeau_core::*;
use safetensors::tensor::{serialize_to_file, Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

fn to_format(d: DType) -> Result<Dtype> {
    Ok(match d {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::I16 => Dtype::I16,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::U16 => Dtype::U16,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::C64 => Dtype::C64,
        DType::F8E4M3 => Dtype::F8_E4M3,
        DType::F8E5M2 => Dtype::F8_E5M2,
        DType::C32 | DType::C128 => bail!(Value, "safetensors files cannot hold {} tensors", d.name()),
    })
}
fn from_format(d: Dtype) -> Result<DType> {
    let name = d.to_string();
    DType::ALL
        .iter()
        .copied()
        .find(|t| t.safetensors_name() == name)
        .ok_or_else(|| err!(Value, "the file holds tensors of type {name}, which tensors here cannot have"))
}

/// A contiguous host tensor as the format's writer sees it.
struct Entry {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    nbytes: usize,
}
impl View for &Entry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match self.tensor.data_ptr() {
            // SAFETY: the tensor is contiguous host memory of `nbytes` bytes that lives as long as the entry; writers race with
            // this read as they would with any operator.
            Ok(p) if self.nbytes > 0 => Cow::Borrowed(unsafe { std::slice::from_raw_parts(p, self.nbytes) }),
            _ => Cow::Borrowed(&[]),
        }
    }
    fn data_len(&self) -> usize {
        self.nbytes
    }
}

/// Writes named tensors to a safetensors file. An existing file is replaced only once the new one is complete.
///
/// # Errors
/// `Value` for a dtype that the format lacks, `Runtime` when the file cannot be written.
pub fn save_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, t) in tensors {
        let dtype = to_format(t.dtype()).map_err(|e| e.context(name))?;
        let tensor = to_cpu_contiguous(t)?;
        let shape = tensor.sizes().iter().map(|&n| n as usize).collect();
        let nbytes = tensor.numel() as usize * tensor.dtype().size();
        entries.push((name, Entry { tensor, dtype, shape, nbytes }));
    }
    serialize_to_file(entries.iter().map(|(n, e)| (n.as_str(), e)), metadata, path)
        .map_err(|e| err!(Runtime, "cannot write {}: {e}", path.display()))
}

/// Reads a safetensors file: its tensors in the file's order, on the CPU.
///
/// # Errors
/// `Runtime` when the file cannot be read or is not a valid safetensors file.
pub fn load_safetensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let fail = |e: &dyn std::fmt::Display| err!(Runtime, "cannot read {}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    // SAFETY: the map is read here and dropped; a file that shrinks meanwhile is the hazard of any mapped file.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| fail(&e))?;
    let parsed = SafeTensors::deserialize(&map).map_err(|e| fail(&e))?;
    let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| fail(&e))?;
    let mut out = Vec::with_capacity(parsed.len());
    for name in header.offset_keys() {
        let view = parsed.tensor(&name).map_err(|e| fail(&e))?;
        let dtype = from_format(view.dtype()).map_err(|e| e.context(&name))?;
        let sizes: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        check_sizes(&sizes, dtype)?;
        let bytes = view.data();
        ensure!(
            numel(&sizes) as usize * dtype.size() == bytes.len(),
            Runtime,
            "cannot read {}: the tensor {name} has {} bytes for sizes {}",
            path.display(),
            bytes.len(),
            Shape(&sizes)
        );
        let storage = allocate(bytes.len(), Device::Cpu)?;
        // SAFETY: the storage is fresh and has room for these bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), storage.ptr()?, bytes.len()) };
        out.push((name, Tensor::from_storage(storage, dtype, &sizes, &contiguous_strides(&sizes), 0)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let path = std::env::temp_dir().join(format!("flambeau-io-{}", std::process::id()));
        let a = Tensor::from_slice(&[1.5f32, -2.0, 3.0], &[3, 1]).unwrap();
        let b = Tensor::from_slice::<i64>(&[], &[0]).unwrap();
        save_safetensors(&path, &[("a".into(), a), ("b".into(), b)], None).unwrap();
        let back: HashMap<_, _> = load_safetensors(&path).unwrap().into_iter().collect();
        assert_eq!(back["a"].to_vec::<f32>().unwrap(), [1.5, -2.0, 3.0]);
        assert_eq!(back["b"].sizes()[..], [0]);
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(load_safetensors(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
