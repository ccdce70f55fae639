"""`grid_sampler*`, and what the losses and unpooling refuse."""

import flambeau as fl
import flambeau.nn.functional as F
import pytest


@pytest.mark.parametrize("dims", [2, 3])
def test_numbered_modes_are_the_named_ones(dims: int) -> None:
    x = fl.arange(2 * 3**dims, dtype=fl.float32).reshape([1, 2, *[3] * dims])
    grid = fl.linspace(-1.2, 1.2, 4**dims * dims).reshape([1, *[4] * dims, dims])
    own = getattr(fl, f"grid_sampler_{dims}d")
    for m, mode in enumerate(("bilinear", "nearest")):
        for p, padding in enumerate(("zeros", "border", "reflection")):
            want = F.grid_sample(x, grid, mode, padding, True)
            assert fl.equal(fl.grid_sampler(x, grid, m, p, True), want)
            assert fl.equal(own(x, grid, m, p, True), want)


def test_grid_sampler_refuses_other_ranks_and_modes() -> None:
    x, grid = fl.zeros(1, 1, 2, 2), fl.zeros(1, 2, 2, 2)
    with pytest.raises(RuntimeError, match="grid_sampler_3d"):
        fl.grid_sampler_3d(x, grid, 0, 0, False)
    with pytest.raises(RuntimeError, match="interpolation_mode"):
        fl.grid_sampler(x, grid, 3, 0, False)


def test_losses_and_unpooling_refuse_before_they_compute() -> None:
    x = fl.zeros(5, 4)
    for loss in (F.multi_margin_loss, F.multilabel_margin_loss):
        with pytest.raises(ValueError, match="abc is not a valid value for reduction"):
            loss(x, fl.zeros(5), reduction="abc")
    with pytest.raises(ValueError, match="weight must be one-dimensional"):
        F.multi_margin_loss(x, fl.zeros(5), weight=fl.zeros(()))
    with pytest.raises(RuntimeError, match="batched input"):
        F.linear_cross_entropy(fl.zeros(3), fl.zeros(2, 4, 3), fl.zeros(4, dtype=fl.int64))
    with pytest.raises(RuntimeError, match="shape of indices"):
        F.max_unpool2d(fl.zeros(1, 1, 4, 4), fl.zeros(1, 1, 4, 1, dtype=fl.int64), 3)
