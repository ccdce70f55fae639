"""Reads pickles that hold data only: a known set of names, no calls of anything else, no allocation beyond the file's size."""

from __future__ import annotations

import codecs
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

from . import _flambeau, _utils, storage
from ._flambeau import Tensor

# What a program has declared safe: "module.name" as files spell it, and the object.
user_globals: dict[str, Any] = {}

_MAX_KEY_DEPTH = 32


# Classes that PyTorch keeps in other modules than Flambeau: names under `torch.nn.modules` and `torch.optim`.
_HOMES = {
    name: module
    for module, names in {
        "nn.modules.activation": "MultiheadAttention",
        "nn.modules.channelshuffle": "ChannelShuffle",
        "nn.modules.flatten": "Flatten Unflatten",
        "nn.modules.fold": "Fold Unfold",
        "nn.modules.instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d",
        "nn.modules.pixelshuffle": "PixelShuffle PixelUnshuffle",
        "nn.modules.transformer": "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer",
        "nn.modules.upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
        "optim.adadelta": "Adadelta",
        "optim.adagrad": "Adagrad",
        "optim.adamax": "Adamax",
        "optim.adamw": "AdamW",
        "optim.asgd": "ASGD",
        "optim.nadam": "NAdam",
        "optim.radam": "RAdam",
        "optim.rmsprop": "RMSprop",
        "optim.rprop": "Rprop",
        "optim.sparse_adam": "SparseAdam",
    }.items()
    for name in names.split()
}


def file_name(module: str, name: str) -> str:
    """How files spell a global's name: Flambeau's own under PyTorch's modules, Python 2's builtins under Python 3's."""
    if module == "__builtin__":
        module = "builtins"
    if module == "flambeau" or module.startswith("flambeau."):
        rest = module[len("flambeau") :]
        if rest.startswith((".nn.modules.", ".optim.")) and name in _HOMES:
            rest = "." + _HOMES[name]
        module = "torch" + ("" if rest == "._flambeau" else rest)
    return f"{module}.{name}"


def _bytearray(*args: Any) -> bytearray:
    # `bytearray(n)` would allocate what a number says.
    if not args:
        return bytearray()
    if not isinstance(args[0], (bytes, bytearray, list, str)):
        raise UnpicklingError(f"bytearray of a {type(args[0]).__name__} is not read from files")
    return bytearray(*args)


def _bytes(*args: Any) -> bytes:
    if args and not isinstance(args[0], (bytes, bytearray)):
        raise UnpicklingError(f"bytes of a {type(args[0]).__name__} are not read from files")
    return bytes(*args)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise UnpicklingError(f"text in the encoding {encoding!r} is not read from files")
    return codecs.encode(text, encoding)


def _known_globals() -> dict[str, Any]:
    from .nn.parameter import Buffer, Parameter
    from .serialization import _get_layout

    names: dict[str, Any] = {
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
        "builtins.set": set,
        "builtins.complex": complex,
        "builtins.bytearray": _bytearray,
        "builtins.bytes": _bytes,
        "_codecs.encode": _encode,
        "torch.Size": _flambeau.Size,
        "torch.Tensor": Tensor,
        "torch.device": _flambeau.device,
        "torch.nn.parameter.Parameter": Parameter,
        "torch.nn.parameter.Buffer": Buffer,
        "torch.storage.UntypedStorage": storage.UntypedStorage,
        "torch.storage.TypedStorage": storage.TypedStorage,
        "torch.serialization._get_layout": _get_layout,
    }
    for name in ("UntypedStorage", "TypedStorage", *storage._KINDS):
        names[f"torch.{name}"] = getattr(storage, name)
    for name in (
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state",
        "_rebuild_from_type_v2", "_rebuild_sparse_tensor",
    ):  # fmt: skip
        names[f"torch._utils.{name}"] = getattr(_utils, name)
    names["torch._tensor._rebuild_from_type_v2"] = _utils._rebuild_from_type_v2
    for name in dir(_flambeau):
        if isinstance(getattr(_flambeau, name), _flambeau.dtype):
            names[f"torch.{name}"] = getattr(_flambeau, name)
    return names


_known: dict[str, Any] = {}
# Callables that files may have called, beside the classes a program declared.
_constructors = (OrderedDict, Counter, set, complex, _flambeau.Size, _flambeau.device)


def known_globals() -> dict[str, Any]:
    """Names that files may use without being asked about."""
    if not _known:
        _known.update(_known_globals())
    return _known


class _Mark:
    pass


