"""Distributions: values that PyTorch gives for the same seed and arguments."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import flambeau as torch
import pytest
from flambeau import distributions
from flambeau.distributions import Normal


def test_normal_like_pytorch() -> None:
    torch.manual_seed(3)
    n = Normal(torch.tensor([0.0, 1.0]), 2.0)
    assert n.sample((3,))[0].tolist() == [1.6065521240234375, 1.3496668338775635]
    assert n.rsample().tolist() == [0.674990177154541, 3.0222318172454834]
    assert n.log_prob(torch.tensor([0.5, 2.0])).tolist() == pytest.approx([-1.6433357000350952, -1.7370857000350952])
    assert n.entropy().tolist() == pytest.approx([2.1120858192443848] * 2)
    assert n.icdf(n.cdf(torch.tensor(0.3))).tolist() == pytest.approx([0.3, 0.3], abs=1e-6)
    assert repr(Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
    assert n.expand((3, 2)).batch_shape == (3, 2)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Expected parameter scale .* GreaterThan\(lower_bound=0.0\)"):
        Normal(0.0, -1.0)
    with pytest.raises(ValueError, match=r"within the support \(Real\(\)\)"):
        Normal(0.0, 1.0).log_prob(torch.tensor(math.nan))
    assert Normal(0.0, -1.0, validate_args=False).scale.item() == -1.0


def test_categorical_beside_its_definition() -> None:
    torch.manual_seed(0)
    weights = torch.rand(2, 3, 4)
    from_weights = torch.distributions.Categorical(weights)
    from_logits = torch.distributions.Categorical(logits=weights.log())
    p = weights / weights.sum(-1, keepdim=True)
    for c in (from_weights, from_logits):
        assert c.batch_shape == (2, 3) and c.event_shape == ()
        torch.testing.assert_close(c.probs, p)
        torch.testing.assert_close(c.logits, p.log())
        torch.testing.assert_close(c.entropy(), -(p * p.log()).sum(-1))
        values = c.enumerate_support()
        assert values.shape == (4, 2, 3)
        torch.testing.assert_close(c.log_prob(values).exp().sum(0), torch.ones(2, 3))
        draws = c.sample((20_000,))
        assert draws.shape == (20_000, 2, 3) and draws.dtype == torch.int64
        shares = torch.stack([(draws == k).float().mean(0) for k in range(4)], -1)
        assert (shares - p).abs().max() < 0.02
        assert c.expand((5, 2, 3)).sample().shape == (5, 2, 3)
    # Only what was given is checked; the other parameter is computed when it is asked for.
    assert "logits" not in vars(torch.distributions.Categorical(weights))
    for bad in ({"probs": torch.tensor([-1.0, 2.0])}, {"logits": torch.tensor([0.0, float("nan")])}):
        (name,) = bad
        with pytest.raises(ValueError, match=f"parameter {name}"):
            torch.distributions.Categorical(**bad)
    with pytest.raises(ValueError, match="support"):
        from_weights.log_prob(torch.tensor(4))


VALUES = json.loads((Path(__file__).parent / "data" / "distributions.json").read_text())


def make(source: str) -> Any:
    return eval(source, {**vars(distributions), "torch": torch})  # The checked-in constructor calls.


def near(result: Any, expected: list[Any], tolerance: float = 2e-4) -> None:
    assert result.double().flatten().tolist() == pytest.approx(
        [float(x) for x in expected], rel=tolerance, abs=tolerance, nan_ok=True
    )


@pytest.mark.parametrize("case", VALUES["distributions"], ids=lambda case: case["source"].split("(")[0])
def test_numbers_and_samples_like_pytorch(case: dict[str, Any]) -> None:
    d = make(case["source"])
    assert repr(d) == case["repr"]
    torch.manual_seed(5)
    drawn = d.sample((3,))
    near(drawn, case["sample"])
    values = torch.tensor([float(x) for x in case["sample"]]).reshape(drawn.shape).to(drawn.dtype)
    near(d.log_prob(drawn if "LKJ" in case["source"] else values), case["log_prob"], 1e-3)
    for name in ("mean", "mode", "variance"):
        if name in case:
            near(getattr(d, name), case[name])
    if "entropy" in case:
        near(d.entropy(), case["entropy"])
    if "cdf" in case:
        near(d.cdf(values), case["cdf"])
    if "icdf" in case:
        near(d.icdf(torch.tensor([0.1, 0.6])), case["icdf"])
    assert d.expand((2, *d.batch_shape)).sample().shape == (2, *d.batch_shape, *d.event_shape)


def test_divergences_like_pytorch() -> None:
    made = [make(case["source"]) for case in VALUES["distributions"]]
    for i, j, expected in VALUES["divergences"]:
        near(distributions.kl_divergence(made[i], made[j]), expected)
    with pytest.raises(
        NotImplementedError, match=r"No KL\(p \|\| q\) is implemented for p type Normal and q type Poisson"
    ):
        distributions.kl_divergence(Normal(0.0, 1.0), distributions.Poisson(1.0))


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.5, 60.0, 3e5])
def test_gamma_moves_with_its_shape(shape: float) -> None:
    # What is held fixed is the probability: d P(a, x(a)) / da = 0, by differences of the distribution function.
    torch.manual_seed(1)
    a = torch.full((50,), shape, dtype=torch.float64, requires_grad=True)
    x = torch._standard_gamma(a)
    (slope,) = torch.autograd.grad(x.sum(), a)
    h, a, x = 1e-5 * shape, a.detach(), x.detach()
    change = torch.special.gammainc(a + h, x + h * slope) - torch.special.gammainc(a - h, x - h * slope)
    density = (torch.xlogy(a - 1, x) - x - torch.lgamma(a)).exp()
    assert (change / (2 * h) / density / slope).abs().max() < 1e-4


def test_gradients_of_beta_samples_estimate_those_of_the_mean() -> None:
    torch.manual_seed(2)
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 3.5))
    beta = distributions.Beta(a, b)
    estimates = torch.autograd.grad(beta.rsample((20000,)).mean(), (a, b))
    for estimate, exact in zip(estimates, torch.autograd.grad(beta.mean, (a, b)), strict=True):
        assert estimate.item() == pytest.approx(exact.item(), rel=0.05)


def test_transforms_invert_and_give_their_jacobians() -> None:
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    for name in ("real", "positive", "unit_interval"):
        t = distributions.biject_to(getattr(distributions.constraints, name))
        jacobian = torch.autograd.functional.jacobian(t, x)
        near(t.log_abs_det_jacobian(x, t(x)), jacobian.diagonal().log().tolist(), 1e-9)
        near(t.inv(t(x)), x.tolist(), 1e-9)
    t = distributions.biject_to(distributions.constraints.simplex)
    jacobian = torch.autograd.functional.jacobian(t, x)[:-1]
    assert t.log_abs_det_jacobian(x, t(x)).item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item())
    near(t.inv(t(x)), x.tolist(), 1e-9)


def test_parameters_stay_leaves() -> None:
    loc = torch.zeros(3, requires_grad=True)
    assert Normal(loc, torch.ones(3)).loc is loc


def test_dirichlet_points_move_with_their_concentrations() -> None:
    torch.manual_seed(3)
    c = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    x = torch.distributions.Dirichlet(c).rsample()
    (x * torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)).sum().backward()
    near(x.detach(), [0.08780325522585064, 0.5834462986525727, 0.32875044612157656], 1e-6)
    near(c.grad, [0.017134494371797808, 0.2583229287206681, -0.23186363696710918], 1e-3)
