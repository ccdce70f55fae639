"""Runs PyTorch programs as they are: in such a process `torch` and its submodules are Flambeau's very modules."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import os
import runpy
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

# The interface that is implemented, as programs ask for it.
INTERFACE_VERSION = "2.13.0"

_USAGE = """usage: python -m flambeau SCRIPT [ARGS…]
       python -m flambeau -m MODULE [ARGS…]
       python -m flambeau -c CODE [ARGS…]

Runs a PyTorch program as it is: `import torch` gives Flambeau, in the program, in the libraries that it imports and in the
processes that it starts through multiprocessing."""


def _own(name: str) -> str | None:
    """Flambeau's name for one of PyTorch's modules; None for others."""
    if name == "torch" or name.startswith("torch."):
        return "flambeau" + name[len("torch") :]
    # Companion libraries, where Flambeau has them.
    for library, part in (("torchvision", "vision"), ("torchaudio", "audio"), ("torchtext", "text")):
        if name == library or name.startswith(library + "."):
            return f"flambeau.{part}" + name[len(library) :]
    return None


class _Loader(importlib.abc.Loader):
    def __init__(self, target: str) -> None:
        self._target = target

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        # One identity: the import system takes what is in `sys.modules` afterwards.
        sys.modules[module.__name__] = importlib.import_module(self._target)


class _Distribution(importlib.metadata.Distribution):
    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        if filename in ("METADATA", "PKG-INFO"):
            return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: {INTERFACE_VERSION}\n"
        return None

    def locate_file(self, path: Any) -> Any:
        return os.path.join(os.path.dirname(__file__), path)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        own = _own(fullname)
        if own is None:
            return None
        try:
            found = importlib.util.find_spec(own)
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        spec = importlib.machinery.ModuleSpec(
            fullname, _Loader(own), origin=found.origin, is_package=found.submodule_search_locations is not None
        )
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        name = getattr(context, "name", None)
        if name is None or name.lower() == "torch":
            yield _Distribution("torch")


class TorchVersion(str):
    """A version that compares with strings and tuples by number."""

    @staticmethod
    def _key(version: Any) -> tuple[int, ...]:
        if isinstance(version, str):
            parts = version.split("+", 1)[0].split(".")
            return tuple(int("".join(c for c in p if c.isdigit()) or 0) for p in parts)
        return tuple(int(p) for p in version)

    def _compare(self, other: Any) -> int:
        a, b = self._key(self), self._key(other)
        length = max(len(a), len(b))
        a, b = a + (0,) * (length - len(a)), b + (0,) * (length - len(b))
        return (a > b) - (a < b)

    def __lt__(self, other: Any) -> bool:
        return self._compare(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._compare(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._compare(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._compare(other) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (str, tuple)) and self._compare(other) == 0

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def install() -> None:
    """Makes `torch` Flambeau in this process and in those that multiprocessing starts from it."""
    if any(isinstance(f, _Finder) for f in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    import flambeau

    flambeau.__version__ = TorchVersion(INTERFACE_VERSION)
    _follow_into_children()


def _follow_into_children() -> None:
    from multiprocessing import forkserver, spawn

    original = spawn.get_command_line

    def get_command_line(**given: Any) -> list[str]:
        command = original(**given)
        if "-c" in command:
            at = command.index("-c") + 1
            command[at] = "import flambeau._run; flambeau._run.install(); " + command[at]
        return command

    spawn.get_command_line = get_command_line
    # The server imports this module before it forks.
    preload = forkserver.set_forkserver_preload

    def set_forkserver_preload(modules: list[str]) -> None:
        preload(["flambeau._run_child", *modules])

    forkserver.set_forkserver_preload = set_forkserver_preload
    forkserver._forkserver.set_forkserver_preload(["flambeau._run_child", "__main__"])  # type: ignore[attr-defined]


def _run_script(path: str) -> None:
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        sys.path[0] = path
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    with io.open_code(os.path.abspath(path)) as file:
        code = compile(file.read(), path, "exec")
    # Python puts the folder of the script, links followed, first.
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    _run_code(code, path)


def _run_code(code: types.CodeType, path: str | None) -> None:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if path is not None:
        main.__file__ = path
        main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    args = argv[1:]
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args[0] in ("-m", "-c") and len(args) < 2:
        print(f"flambeau: {args[0]} takes an argument\n{_USAGE}", file=sys.stderr)
        return 2
    if args[0].startswith("-") and args[0] not in ("-m", "-c"):
        print(f"flambeau: unknown option {args[0]}\n{_USAGE}", file=sys.stderr)
        return 2
    install()
    try:
        if args[0] == "-m":
            sys.argv = ["-m", *args[2:]]
            sys.path[0] = os.getcwd()
            runpy._run_module_as_main(args[1], alter_argv=True)  # type: ignore[attr-defined]
        elif args[0] == "-c":
            sys.argv = ["-c", *args[2:]]
            sys.path[0] = ""
            _run_code(compile(args[1], "<string>", "exec"), None)
        else:
            if not os.path.exists(args[0]):
                print(f"flambeau: can't open file {args[0]!r}: no such file", file=sys.stderr)
                return 2
            sys.argv = args
            _run_script(args[0])
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as failure:
        # The program's own frames, as Python would show them.
        trace = failure.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
            trace = trace.tb_next
        sys.excepthook(type(failure), failure.with_traceback(trace), trace)
        return 1
    return 0
