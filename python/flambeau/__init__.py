"""Flambeau: PyTorch's system on a Rust core.

`import flambeau as torch` is the intended use. The extension supplies tensors and operators; this package holds what
is better said in Python: modules, optimizers, data loading, transforms. What a program may not need is imported when
it is first named.
"""

from __future__ import annotations

import math as _math
import sys as _sys
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import Any

from . import _flambeau
from ._flambeau import *  # noqa: F403
from ._flambeau import Generator, Size, Tensor, default_generator, device, dtype, is_grad_enabled, manual_seed

__version__ = getattr(_flambeau, "__version__", "0.1.0")

pi = _math.pi
inf = _math.inf
nan = _math.nan
e = _math.e
newaxis = None

# Imported on first use: `flambeau.optim` is a module the first program line that names it pays for.
_LAZY_MODULES = frozenset(
    {
        "amp", "autograd", "backends", "compiler", "cpu", "cuda", "distributions", "func", "futures", "hub", "jit", "linalg",
        "multiprocessing", "nn", "optim", "overrides", "profiler", "random", "serialization", "special", "fft", "testing",
        "masked", "signal", "utils", "vision", "audio", "text", "distributed", "sparse", "accelerator", "version", "types", "mps", "xpu", "mtia", "export",
        "array_api", "fx", "library", "nested", "onnx", "ops",
    }
)  # fmt: skip

# Names of this level that live in a module of their own.
_LAZY_NAMES = {
    "compile": "compiler",
    "save": "serialization",
    "load": "serialization",
    "vmap": "func",
    "get_rng_state": "random",
    "set_rng_state": "random",
    "seed": "random",
    "initial_seed": "random",
    "fork_rng": "random",
    "Future": "futures",
    "Stream": "_streams",
    "Event": "_streams",
    "TensorType": "jit",
    "from_dlpack": "utils.dlpack",
    "to_dlpack": "utils.dlpack",
    "autocast": "amp",
    "GradScaler": "amp",
    **dict.fromkeys(
        (
            "get_autocast_cpu_dtype", "get_autocast_dtype", "get_autocast_gpu_dtype", "is_autocast_cpu_enabled",
            "is_autocast_enabled", "set_autocast_cpu_dtype", "set_autocast_cpu_enabled", "set_autocast_dtype",
            "set_autocast_enabled", "set_autocast_gpu_dtype",
        ),
        "amp.autocast_mode",
    ),
}

# The namespaces that hold operators, and the modules that stand for them.
_NAMESPACES = ("special", "linalg", "fft", "nn.functional")


def _operators_of(namespace: str) -> dict[str, Any]:
    """The extension's operators of a dotted namespace, by their last name."""
    prefix = namespace + "."
    return {name[len(prefix) :]: f for name, f in _flambeau.operators.items() if name.startswith(prefix)}


def _install_operators() -> None:
    """Places every top-level operator here, and makes modules of the namespaces that have no file of their own."""
    here = globals()
    for name, function in _flambeau.operators.items():
        if "." not in name:
            here[name] = function
    for namespace in ("special", "linalg", "fft"):
        module = _ModuleType(f"{__name__}.{namespace}", f"Operators of flambeau.{namespace}.")
        found = _operators_of(namespace)
        module.__dict__.update(found)
        module.__dict__["__all__"] = sorted(found)
        _sys.modules[module.__name__] = here[namespace] = module
    for alias, name in (("finfo", "finfo"), ("iinfo", "iinfo"), ("memory_format", "memory_format")):
        if hasattr(_flambeau, name):
            here[alias] = getattr(_flambeau, name)


_install_operators()
for _name in ("LinAlgError", "_LinAlgError"):
    if hasattr(_flambeau, _name):
        linalg.LinAlgError = getattr(_flambeau, _name)  # type: ignore[name-defined]  # noqa: F405
        break
del _name

from .autograd.grad_mode import (  # noqa: E402
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from .functional import *  # noqa: E402, F403
from .storage import *  # noqa: E402, F403

for _overriding, _function in _flambeau.operators.items():
    if "." not in _overriding:
        globals()[_overriding] = _function

from . import _checks, _foreach, _members, _typed, nn  # noqa: E402  # noqa: E402
from ._array_api import __array_api_version__, __array_namespace_info__  # noqa: E402, F401
from ._array_api import install as _install_array_api  # noqa: E402
from .nn.functional import cosine_similarity, pairwise_distance  # noqa: E402, F401

_members.install()
globals().update({name: getattr(_checks, name) for name in _checks.NAMES})
for _name, _function in {**_foreach.functions(), **_typed.types(__name__, cuda=False)}.items():
    globals().setdefault(_name, _function)
del _name, _function
_install_array_api(globals())


def is_tensor(obj: Any) -> bool:
    """Whether an object is a tensor."""
    return isinstance(obj, Tensor)


def is_storage(obj: Any) -> bool:
    """Whether an object is a storage."""
    return isinstance(obj, (TypedStorage, UntypedStorage))  # noqa: F405


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on."""
    return _flambeau.is_inference_mode_enabled()  # type: ignore[no-any-return]


def typename(obj: Any) -> str:
    """The type of an object, as PyTorch spells it."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    cls = type(obj)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted for compatibility: every result is deterministic already."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: results are the same at any thread count and from run to run."""
    return True


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """False: nothing is left to warn about."""
    return False


def get_device_module(device: Any = None) -> _ModuleType:
    """The module of a kind of device: `flambeau.cuda`, `flambeau.cpu`."""
    if device is None:
        kind = "cuda" if _flambeau._cuda_is_available() else "cpu"
    elif isinstance(device, (str, _flambeau.device)):
        kind = _flambeau.device(device).type
    else:
        raise RuntimeError(f"Invalid value of device '{device}', expect device, str, or None")
    if kind not in _LAZY_MODULES:
        raise RuntimeError(f"Device '{kind}' does not have a corresponding module registered as 'torch.{kind}'.")
    return _import_module(f"{__name__}.{kind}")


_float32_matmul_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted for compatibility: float32 products are computed in float32."""
    global _float32_matmul_precision
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"precision must be 'highest', 'high' or 'medium', not {precision!r}")
    _float32_matmul_precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was given."""
    return _float32_matmul_precision


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        try:
            return _import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as failure:
            if failure.name != f"{__name__}.{name}":
                raise
    elif name in _LAZY_NAMES:
        value = getattr(_import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
        globals()[name] = value
        return value
    elif not name.startswith("__") and hasattr(_flambeau, name):
        return getattr(_flambeau, name)
    if name in _NO_DTYPES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}': {_NO_DTYPES[name]}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


# Dtypes that there are none of, and what to use.
_NO_DTYPES = {
    **dict.fromkeys(
        ("qint8", "quint8", "qint32", "quint4x2", "quint2x4"),
        "there are no quantized dtypes; keep an integer tensor beside its scale and zero point",
    ),
    **dict.fromkeys(("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), "use float8_e4m3fn, float8_e5m2 or bfloat16"),
    "float4_e2m1fn_x2": "there is no dtype of four bits; pack two into uint8",
}


def __dir__() -> list[str]:
    from importlib.util import find_spec

    return sorted({*globals(), *_LAZY_NAMES, *(m for m in _LAZY_MODULES if find_spec(f"{__name__}.{m}"))})


torch = _sys.modules[__name__]  # `torch.torch`, which is PyTorch's own module

__all__ = [
    "Generator",
    "Size",
    "Tensor",
    "default_generator",
    "device",
    "dtype",
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_tensor",
    "manual_seed",
    "nn",
    "no_grad",
    "set_grad_enabled",
]
