"""The recurrences of RNN, GRU and LSTM over time, layers and directions.

The product of the inputs with `weight_ih` is made for all steps at once; only the recurrent product is inside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from . import functional as F


def lstm_cell(gates_x: Tensor, h: Tensor, c: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """One LSTM step; `gates_x` is the input's part of the gates (input, forget, cell, output)."""
    i, f, g, o = (gates_x + F.linear(h, w_hh, b_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(gates_x: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> Tensor:
    """One GRU step; `gates_x` is the input's part of the gates (reset, update, new)."""
    r_x, z_x, n_x = gates_x.chunk(3, 1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, 1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return n + z * (h - n)


def _rnn_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def step(gates_x: Tensor, states: tuple[Tensor, ...], w_hh: Tensor, b_hh: Tensor | None, w_hr: Any) -> tuple[Tensor, ...]:
        return (activation(gates_x + F.linear(states[0], w_hh, b_hh)),)

    return step


def _gru_step(gates_x: Tensor, states: tuple[Tensor, ...], w_hh: Tensor, b_hh: Tensor | None, w_hr: Any) -> tuple[Tensor, ...]:
    return (gru_cell(gates_x, states[0], w_hh, b_hh),)


def _lstm_step(gates_x: Tensor, states: tuple[Tensor, ...], w_hh: Tensor, b_hh: Tensor | None, w_hr: Any) -> tuple[Tensor, ...]:
    h, c = lstm_cell(gates_x, states[0], states[1], w_hh, b_hh)
    return (h if w_hr is None else F.linear(h, w_hr)), c


_STEPS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "RNN_TANH": _rnn_cell(lambda t: t.tanh()),
    "RNN_RELU": _rnn_cell(lambda t: t.relu()),
    "GRU": _gru_step,
    "LSTM": _lstm_step,
}


def _fused(mode: str, gates: Tensor, states: tuple[Tensor, ...], w_hh: Tensor, w_hr: Tensor | None) -> bool:
    """Whether all steps of a layer go through one kernel."""
    return (
        mode == "LSTM"
        and w_hr is None
        and gates.device.type == "cpu"
        and gates.dtype in (_flambeau.float32, _flambeau.float64)
        and all(t.dtype == gates.dtype for t in (*states, w_hh))
        and gates.shape[0] > 0
        and gates.shape[1] > 0
    )


def run(
    mode: str,
    input: Tensor,
    states: tuple[Tensor, ...],
    weights: Sequence[Sequence[Tensor]],
    *,
    bias: bool,
    num_layers: int,
    bidirectional: bool,
    dropout: float,
    batch_sizes: list[int] | None,
    projected: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers over [T, N, C], or over a packed [sum(batch_sizes), C]; gives the outputs and the final states."""
    cat, stack = _flambeau.operators["cat"], _flambeau.operators["stack"]
    if batch_sizes is None and input.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    directions = 2 if bidirectional else 1
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            initial = tuple(s[index] for s in states)
            output, final = _layer(mode, input, initial, weights[index], bias, direction == 1, batch_sizes, projected)
            outputs.append(output)
            finals.append(final)
        input = outputs[0] if directions == 1 else cat(outputs, -1)
        if dropout > 0 and layer + 1 < num_layers:
            input = F.dropout(input, dropout, True)
    return input, tuple(stack(list(column), 0) for column in zip(*finals, strict=True))


def _layer(
    mode: str,
    input: Tensor,
    states: tuple[Tensor, ...],
    weights: Sequence[Tensor],
    bias: bool,
    reverse: bool,
    batch_sizes: list[int] | None,
    projected: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    cat, stack = _flambeau.operators["cat"], _flambeau.operators["stack"]
    w_ih, w_hh = weights[0], weights[1]
    b_ih, b_hh = (weights[2], weights[3]) if bias else (None, None)
    w_hr = weights[-1] if projected else None
    step = _STEPS[mode]
    if batch_sizes is None and mode == "LSTM":
        # All biases with the inputs' product, made in the order in which the inputs lie in memory.
        b = b_ih if b_ih is None or b_hh is None else b_ih + b_hh
        batch_first = input.stride(0) < input.stride(1)
        gates = F.linear(input.transpose(0, 1), w_ih, b).transpose(0, 1) if batch_first else F.linear(input, w_ih, b)
        b_hh = None
        if _fused(mode, gates, states, w_hh, w_hr):
            output, cell = _flambeau.operators["_lstm"](gates, states[0], states[1], w_hh, reverse)
            return output, (output[0 if reverse else -1], cell)
    else:
        gates = F.linear(input, w_ih, b_ih)
    if batch_sizes is None:
        rows = list(gates.unbind(0))
        results: list[Tensor] = []
        for gates_x in reversed(rows) if reverse else rows:
            states = step(gates_x, states, w_hh, b_hh, w_hr)
            results.append(states[0])
        if reverse:
            results.reverse()
        return stack(results, 0), states
    # Packed: sequences are sorted by length, so that a step's rows are the first ones of the state.
    rows = list(gates.split(batch_sizes, 0))
    results = []
    if not reverse:
        finished: list[tuple[Tensor, ...]] = []
        for gates_x in rows:
            size = gates_x.shape[0]
            if size < states[0].shape[0]:
                finished.append(tuple(s[size:] for s in states))
                states = tuple(s[:size] for s in states)
            states = step(gates_x, states, w_hh, b_hh, w_hr)
            results.append(states[0])
        finished.append(states)
        finished.reverse()
        return cat(results, 0), tuple(cat(list(column), 0) for column in zip(*finished, strict=True))
    initial = states
    states = tuple(s[: batch_sizes[-1]] for s in initial)
    for gates_x in reversed(rows):
        size, have = gates_x.shape[0], states[0].shape[0]
        if size > have:
            states = tuple(cat([s, s0[have:size]], 0) for s, s0 in zip(states, initial, strict=True))
        states = step(gates_x, states, w_hh, b_hh, w_hr)
        results.append(states[0])
    results.reverse()
    return cat(results, 0), states
