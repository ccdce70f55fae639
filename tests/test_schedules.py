"""Schedules: what they warn about, and schedules made of schedules."""

from __future__ import annotations

import warnings

import flambeau
import pytest
from flambeau.optim import lr_scheduler


def _optimizer() -> flambeau.optim.SGD:
    return flambeau.optim.SGD([flambeau.nn.Parameter(flambeau.ones(2))], lr=0.1)


def test_a_sequence_sets_its_first_rate_without_a_warning() -> None:
    optimizer = _optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner = lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.ConstantLR(optimizer, 0.5, 2), lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2)],
            milestones=[2],
        )
        rates = []
        for _ in range(6):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            inner.step()
    assert rates == pytest.approx([0.05, 0.05, 0.1, 0.05, 0.1, 0.05])


def test_asking_for_the_next_rate_warns() -> None:
    optimizer = _optimizer()
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    with pytest.warns(UserWarning, match="get_last_lr"):
        schedule.get_lr()
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        schedule.step(3)
    assert schedule.get_last_lr() == pytest.approx([0.1 * 0.5**3])


def test_warm_restarts_keep_their_state() -> None:
    optimizer = _optimizer()
    schedule = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, 2)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    state = schedule.state_dict()
    assert (state["T_cur"], state["T_i"], state["last_epoch"]) == (1, 4, 3)
    assert state["_get_lr_called_within_step"] is False
    again = lr_scheduler.CosineAnnealingWarmRestarts(_optimizer(), 2, 2)
    again.load_state_dict(state)
    schedule.step()
    again.step()
    assert again.get_last_lr() == schedule.get_last_lr()
