"""Tensors to and from NumPy and other libraries."""

from __future__ import annotations

import flambeau as torch
import numpy as np
import pytest
from flambeau.utils import dlpack


def test_numpy_shares_memory_by_dlpack():
    x = torch.rand(3, 4)
    array = np.from_dlpack(x)
    array[0, 0] = 7
    assert x[0, 0] == 7
    back = torch.from_dlpack(array.T)
    assert back.shape == (4, 3) and back.stride() == (1, 4)
    back[0, 1] = 9
    assert array[1, 0] == 9


@pytest.mark.parametrize(
    "name",
    ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64",
     "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"],
)  # fmt: skip
def test_every_dtype_travels_by_dlpack(name):
    x = torch.ones(2, 3).to(getattr(torch, name))
    y = torch.from_dlpack(x)
    assert y.dtype == x.dtype and y.data_ptr() == x.data_ptr()
    z = dlpack.from_dlpack(dlpack.to_dlpack(x.t()))
    assert z.stride() == (1, 3) and z.data_ptr() == x.data_ptr()


def test_dlpack_arguments():
    x = torch.arange(6.0)
    assert x.__dlpack_device__() == (1, 0)
    assert torch.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()
    assert torch.from_dlpack(x, device="cpu").data_ptr() == x.data_ptr()
    capsule = dlpack.to_dlpack(x)
    dlpack.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="consumed only once"):
        dlpack.from_dlpack(capsule)
    with pytest.raises(BufferError, match="require gradient"):
        x.requires_grad_().__dlpack__()


def test_an_unused_capsule_and_a_dead_tensor_free_their_memory():
    for _ in range(3):
        dlpack.to_dlpack(torch.rand(1000))
        array = np.from_dlpack(torch.full((1000,), 3.0))
        assert (array == 3).all()


def test_empty_and_scalar_tensors_travel():
    for shape in [(), (0,), (2, 0, 3)]:
        x = torch.zeros(shape)
        assert torch.from_dlpack(x).shape == x.shape
        assert np.from_dlpack(x).shape == shape


def test_numpys_functions_return_tensors():
    x = torch.ones(3)
    for result in (np.sin(x), np.add(x, 1), x + np.ones(3)):
        assert isinstance(result, torch.Tensor)
    assert (x + np.ones(3)).dtype == torch.float64 and np.isnan(x).dtype == torch.uint8


@pytest.mark.parametrize("kind", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_every_dtype_of_numpy_shares_memory(kind):
    array = np.arange(6).astype(kind).reshape(2, 3)[:, ::2]
    x = torch.from_numpy(array)
    assert x.shape == array.shape and x.data_ptr() == array.ctypes.data and x.numpy().dtype == array.dtype
    assert x.tolist() == array.tolist() and (torch.tensor(array) == x).all()
    assert (torch.ones(2) + array[1, 1]).shape == (2,)


@pytest.mark.parametrize("kind", ["S3", "U2", "O", "datetime64[s]", "longdouble", ">i4"])
def test_arrays_of_other_things_are_refused(kind):
    with pytest.raises((TypeError, ValueError)):
        torch.from_numpy(np.array([0, 1]).astype(kind))


def test_numbers_of_numpy_are_operands():
    for number in (np.float16(2), np.float64(2), np.longdouble(2), np.int8(2), np.uint64(2), np.bool_(True)):
        assert (torch.ones(2) * number).tolist() == [float(number)] * 2 and (torch.ones(2) * number).dtype == torch.float32
