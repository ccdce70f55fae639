"""`nn.utils`: parametrizations, normalised weights, fused layers, pruning."""

from __future__ import annotations

import copy
from typing import Any

import flambeau
import pytest
from flambeau import nn
from flambeau.nn.utils import parametrizations, parametrize


class _Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).T

    def right_inverse(self, a: Any) -> Any:
        return a.triu()


def test_a_parametrized_weight_is_computed_assigned_and_removed() -> None:
    layer = nn.Linear(3, 3)
    held = layer.weight
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert layer.parametrizations.weight.original is held
    assert layer.weight.equal(layer.weight.T)
    layer(flambeau.ones(1, 3)).sum().backward()
    assert held.grad is not None
    with parametrize.cached():
        assert layer.weight is layer.weight
    layer.weight = flambeau.eye(3)
    assert layer.weight.equal(flambeau.eye(3))
    twin = copy.deepcopy(layer)
    twin.weight = flambeau.zeros(3, 3)
    assert layer.weight.equal(flambeau.eye(3)) and twin.weight.equal(flambeau.zeros(3, 3))
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight is held
    assert parametrize.is_parametrized(twin, "weight")


def test_a_parametrization_may_not_change_the_shape() -> None:
    class First(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[0]

    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="may not change the shape"):
        parametrize.register_parametrization(layer, "weight", First())
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("chosen", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (3, 5)])
def test_orthogonal_weights(chosen: str, sizes: tuple[int, int]) -> None:
    layer = parametrizations.orthogonal(nn.Linear(*sizes), orthogonal_map=chosen)
    for _ in range(2):
        weight = layer.weight
        gram = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
        assert gram.allclose(flambeau.eye(min(sizes)), atol=1e-5)
        layer.zero_grad()
        layer(flambeau.ones(1, sizes[0])).square().sum().backward()
        with flambeau.no_grad():
            for p in layer.parameters():
                p -= 0.1 * p.grad


@pytest.mark.parametrize("module", [nn.utils, parametrizations])
def test_spectral_norm_leaves_a_largest_singular_value_of_one(module: Any) -> None:
    linear = nn.Linear(4, 6)
    # The power iteration converges with the ratio of the two largest singular values, which a draw may bring close together.
    with flambeau.no_grad():
        linear.weight.copy_(flambeau.tensor([4.0, 2.0, 1.0, 0.5]) * flambeau.linalg.qr(flambeau.randn(6, 4))[0])
    layer = module.spectral_norm(linear, n_power_iterations=50)
    layer(flambeau.ones(1, 4))
    assert flambeau.linalg.svdvals(layer.weight)[0].item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("module", [nn.utils, parametrizations])
def test_weight_norm_keeps_the_weight(module: Any) -> None:
    layer = nn.Conv1d(2, 3, 2)
    before = layer.weight.detach().clone()
    module.weight_norm(layer)
    assert layer.weight.allclose(before)
    g = layer.weight_g if module is nn.utils else layer.parametrizations.weight.original0
    assert g.shape == (3, 1, 1)
    with flambeau.no_grad():
        g *= 2
    layer(flambeau.ones(1, 2, 2))
    assert layer.weight.allclose(2 * before)


def test_older_weight_norm_checkpoints_load() -> None:
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(3, 2))
    new = parametrizations.weight_norm(nn.Linear(3, 2))
    new.load_state_dict(old.state_dict())
    x = flambeau.randn(4, 3)
    assert new(x).allclose(old(x))
    nn.utils.remove_weight_norm(old)
    assert sorted(old.state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize("transpose", [False, True])
def test_fused_convolutions_give_the_same(transpose: bool) -> None:
    conv = (nn.ConvTranspose2d if transpose else nn.Conv2d)(2, 3, 3, bias=transpose).eval()
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    x = flambeau.randn(2, 2, 5, 5)
    fused = nn.utils.fuse_conv_bn_eval(conv, norm, transpose)
    assert fused(x).allclose(norm(conv(x)), atol=1e-5)


def test_averaged_models() -> None:
    from flambeau.optim import swa_utils

    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    mean = swa_utils.AveragedModel(model)
    moving = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    values = []
    for i in range(3):
        with flambeau.no_grad():
            model[0].weight.fill_(float(i))
        values.append(float(i))
        mean.update_parameters(model)
        moving.update_parameters(model)
    assert mean.module[0].weight.mean().item() == pytest.approx(1.0)
    assert moving.module[0].weight.mean().item() == pytest.approx(0.5 * (0.5 * 0.0 + 0.5 * 1.0) + 0.5 * 2.0)
    assert int(mean.n_averaged) == 3
    batches = [flambeau.randn(8, 2) for _ in range(3)]
    swa_utils.update_bn(batches, mean)
    expected = flambeau.cat([mean.module[0](b) for b in batches]).mean(0)
    assert mean.module[1].running_mean.allclose(expected, atol=1e-5)
    assert mean.module[1].momentum == 0.1


def test_pruning_masks_and_is_made_permanent() -> None:
    from flambeau.nn.utils import prune

    layer = nn.Linear(4, 3)
    smallest = layer.weight.detach().abs().flatten().argsort()[:4]
    prune.l1_unstructured(layer, "weight", amount=4)
    assert list(layer.state_dict()) == ["bias", "weight_orig", "weight_mask"]
    assert layer.weight.flatten()[smallest].equal(flambeau.zeros(4))
    prune.ln_structured(layer, "weight", amount=1, n=2, dim=0)
    assert int((layer.weight.abs().sum(1) == 0).sum()) == 1
    layer(flambeau.ones(1, 4)).sum().backward()
    assert layer.weight_orig.grad[layer.weight_mask == 0].equal(flambeau.zeros(int((layer.weight_mask == 0).sum())))
    pruned = layer.weight.detach().clone()
    prune.remove(layer, "weight")
    assert not prune.is_pruned(layer) and layer.weight.equal(pruned)
    with pytest.raises(ValueError, match="range"):
        prune.random_unstructured(layer, "weight", amount=1.5)
    other = nn.Linear(2, 2)
    prune.global_unstructured([(layer, "weight"), (other, "weight")], prune.L1Unstructured, amount=12)
    assert int((layer.weight == 0).sum() + (other.weight == 0).sum()) == 12
