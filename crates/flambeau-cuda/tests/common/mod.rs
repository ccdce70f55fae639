//! What the tests on the emulated device share.
// Each test binary uses its own part.
#![allow(dead_code)]

use flambeau_core::*;

/// The emulated device, or none where it cannot work.
pub fn device() -> Option<&'static dyn Backend> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // Set before anything of the crate looks at it; tests wait here for one another.
    ONCE.call_once(|| std::env::set_var("FLAMBEAU_CUDA", "emulated"));
    if !flambeau_cuda::is_available() {
        println!("skipped: no C++ compiler for the emulated CUDA device");
        return None;
    }
    Some(flambeau_cuda::backend(0).expect("the emulated device opens"))
}

/// A tensor on the device: memory, dtype and layout.
pub struct Tensor {
    storage: std::sync::Arc<Storage>,
    dtype: DType,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

impl Tensor {
    pub fn empty(b: &dyn Backend, dtype: DType, sizes: &[i64]) -> Tensor {
        let n = numel(sizes) as usize * dtype.size();
        let storage = Storage::new(b.alloc(n).unwrap(), b.device());
        Tensor { storage, dtype, sizes: sizes.to_vec(), strides: contiguous_strides(sizes).to_vec(), offset: 0 }
    }
    pub fn bytes(b: &dyn Backend, dtype: DType, sizes: &[i64], bytes: &[u8]) -> Tensor {
        let t = Tensor::empty(b, dtype, sizes);
        assert_eq!(bytes.len(), numel(sizes) as usize * dtype.size());
        b.upload(bytes.as_ptr(), t.storage.ptr().unwrap(), bytes.len()).unwrap();
        t
    }
    pub fn f32(b: &dyn Backend, sizes: &[i64], values: &[f32]) -> Tensor {
        Tensor::bytes(b, DType::F32, sizes, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }
    pub fn f64(b: &dyn Backend, sizes: &[i64], values: &[f64]) -> Tensor {
        Tensor::bytes(b, DType::F64, sizes, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }
    pub fn i64(b: &dyn Backend, sizes: &[i64], values: &[i64]) -> Tensor {
        Tensor::bytes(b, DType::I64, sizes, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }
    pub fn view(&self, sizes: &[i64], strides: &[i64], offset: i64) -> Tensor {
        Tensor {
            storage: self.storage.clone(),
            dtype: self.dtype,
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
            offset,
        }
    }
    pub fn op(&self) -> Operand<'_> {
        Operand {
            ptr: self.storage.ptr().unwrap().wrapping_offset((self.offset * self.dtype.size() as i64) as isize),
            dtype: self.dtype,
            sizes: &self.sizes,
            strides: &self.strides,
            device: Device::Cuda(0),
        }
    }
    /// All bytes of the memory.
    pub fn raw(&self, b: &dyn Backend) -> Vec<u8> {
        let mut out = vec![0u8; self.storage.nbytes()];
        b.download(self.storage.ptr().unwrap(), out.as_mut_ptr(), out.len()).unwrap();
        out
    }
    pub fn to_f32(&self, b: &dyn Backend) -> Vec<f32> {
        assert_eq!(self.dtype, DType::F32);
        self.raw(b).chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    }
    pub fn to_f64(&self, b: &dyn Backend) -> Vec<f64> {
        assert_eq!(self.dtype, DType::F64);
        self.raw(b).chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect()
    }
    pub fn to_i64(&self, b: &dyn Backend) -> Vec<i64> {
        assert_eq!(self.dtype, DType::I64);
        self.raw(b).chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect()
    }
}

/// Numbers in -1..1 that look random.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[track_caller]
pub fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (*g as f64 - w).abs();
        assert!(error <= tolerance * (1.0 + w.abs()) || (g.is_nan() && w.is_nan()), "at {i}: {g} instead of {w}");
    }
}

pub const F: Input = Input::Operand(Class::F32);

pub fn apply(f: ScalarFn, class: Class, args: [u16; 4]) -> Step {
    Step { op: StepOp::Apply(f), class, args }
}

/// A program that hands its operand on.
pub fn identity(class: Class) -> [Input; 1] {
    [Input::Operand(class)]
}
