"""Mixed precision: the classes of operators, nesting, the cache of casts, and the gradient scaler's bookkeeping."""

import math

import flambeau as torch
import pytest


def test_classes_of_operators():
    x = torch.randn(3, 4)
    layer = torch.nn.Linear(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert (x @ x.T).dtype == torch.bfloat16
        assert torch.cat([y, torch.ones(3, 1)], 1).dtype == torch.float32
        assert torch.nn.functional.mse_loss(y, y).dtype == torch.float32
        assert torch.nn.functional.cross_entropy(y, torch.tensor([0, 1, 2])).dtype == torch.float32
        assert y.prod().dtype == torch.float32
        assert (x.double() @ x.double().T).dtype == torch.float64
        assert y.add_(1).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert (x @ x.T).dtype == torch.float32
        assert (x @ x.T).dtype == torch.bfloat16
    assert (x @ x.T).dtype == torch.float32
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_a_parameter_changed_between_regions_is_cast_again():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    with torch.autocast("cpu"):
        before = weight @ weight
    with torch.no_grad():
        weight.mul_(2)
    with torch.autocast("cpu"):
        after = weight @ weight
    assert before.tolist() == [[2, 2], [2, 2]] and after.tolist() == [[8, 8], [8, 8]]


def test_decorator_and_state_after_an_exception():
    @torch.autocast("cpu", dtype=torch.float16)
    def product(a):
        if a.dim() != 2:
            raise ValueError("two dimensions")
        return a @ a

    assert product(torch.ones(2, 2)).dtype == torch.float16
    with pytest.raises(ValueError):
        product(torch.ones(2))
    assert not torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_scaler_skips_and_adapts():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    scaler.scale((weight * 0.5).sum()).backward()
    assert weight.grad.tolist() == [4, 4]
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0.5, 0.5] and scaler.get_scale() == 16
    weight.grad = torch.tensor([math.inf, 1.0])
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0.5, 0.5] and scaler.get_scale() == 8
    other = torch.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
