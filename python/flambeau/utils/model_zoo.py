"""The older names of `flambeau.hub`'s functions."""

from __future__ import annotations

from ..hub import download_url_to_file as _download_url_to_file
from ..hub import load_state_dict_from_url as load_url

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None  # type: ignore[assignment,misc]

__all__ = ["_download_url_to_file", "load_url", "tqdm"]
