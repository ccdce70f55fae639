"""Attention whose scores and masks are functions of the positions.

A function is called once with index tensors that broadcast against each other, which gives what a call for every
(batch, head, query, key) would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ... import _flambeau
from ..._flambeau import Tensor
from .. import functional as F

_BLOCK = 128


class AuxRequest(NamedTuple):
    """What `flex_attention` returns beside the result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What was asked for by `AuxRequest`."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


FlexKernelOptions = dict[str, Any]


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """Every query sees every key."""
    return _flambeau.ones((), dtype=_flambeau.bool, device=batch.device)


def and_masks(*mask_mods: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mask of the places that all of `mask_mods` let through."""
    _require_callable("and_masks", mask_mods)

    def both(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        result = _flambeau.ones((), dtype=_flambeau.bool, device=b.device)
        for mask in mask_mods:
            result = result & mask(b, h, q, kv)
        return result

    return both


def or_masks(*mask_mods: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mask of the places that one of `mask_mods` lets through."""
    _require_callable("or_masks", mask_mods)

    def either(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        result = _flambeau.zeros((), dtype=_flambeau.bool, device=b.device)
        for mask in mask_mods:
            result = result | mask(b, h, q, kv)
        return result

    return either


def _require_callable(name: str, functions: Any) -> None:
    if not all(callable(f) for f in functions):
        raise RuntimeError(f"All inputs should be callable mask_mods: {name}({functions})")


def _places(batch: int, heads: int, queries: int, keys: int, device: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def index(n: int, *shape: int) -> Tensor:
        return _flambeau.arange(n, device=device).view(*shape)

    return index(batch, -1, 1, 1, 1), index(heads, 1, -1, 1, 1), index(queries, 1, 1, -1, 1), index(keys, 1, 1, 1, -1)


def create_mask(
    mod_fn: Callable[..., Tensor], B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None
) -> Tensor:
    """The values of a mask function (or, for a function of five arguments, of a score function on zeros) as one tensor."""
    b, h = B or 1, H or 1
    places = _places(b, h, Q_LEN, KV_LEN, device)
    import inspect

    taken = [p for p in inspect.signature(mod_fn).parameters.values() if p.default is p.empty]
    if len(taken) == 5:
        zero = _flambeau.zeros(b, h, Q_LEN, KV_LEN, device=device)
        return mod_fn(zero, *places).expand(b, h, Q_LEN, KV_LEN)
    return mod_fn(*places).expand(b, h, Q_LEN, KV_LEN)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are set, and all columns, those that are set first."""
    count = blocks.sum(dim=-1).to(_flambeau.int32)
    order = blocks.to(_flambeau.int32).argsort(dim=-1, descending=True, stable=True)
    return count, order.to(_flambeau.int32)


def _unlisted(count: Tensor, indices: Tensor, columns: int) -> Tensor:
    """Blocks from their lists."""
    used = _flambeau.arange(indices.shape[-1], device=indices.device) < count.unsqueeze(-1)
    dense = _flambeau.zeros(*count.shape, columns, dtype=_flambeau.int32, device=count.device)
    return dense.scatter_reduce(-1, indices.long(), used.to(_flambeau.int32), "amax")


class BlockMask:
    """Which blocks of the matrix of scores are looked at, and which of those wholly.

    `kv_num_blocks` and `kv_indices` list, for each row of blocks, those that the mask cuts; `full_…` those that it lets through whole.
    """

    def __init__(
        self,
        seq_lengths: tuple[int, int],
        kv_num_blocks: Tensor,
        kv_indices: Tensor,
        full_kv_num_blocks: Tensor | None = None,
        full_kv_indices: Tensor | None = None,
        q_num_blocks: Tensor | None = None,
        q_indices: Tensor | None = None,
        full_q_num_blocks: Tensor | None = None,
        full_q_indices: Tensor | None = None,
        BLOCK_SIZE: tuple[int, int] = (_BLOCK, _BLOCK),
        mask_mod: Callable[..., Tensor] = noop_mask,
        **_: Any,
    ) -> None:
        if kv_indices.dim() < 2:
            raise RuntimeError("BlockMask must have at least 2 dimensions")
        if (full_kv_num_blocks is None) != (full_kv_indices is None):
            raise AssertionError("full_kv_num_blocks and full_kv_indices must be both provided or omitted")
        self.seq_lengths, self.BLOCK_SIZE, self.mask_mod = seq_lengths, BLOCK_SIZE, mask_mod
        self.kv_num_blocks, self.kv_indices = kv_num_blocks, kv_indices
        self.full_kv_num_blocks, self.full_kv_indices = full_kv_num_blocks, full_kv_indices
        self.q_num_blocks, self.q_indices = q_num_blocks, q_indices
        self.full_q_num_blocks, self.full_q_indices = full_q_num_blocks, full_q_indices

    @classmethod
    def from_kv_blocks(
        cls,
        kv_num_blocks: Tensor,
        kv_indices: Tensor,
        full_kv_num_blocks: Tensor | None = None,
        full_kv_indices: Tensor | None = None,
        BLOCK_SIZE: int | tuple[int, int] = _BLOCK,
        mask_mod: Callable[..., Tensor] | None = None,
        seq_lengths: tuple[int, int] | None = None,
        compute_q_blocks: bool = True,
    ) -> BlockMask:
        """A mask from the lists of its rows."""
        size = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
        columns = kv_indices.shape[-1]
        if seq_lengths is None:
            seq_lengths = (kv_indices.shape[-2] * size[0], columns * size[1])
        by_column: list[Tensor | None] = []
        for count, indices in ((kv_num_blocks, kv_indices), (full_kv_num_blocks, full_kv_indices)):
            if count is None or indices is None or not compute_q_blocks:
                by_column += [None, None]
            else:
                by_column += _listed(_unlisted(count, indices, columns).transpose(-2, -1))
        return cls(
            seq_lengths,
            kv_num_blocks,
            kv_indices,
            full_kv_num_blocks,
            full_kv_indices,
            *by_column,
            size,
            mask_mod or noop_mask,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch dimensions, queries, keys."""
        return (*self.kv_indices.shape[:-2], *self.seq_lengths)

    def numel(self) -> int:
        """How many scores there are, seen or not."""
        return math.prod(self.shape)

    def sparsity(self) -> float:
        """The percentage of scores that is not computed."""
        blocks = int(self.kv_num_blocks.sum())
        if self.full_kv_num_blocks is not None:
            blocks += int(self.full_kv_num_blocks.sum())
        total = self.numel()
        return 100 * (1 - blocks * self.BLOCK_SIZE[0] * self.BLOCK_SIZE[1] / total)

    def to_dense(self) -> Tensor:
        """1 for each block that is looked at."""
        columns = self.kv_indices.shape[-1]
        dense = _unlisted(self.kv_num_blocks, self.kv_indices, columns)
        if self.full_kv_num_blocks is not None:
            dense = dense | _unlisted(self.full_kv_num_blocks, self.full_kv_indices, columns)  # type: ignore[arg-type]
        return dense

    def to(self, device: Any) -> BlockMask:
        """The mask on another device."""
        names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices", "q_num_blocks", "q_indices",
                 "full_q_num_blocks", "full_q_indices")  # fmt: skip
        moved = {n: None if getattr(self, n) is None else getattr(self, n).to(device) for n in names}
        return BlockMask(self.seq_lengths, **moved, BLOCK_SIZE=self.BLOCK_SIZE, mask_mod=self.mask_mod)

    def __str__(self) -> str:
        dense = self.to_dense().tolist()
        parts = []
        for place in itertools.product(*map(range, self.shape[:-2])):
            blocks = dense
            for i in place:
                blocks = blocks[i]
            rows = ["".join("██" if x else "  " for x in row) for row in blocks]
            parts.append("\n".join([str(place), *rows, ""]))
        return f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%, \n" + "\n".join(parts) + ")"

    def __repr__(self) -> str:
        return str(self)


def create_block_mask(
    mask_mod: Callable[..., Tensor],
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: Any = None,
    BLOCK_SIZE: int | tuple[int, int] = _BLOCK,
    _compile: bool = False,
    separate_full_blocks: bool = True,
    **_: Any,
) -> BlockMask:
    """The blocks that a mask function lets through, in part or whole."""
    rows, columns = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    mask = create_mask(mask_mod, B, H, Q_LEN, KV_LEN, device)
    pad_q, pad_kv = -Q_LEN % rows, -KV_LEN % columns
    padded = F.pad(mask.contiguous(), [0, pad_kv, 0, pad_q])
    b, h, q, kv = padded.shape
    counts = padded.view(b, h, q // rows, rows, kv // columns, columns).sum(dim=(-3, -1))
    full = counts == rows * columns
    partial = (counts > 0) & ~full if separate_full_blocks else counts > 0
    lists = [*_listed(partial), *(_listed(full) if separate_full_blocks else (None, None))]
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=(rows, columns), mask_mod=mask_mod, seq_lengths=(Q_LEN, KV_LEN))


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor] | None = None,
    block_mask: BlockMask | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: FlexKernelOptions | None = None,
    *,
    return_aux: AuxRequest | None = None,
) -> Any:
    """softmax(score_mod(query · keyᵀ · scale)) · value over [B, H, L, E], where `block_mask` lets through.

    Rows that see no key are zero. With `enable_gqa`, the heads of keys and values are shared by groups of query heads.
    """
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dim() != 4:
            raise NotImplementedError(f"NYI: query, key, and value must be 4D tensors; {name} has {t.dim()} dimensions")
    if query.dtype != key.dtype or query.dtype != value.dtype:
        raise ValueError(
            "Expected query, key, and value to have the same dtype, "
            f"but got query.dtype: {query.dtype}, key.dtype: {key.dtype}, and value.dtype: {value.dtype} instead."
        )
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads != kv_heads:
        if not enable_gqa:
            raise ValueError(
                f"Expect query and key/value to have the same number of heads but got Hq={heads} and Hkv={kv_heads}. Try setting "
                "enable_gqa=True for GQA."
            )
        if heads % kv_heads != 0:
            raise ValueError(
                f"Expect number of query heads to be a multiple of kv heads for GQA but got Hq={heads} and Hkv={kv_heads}."
            )
        key, value = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (key, value))
    batch, queries, keys = query.shape[0], query.shape[-2], key.shape[-2]
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    half = query.dtype in (_flambeau.float16, _flambeau.bfloat16)
    scores = query @ key.transpose(-2, -1) * factor
    if half:
        scores = scores.float()
    places = _places(batch, heads, queries, keys, query.device)
    if score_mod is not None:
        scores = score_mod(scores, *places).expand(batch, heads, queries, keys)
    if block_mask is not None:
        if queries > block_mask.seq_lengths[0] or keys > block_mask.seq_lengths[1]:
            raise ValueError(
                f"block_mask was created for block_mask.shape={block_mask.shape} but got q_len={queries} and kv_len={keys}."
            )
        rows, columns = block_mask.BLOCK_SIZE
        count = block_mask.kv_indices.shape[-1]

        def spread(blocks: Tensor) -> Tensor:
            wide = blocks.bool().repeat_interleave(rows, -2).repeat_interleave(columns, -1)
            return wide[..., :queries, :keys]

        seen = spread(_unlisted(block_mask.kv_num_blocks, block_mask.kv_indices, count)) & block_mask.mask_mod(*places)
        if block_mask.full_kv_num_blocks is not None:
            seen = seen | spread(_unlisted(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, count))  # type: ignore[arg-type]
        scores = scores.masked_fill(~seen, -math.inf)
    lse = scores.logsumexp(dim=-1)
    weights = scores.softmax(dim=-1)
    # A row that sees nothing has no largest score.
    weights = weights.masked_fill((lse == -math.inf).unsqueeze(-1), 0.0)
    result = weights.to(query.dtype) @ value
    if return_aux is not None:
        peak = scores.amax(dim=-1) if return_aux.max_scores else None
        return result, AuxOutput(lse if return_aux.lse else None, peak)
    return (result, lse) if return_lse else result


__all__ = [
    "AuxOutput", "AuxRequest", "BlockMask", "FlexKernelOptions", "and_masks", "create_block_mask", "create_mask", "flex_attention",
    "noop_mask", "or_masks",
]  # fmt: skip
