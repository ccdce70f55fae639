"""Weights and models by address, kept in a folder of this user's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")
MODULE_HUBCONF = "hubconf.py"
VAR_DEPENDENCY = "dependencies"
_CHUNK = 128 << 10
_hub_dir: str | None = None


class _Progress:
    """Progress of a download on stderr, by tqdm where it is installed."""

    def __new__(cls, total: int | None, shown: bool) -> Any:
        try:
            from tqdm import tqdm

            return tqdm(total=total, disable=not shown, unit="B", unit_scale=True, unit_divisor=1024)
        except ImportError:
            return super().__new__(cls)

    def __init__(self, total: int | None, shown: bool) -> None:
        self.total, self.shown, self.done = total, shown, 0

    def update(self, n: int) -> None:
        """`n` bytes more."""
        self.done += n
        if self.shown:
            share = f" of {self.total / 1e6:.1f}" if self.total else ""
            sys.stderr.write(f"\r{self.done / 1e6:.1f}{share} MB")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self.shown:
            sys.stderr.write("\n")


def _get_torch_home() -> str:
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder where models and weights are kept: that of `set_dir`, else `$TORCH_HOME/hub`, else `~/.cache/torch/hub`."""
    return _hub_dir if _hub_dir is not None else os.path.join(_get_torch_home(), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Says where models and weights are kept."""
    global _hub_dir
    _hub_dir = os.path.expanduser(os.fspath(d))


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Writes what is at `url` to the file `dst`, which appears only when it is whole. With `hash_prefix`, the file's SHA-256 has to
    begin so.
    """
    from urllib.request import Request, urlopen

    dst = os.path.expanduser(dst)
    with urlopen(Request(url, headers={"User-Agent": "flambeau.hub"})) as source:
        length = source.headers.get("Content-Length") if source.headers is not None else None
        total = int(length) if length else None
        digest = hashlib.sha256()
        folder = os.path.dirname(os.path.abspath(dst))
        handle, temporary = tempfile.mkstemp(prefix=os.path.basename(dst) + ".", suffix=".partial", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file, _Progress(total, progress) as bar:
                while block := source.read(_CHUNK):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
            found = digest.hexdigest()
            if hash_prefix is not None and found[: len(hash_prefix)] != hash_prefix:
                raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{found}")')
            os.replace(temporary, dst)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
            raise


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """What `flambeau.load` makes of the file at `url`, which is downloaded once. With `check_hash` the name has to hold the beginning
    of the file's SHA-256, as in `resnet18-f37072fd.pth`.

    Files are never unpickled by running what they say; `weights_only=False` admits the classes that `serialization` knows.
    """
    from .serialization import load

    folder = os.path.join(get_dir(), "checkpoints") if model_dir is None else model_dir
    os.makedirs(folder, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        found = HASH_REGEX.search(name) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress=progress)
    return load(path, map_location=map_location, weights_only=weights_only)


@contextlib.contextmanager
def _on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _parse(repo: str) -> tuple[str, str, str]:
    """Owner, name and reference of `owner/name[:reference]`."""
    where, _, reference = repo.partition(":")
    owner, slash, name = where.partition("/")
    if not slash:
        raise ValueError(f"{repo!r} does not name a repository: expected owner/name[:reference]")
    return owner, name, reference or "main"


def _fetch(repo: str, force_reload: bool, verbose: bool, trust_repo: bool | str | None) -> str:
    """The folder of a repository of GitHub, downloaded once."""
    import zipfile

    owner, name, reference = _parse(repo)
    os.makedirs(get_dir(), exist_ok=True)
    folder = os.path.join(get_dir(), "_".join((owner, name, reference.replace("/", "_"))))
    _check_trust(owner, name, trust_repo)
    if os.path.exists(folder) and not force_reload:
        if verbose:
            sys.stderr.write(f"Using cache found in {folder}\n")
        return folder
    with tempfile.TemporaryDirectory(dir=get_dir()) as scratch:
        archive = os.path.join(scratch, "source.zip")
        download_url_to_file(f"https://github.com/{owner}/{name}/zipball/{reference}", archive, progress=False)
        with zipfile.ZipFile(archive) as opened:
            top = opened.infolist()[0].filename.split("/")[0]
            opened.extractall(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(os.path.join(scratch, top), folder)
    return folder


def _check_trust(owner: str, name: str, trust_repo: bool | str | None) -> None:
    """A repository's code runs in this process: who has not said so is asked."""
    listed = os.path.join(get_dir(), "trusted_list")
    known = []
    if os.path.exists(listed):
        with open(listed, encoding="utf-8") as file:
            known = file.read().split()
    key = f"{owner}_{name}"
    if trust_repo is True or key in known:
        pass
    elif trust_repo is False or trust_repo in (None, "check"):
        answer = input(f"The repository {owner}/{name} is not trusted, and its code would run. Trust it (y/N)? ")
        if answer.strip().lower() not in ("y", "yes"):
            raise RuntimeError("Untrusted repository.")
    else:
        raise ValueError(f"trust_repo has to be a bool, None or 'check', not {trust_repo!r}")
    if key not in known:
        with open(listed, "a", encoding="utf-8") as file:
            file.write(key + "\n")


def _configuration(repo: str, source: str, force_reload: bool, verbose: bool, trust_repo: Any) -> tuple[Any, str]:
    import importlib.util

    if source not in ("github", "local"):
        raise ValueError(f'Unknown source: "{source}". Allowed values: "github" | "local".')
    folder = _fetch(repo, force_reload, verbose, trust_repo) if source == "github" else repo
    path = os.path.join(folder, MODULE_HUBCONF)
    with _on_path(folder):
        spec = importlib.util.spec_from_file_location(MODULE_HUBCONF, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    missing = [d for d in getattr(module, VAR_DEPENDENCY, ()) if importlib.util.find_spec(d) is None and d != "torch"]
    if missing:
        raise RuntimeError(f"Missing dependencies: {', '.join(missing)}")
    return module, folder


def _entry(module: Any, name: str) -> Any:
    if not isinstance(name, str):
        raise ValueError("Invalid input: model should be a string of function name")
    found = getattr(module, name, None)
    if not callable(found):
        raise RuntimeError(f"Cannot find callable {name} in hubconf")
    return found


def list(  # noqa: A001
    github: str, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = None, verbose: bool = True,
    source: str = "github",
) -> Any:  # fmt: skip
    """The models that a repository's `hubconf.py` offers."""
    module, _ = _configuration(github, source, force_reload, verbose, trust_repo)
    return [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]


def help(  # noqa: A001
    github: str, model: str, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = None, source: str = "github"
) -> Any:  # fmt: skip
    """What a repository says of a model."""
    module, _ = _configuration(github, source, force_reload, True, trust_repo)
    return _entry(module, model).__doc__


def load(
    repo_or_dir: str,
    model: str,
    *args: Any,
    source: str = "github",
    trust_repo: Any = None,
    force_reload: bool = False,
    verbose: bool = True,
    skip_validation: bool = False,
    **kwargs: Any,
) -> Any:
    """A model of a repository of GitHub (`owner/name[:reference]`), or of a folder with `source="local"`.

    A repository's code runs in this process; it is asked for first unless `trust_repo=True`. Code that imports torch needs
    `python -m flambeau`.
    """
    module, folder = _configuration(repo_or_dir, source, force_reload, verbose, trust_repo)
    with _on_path(folder):
        return _entry(module, model)(*args, **kwargs)


__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url", "set_dir"]