def _check_key(key: Any, depth: int = 0) -> None:
    # Hashing descends into tuples without end.
    if isinstance(key, (tuple, frozenset)):
        if depth >= _MAX_KEY_DEPTH:
            raise UnpicklingError(f"a dictionary's key is nested more than {_MAX_KEY_DEPTH} levels deep")
        for item in key:
            _check_key(item, depth + 1)


class WeightsUnpickler:
    """One pickle of a stream.

    `limit` is the stream's size in bytes: no string in it can be longer. `persistent_load` makes a storage of what the file
    says about it. Everything else that is wrong with the file is an `UnpicklingError`.
    """

    def __init__(self, file: Any, limit: int, persistent_load: Callable[[Any], Any] | None = None) -> None:
        self._file = file
        self._limit = limit
        self._persistent_load = persistent_load

    def load(self) -> Any:
        """The object.

        Raises `UnpicklingError` for a malformed stream and for names that are not known to be safe.
        """
        try:
            return self._run()
        except (
            TypeError,
            ValueError,
            IndexError,
            KeyError,
            AttributeError,
            OverflowError,
            EOFError,
            struct.error,
        ) as failure:
            reason = f"{type(failure).__name__}: {failure}"
            raise UnpicklingError(f"the file holds no pickle of weights that can be read ({reason})") from failure

    # ---- pieces ------------------------------------------------------------------------------------------

    def _take(self, n: int) -> bytes:
        if n < 0 or n > self._limit:
            raise UnpicklingError(f"the file names a piece of {n} bytes and has {self._limit}")
        data = self._file.read(n)
        if len(data) != n:
            raise EOFError("the file ends inside its pickle")
        return data  # type: ignore[no-any-return]

    def _line(self) -> bytes:
        data = self._file.readline(1 << 16)
        if not data.endswith(b"\n"):
            raise EOFError("the file ends inside its pickle")
        return data[:-1]  # type: ignore[no-any-return]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _find(self, module: str, name: str) -> Any:
        full = file_name(module, name)
        if full in user_globals:
            return user_globals[full]
        known = known_globals()
        if full in known:
            return known[full]
        raise UnpicklingError(
            f"the file refers to {full}, which is not among the names that are known to be harmless. If you trust where the file "
            f"comes from, allow it with torch.serialization.add_safe_globals([{name}]), or read the file with weights_only=False, "
            "which can run code that the file brings along."
        )

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple):
            raise UnpicklingError("a call's arguments are no tuple")
        if isinstance(function, type):
            allowed = function in _constructors or any(function is v for v in user_globals.values())
        else:
            allowed = any(function is v for v in known_globals().values()) or any(
                function is v for v in user_globals.values()
            )
        if not allowed:
            raise UnpicklingError(f"the file calls {function!r}, which is not among what may be called")
        if function in (set, OrderedDict, Counter):
            for items in args:
                for item in items:
                    _check_key(item[0] if function is OrderedDict else item)
        return function(*args)

    def _new(self, kind: Any, args: Any) -> Any:
        if kind in (OrderedDict, Counter) and not args:
            return kind()
        if isinstance(kind, type) and any(kind is v for v in user_globals.values()):
            return kind.__new__(kind, *args)
        raise UnpicklingError(f"the file makes an object of {kind!r}, which is not among the classes that may be made")

    def _build(self, instance: Any, state: Any) -> None:
        kind = type(instance)
        if isinstance(instance, (OrderedDict, Counter)):
            instance.__dict__.update(state)
        elif isinstance(instance, Tensor):
            _utils._set_state(instance, state)
        elif any(kind is v for v in user_globals.values()):
            if hasattr(instance, "__setstate__"):
                instance.__setstate__(state)
            else:
                _utils._set_state(instance, state)
        else:
            raise UnpicklingError(
                f"the file sets the state of a {kind.__name__}, which is not among the classes that have one"
            )

    # ---- the machine -------------------------------------------------------------------------------------

    def _run(self) -> Any:
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        push = stack.append

        def pop_mark() -> list[Any]:
            nonlocal stack, push
            items = stack
            stack = marks.pop()
            push = stack.append
            return items

        def fill(target: Any, pairs: list[Any]) -> None:
            if not isinstance(target, dict):
                raise UnpicklingError(f"items are set in a {type(target).__name__}")
            for i in range(0, len(pairs), 2):
                _check_key(pairs[i])
                target[pairs[i]] = pairs[i + 1]

        def extend(target: Any, items: list[Any]) -> None:
            if isinstance(target, list):
                target.extend(items)
            else:
                raise UnpicklingError(f"items are appended to a {type(target).__name__}")

        while True:
            op = self._file.read(1)
            if not op:
                raise EOFError("the file ends inside its pickle")
            match op:
                case b"q":
                    memo[self._take(1)[0]] = stack[-1]
                case b"h":
                    push(memo[self._take(1)[0]])
                case b"r":
                    memo[self._number("<I")] = stack[-1]
                case b"j":
                    push(memo[self._number("<I")])
                case b"\x94":
                    memo[len(memo)] = stack[-1]
                case b"p":
                    memo[int(self._line())] = stack[-1]
                case b"g":
                    push(memo[int(self._line())])
                case b"K":
                    push(self._take(1)[0])
                case b"M":
                    push(self._number("<H"))
                case b"J":
                    push(self._number("<i"))
                case b"\x8a":
                    push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))
                case b"\x8b":
                    push(int.from_bytes(self._take(self._number("<i")), "little", signed=True))
                case b"G":
                    push(self._number(">d"))
                case b"I":
                    text = self._line()
                    push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))
                case b"L":
                    push(int(self._line().rstrip(b"L")))
                case b"F":
                    push(float(self._line()))
                case b"X":
                    push(self._take(self._number("<I")).decode("utf-8", "surrogatepass"))
                case b"\x8c":
                    push(self._take(self._take(1)[0]).decode("utf-8", "surrogatepass"))
                case b"\x8d":
                    push(self._take(self._number("<Q")).decode("utf-8", "surrogatepass"))
                case b"V":
                    push(self._line().decode("raw-unicode-escape"))
                case b"U":
                    push(self._take(self._take(1)[0]).decode("utf-8"))
                case b"T":
                    push(self._take(self._number("<i")).decode("utf-8"))
                case b"C":
                    push(self._take(self._take(1)[0]))
                case b"B":
                    push(self._take(self._number("<I")))
                case b"\x8e":
                    push(self._take(self._number("<Q")))
                case b"\x96":
                    push(bytearray(self._take(self._number("<Q"))))
                case b"N":
                    push(None)
                case b"\x88":
                    push(True)
                case b"\x89":
                    push(False)
                case b")":
                    push(())
                case b"\x85":
                    stack[-1] = (stack[-1],)
                case b"\x86":
                    stack[-2:] = [(stack[-2], stack[-1])]
                case b"\x87":
                    stack[-3:] = [(stack[-3], stack[-2], stack[-1])]
                case b"t":
                    items = pop_mark()
                    push(tuple(items))
                case b"]":
                    push([])
                case b"a":
                    value = stack.pop()
                    extend(stack[-1], [value])
                case b"e":
                    items = pop_mark()
                    extend(stack[-1], items)
                case b"l":
                    items = pop_mark()
                    push(items)
                case b"}":
                    push({})
                case b"s":
                    value, key = stack.pop(), stack.pop()
                    fill(stack[-1], [key, value])
                case b"u":
                    items = pop_mark()
                    fill(stack[-1], items)
                case b"d":
                    items = pop_mark()
                    push({})
                    fill(stack[-1], items)
                case b"\x8f":
                    push(set())
                case b"\x90":
                    items = pop_mark()
                    for item in items:
                        _check_key(item)
                    if not isinstance(stack[-1], set):
                        raise UnpicklingError("items are added to what is no set")
                    stack[-1].update(items)
                case b"\x91":
                    items = pop_mark()
                    for item in items:
                        _check_key(item)
                    push(frozenset(items))
                case b"(":
                    marks.append(stack)
                    stack = []
                    push = stack.append
                case b"0":
                    if stack:
                        stack.pop()
                    else:
                        pop_mark()
                case b"1":
                    pop_mark()
                case b"2":
                    push(stack[-1])
                case b"c":
                    module = self._line().decode("utf-8")
                    push(self._find(module, self._line().decode("utf-8")))
                case b"\x93":
                    name, module = stack.pop(), stack.pop()
                    if not isinstance(name, str) or not isinstance(module, str):
                        raise UnpicklingError("a global's name is no text")
                    push(self._find(module, name))
                case b"R":
                    args = stack.pop()
                    stack[-1] = self._call(stack[-1], args)
                case b"\x81":
                    args = stack.pop()
                    stack[-1] = self._new(stack[-1], args)
                case b"b":
                    state = stack.pop()
                    self._build(stack[-1], state)
                case b"Q":
                    if self._persistent_load is None:
                        raise UnpicklingError("the file names a storage where none can be")
                    stack[-1] = self._persistent_load(stack[-1])
                case b"\x80":
                    version = self._take(1)[0]
                    if version > 5:
                        raise UnpicklingError(f"unsupported pickle protocol: {version}")
                case b"\x95":
                    self._take(8)
                case b".":
                    return stack.pop()
                case _:
                    raise UnpicklingError(f"the pickle's operation {op!r} is not read from files")
