//! Moving tensors between devices, and values out of tensors.

use crate::apply::{allocate, backend, run_operands};
use crate::autograd::node::Vjp;
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, BATCHED, SPARSE};
use flambeau_core::*;
use parking_lot::Mutex;

/// Copies a tensor to another device; its gradient travels back.
#[derive(Clone)]
struct ToDevice(Device);
impl Primitive for ToDevice {
    fn name(&self) -> &'static str {
        "to_copy"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push_strided(copy_dims(&x[0].sizes), preserve_strides(&x[0].sizes, &x[0].strides), x[0].dtype);
        Ok(())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        Err(err!(Runtime, "to: copies between devices do not run as kernels"))
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let g = match &g[0] {
            Some(g) => Some(to_device(g, cx.info(0).device)?),
            None => None,
        };
        Ok(SmallVec::from_iter([g]))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(match self.0 {
            Device::Cpu => 0,
            Device::Meta => 1,
            Device::Cuda(i) => 2 + i as u64,
        });
    }
    crate::shareable!();
}

/// The same values on `device`; the same tensor when it is there already.
///
/// # Errors
/// `Runtime` when there is no such device, `NotImplemented` for meta tensors.
pub fn to_device(t: &Tensor, device: Device) -> Result<Tensor> {
    if t.device() == device {
        return Ok(t.clone());
    }
    if let Some(b) = t.as_batched() {
        return Ok(Tensor::batched(&to_device(&b.value, device)?, b.dim, b.level));
    }
    if let Some(s) = t.as_sparse() {
        let values = to_device(&s.values, device)?;
        let pointers = s.pointers.as_ref().map(|p| to_device(p, device)).transpose()?;
        let parts = crate::tensor::Sparse { indices: to_device(&s.indices, device)?, pointers, values, ..(*s).clone() };
        return Ok(Tensor::from_sparse(&t.sizes(), parts));
    }
    let dense = {
        let m = t.meta();
        m.lazy == 0 && is_non_overlapping_and_dense(&m.sizes, &m.strides)
    };
    let source = if dense { t.clone() } else { crate::ops::view::clone(t)? };
    let m = source.meta().clone();
    let nbytes = numel(&m.sizes) as usize * m.dtype.size();
    let storage = allocate(nbytes, device)?;
    if nbytes > 0 && device != Device::Meta {
        copy_between(m.operand()?.ptr, m.device(), storage.ptr()?, device, nbytes)?;
    }
    let out = Tensor::from_storage(storage, m.dtype, &m.sizes, &m.strides, 0);
    if crate::mode::grad_enabled() && source.requires_grad() {
        use crate::autograd::node::{Edge, InputInfo, Node};
        let info = InputInfo::of(&m);
        if let Some(edge) = source.gradient_edge()? {
            let result = InputInfo::of(&out.meta());
            let node = Node::unary(std::sync::Arc::new(ToDevice(device)), info, edge, result);
            out.set_edge(Edge { node, nr: 0 });
        }
    }
    Ok(out)
}

/// Raw copy of bytes from one device to another.
fn copy_between(from: *mut u8, from_device: Device, to: *mut u8, to_device: Device, nbytes: usize) -> Result<()> {
    match (from_device, to_device) {
        (Device::Cpu, d) => backend(d)?.upload(from, to, nbytes),
        (d, Device::Cpu) => backend(d)?.download(from, to, nbytes),
        (a, b) if a == b => backend(a)?.copy_bytes(from, to, nbytes),
        (a, b) => {
            let mut host = vec![0u8; nbytes];
            backend(a)?.download(from, host.as_mut_ptr(), nbytes)?;
            backend(b)?.upload(host.as_ptr(), to, nbytes)
        }
    }
}

/// The tensor on the CPU, row-major, its value computed.
///
/// # Errors
/// The failure of a pending computation, or a device error.
pub fn to_cpu_contiguous(t: &Tensor) -> Result<Tensor> {
    let _off = crate::mode::no_grad();
    let t = to_device(&t.detach(), Device::Cpu)?;
    let t = crate::ops::view::contiguous(&crate::ops::view::resolve(&t)?)?;
    t.data_ptr()?;
    Ok(t)
}

/// The value of a one-element tensor.
///
/// # Errors
/// `Runtime` when there is not exactly one element.
pub fn item(t: &Tensor) -> Result<Number> {
    if t.flags() & (BATCHED | SPARSE) != 0 {
        return item_of_another(t);
    }
    let m = t.meta();
    if m.lazy != 0 {
        drop(m);
        return item(&crate::ops::view::resolve(&t.detach())?);
    }
    ensure!(m.numel() == 1, Runtime, "a Tensor with {} elements cannot be converted to Scalar", m.numel());
    let size = m.dtype.size();
    let from = m.data_ptr()?;
    if m.device() == Device::Cpu {
        // SAFETY: the tensor has one element of `size` bytes at `from`, host memory.
        return Ok(decode(m.dtype, unsafe { std::slice::from_raw_parts(from, size) }));
    }
    let mut bytes = [0u8; 16];
    backend(m.device())?.download(from, bytes.as_mut_ptr(), size)?;
    Ok(decode(m.dtype, &bytes))
}

/// [`item`] of a tensor that has no memory of its own.
#[cold]
fn item_of_another(t: &Tensor) -> Result<Number> {
    ensure!(
        t.as_batched().is_none(),
        Batch,
        "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on a Tensor, \
         please try to rewrite what you're doing with other operations."
    );
    ensure!(t.numel() == 1, Runtime, "a Tensor with {} elements cannot be converted to Scalar", t.numel());
    item(&crate::ops::sparse::to_dense(&t.detach(), None)?)
}

