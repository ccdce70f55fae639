"""What a report of a fault should say of the machine."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any


def get_env_info() -> dict[str, Any]:
    """Versions and devices, by name."""
    import importlib.metadata

    from .. import __version__, _flambeau

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    count = _flambeau._cuda_device_count()
    return {
        "flambeau": __version__,
        "Python": sys.version.split()[0],
        "platform": platform.platform(),
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": _flambeau.get_num_threads(),
        "CUDA devices": [_flambeau._cuda_device_name(i) for i in range(count)],
        "numpy": version("numpy"),
    }


def get_pretty_env_info() -> str:
    """The same as text."""
    return "\n".join(f"{name}: {value}" for name, value in get_env_info().items())


def main() -> None:
    """Prints it."""
    print(get_pretty_env_info())


if __name__ == "__main__":
    main()
