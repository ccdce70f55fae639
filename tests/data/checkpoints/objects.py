"""The objects of this folder's files, made with any module that has PyTorch's interface.

`python objects.py` writes the files; it needs PyTorch itself, which nothing else here does.
"""

import collections
import pathlib

DTYPES = (
    "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 complex128"
).split()


def objects(T):
    """Names and objects, the same for every module: values are counted, not drawn."""
    count = T.arange(10, dtype=T.float32)
    made = {f"dtype_{name}": (T.arange(6).view(3, 2) % 2).to(getattr(T, name)) for name in DTYPES}
    parameter = T.nn.Parameter(T.ones(2))
    parameter.tag = "hello"
    tensor = T.ones(2)
    tensor.note = [1, {"deep": 2}]
    model = T.nn.Sequential(T.nn.Linear(3, 4), T.nn.BatchNorm1d(4), T.nn.ReLU(), T.nn.Linear(4, 2))
    for p in model.parameters():
        p.data = T.arange(p.numel(), dtype=T.float32).view(p.shape) / 8
    optimizer = T.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    for p in model.parameters():
        p.grad = T.zeros_like(p)
    optimizer.step()
    momentum = T.optim.SGD([{"params": [T.nn.Parameter(T.ones(3))], "lr": 0.5}, {"params": [T.nn.Parameter(T.ones(1))]}], lr=0.1, momentum=0.9)
    schedule = T.optim.lr_scheduler.StepLR(momentum, 2)
    made |= {
        "view": count[2:7],
        "strided": count[::3],
        "transposed": count.view(2, 5).t(),
        "expanded": T.ones(1, 3).expand(4, 3),
        "scalar": T.tensor(3.5),
        "empty": T.empty(0, 3),
        "empty_middle": T.empty(2, 0, 3, dtype=T.int64),
        "channels_last": T.arange(24.0).view(1, 2, 3, 4).to(memory_format=T.channels_last),
        "requires_grad": T.ones(2, requires_grad=True),
        "parameter": T.nn.Parameter(count.clone()),
        "frozen_parameter": T.nn.Parameter(T.ones(2), requires_grad=False),
        "parameter_with_attribute": parameter,
        "tensor_with_attribute": tensor,
        "shared": {"whole": count, "part": count[3:], "square": count[:9].view(3, 3)},
        "same_twice": [count, count],
        "state_dict": model.state_dict(),
        "adam": optimizer.state_dict(),
        "sgd": momentum.state_dict(),
        "schedule": schedule.state_dict(),
        "training": {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": 0.25},
        "number": 7,
        "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**31, 2**100, -(2**100), 0.1, -0.0, float("inf")],
        "text": ["", "a", "ünïcödé ✓", "x" * 300],
        "bytes": [b"", b"abc\x00\xff", bytearray(b"xyz")],
        "nothing": None,
        "truth": (True, False),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": [[[{"x": (T.ones(1), {"y": [T.zeros(2)]})}]]],
        "ordered": collections.OrderedDict([("b", 1), ("a", T.ones(1))]),
        "counter": collections.Counter("abracadabra"),
        "set": {1, 2, 3},
        "complex_number": 2 + 3j,
        "size": T.Size([2, 3]),
        "dtype": [T.float32, T.int64, T.bfloat16],
        "device": T.device("cpu"),
        "keys": {1: "a", "b": 2, (1, 2): 3, None: 4, 0.5: 5},
        "long_list": list(range(3000)),
        "many_tensors": {f"layer.{i}.weight": T.full((3,), float(i)) for i in range(300)},
    }
    return made


if __name__ == "__main__":
    import torch

    folder = pathlib.Path(__file__).parent
    for name, value in objects(torch).items():
        torch.save(value, folder / f"{name}.pt")
        torch.save(value, folder / f"{name}.legacy.pt", _use_new_zipfile_serialization=False)