/// One element from its bytes.
#[inline(always)]
pub fn decode(dtype: DType, b: &[u8]) -> Number {
    macro_rules! read {
        ($t:ty) => {{
            let mut raw = [0u8; std::mem::size_of::<$t>()];
            raw.copy_from_slice(&b[..std::mem::size_of::<$t>()]);
            <$t>::from_le_bytes(raw)
        }};
    }
    match dtype {
        DType::Bool => Number::Bool(b[0] != 0),
        DType::U8 => Number::Int(b[0] as i64),
        DType::I8 => Number::Int(b[0] as i8 as i64),
        DType::I16 => Number::Int(read!(i16) as i64),
        DType::I32 => Number::Int(read!(i32) as i64),
        DType::I64 => Number::Int(read!(i64)),
        DType::U16 => Number::Int(read!(u16) as i64),
        DType::U32 => Number::Int(read!(u32) as i64),
        DType::U64 => Number::Int(read!(u64) as i64),
        DType::F16 => Number::Float(f16::from_bits(read!(u16)).to_f64()),
        DType::BF16 => Number::Float(bf16::from_bits(read!(u16)).to_f64()),
        DType::F32 => Number::Float(read!(f32) as f64),
        DType::F64 => Number::Float(read!(f64)),
        DType::C64 => {
            let (re, im) = (read!(f32), {
                let b = &b[4..];
                let mut raw = [0u8; 4];
                raw.copy_from_slice(&b[..4]);
                f32::from_le_bytes(raw)
            });
            Number::Complex(Complex64::new(re as f64, im as f64))
        }
        DType::C128 => {
            let (re, im) = (read!(f64), {
                let b = &b[8..];
                let mut raw = [0u8; 8];
                raw.copy_from_slice(&b[..8]);
                f64::from_le_bytes(raw)
            });
            Number::Complex(Complex64::new(re, im))
        }
        DType::C32 => {
            let part = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f64();
            Number::Complex(Complex64::new(part(0), part(2)))
        }
        DType::F8E4M3 => Number::Float(float8(b[0], 4, 3, 7, false)),
        DType::F8E5M2 => Number::Float(float8(b[0], 5, 2, 15, true)),
    }
}

/// Decodes an 8-bit float with the given widths and bias; `ieee` formats have infinities.
fn float8(x: u8, ebits: u32, mbits: u32, bias: i32, ieee: bool) -> f64 {
    let sign = if x & 0x80 != 0 { -1.0 } else { 1.0 };
    let e = (x >> mbits) as u32 & ((1 << ebits) - 1);
    let m = (x & ((1 << mbits) - 1)) as f64;
    let scale = (1u32 << mbits) as f64;
    let top = (1 << ebits) - 1;
    if ieee && e == top {
        return if m == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    if !ieee && x & 0x7f == 0x7f {
        return f64::NAN;
    }
    if e == 0 {
        sign * m / scale * 2f64.powi(1 - bias)
    } else {
        sign * (1.0 + m / scale) * 2f64.powi(e as i32 - bias)
    }
}

/// The values of an integer tensor, row-major.
///
/// # Errors
/// The failure of a pending computation.
pub fn to_vec_i64(t: &Tensor) -> Result<Vec<i64>> {
    t.to_vec::<i64>()
}

/// Runs a primitive on the host for a device that lacks its family, with one warning for each.
pub(crate) fn run_through_host(op: &dyn Primitive, device: Device, x: &[Operand], out: &[Operand]) -> Result<()> {
    static WARNED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    {
        let mut warned = WARNED.lock();
        if !warned.contains(&op.name()) {
            warned.push(op.name());
            eprintln!("flambeau: {} has no kernel on {device}; it runs through the host (said once)", op.name());
        }
    }
    let from = backend(device)?;
    let cpu = backend(Device::Cpu)?;
    let mut blocks = Vec::new();
    let mut host = |o: &Operand, load: bool| -> Result<*mut u8> {
        let nbytes = (extent(o.sizes, o.strides) as usize) * o.dtype.size();
        let storage = Storage::new(cpu.alloc(nbytes.max(1))?, Device::Cpu);
        let ptr = storage.ptr()?;
        if load && nbytes > 0 {
            from.download(o.ptr, ptr, nbytes)?;
        }
        blocks.push(storage);
        Ok(ptr)
    };
    // Outputs are loaded too: a strided output has gaps that must survive, and an update reads what it writes.
    let mut map: Vec<(*mut u8, *mut u8)> = Vec::new();
    let mut hosted = |o: &Operand| -> Result<*mut u8> {
        if let Some((_, h)) = map.iter().find(|(d, _)| *d == o.ptr) {
            return Ok(*h);
        }
        let h = host(o, true)?;
        map.push((o.ptr, h));
        Ok(h)
    };
    let mut inputs: Vec<Operand> = Vec::new();
    for o in x {
        inputs.push(Operand { ptr: hosted(o)?, device: Device::Cpu, ..*o });
    }
    let mut outputs: Vec<Operand> = Vec::new();
    for o in out {
        outputs.push(Operand { ptr: hosted(o)?, device: Device::Cpu, ..*o });
    }
    run_operands(op, Device::Cpu, &inputs, &outputs)?;
    for (o, h) in out.iter().zip(&outputs) {
        let nbytes = (extent(o.sizes, o.strides) as usize) * o.dtype.size();
        if nbytes > 0 {
            from.upload(h.ptr, o.ptr, nbytes)?;
        }
    }
    Ok(())
}
