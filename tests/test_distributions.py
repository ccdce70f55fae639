"""Distributions: values that PyTorch gives for the same seed and arguments."""

from __future__ import annotations

import math

import flambeau as torch
import pytest
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
