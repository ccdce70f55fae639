"""Rules of layers and optimizers that a comparison with PyTorch on random arguments has found; the expected values are PyTorch's."""

import flambeau as torch
import pytest
from flambeau import nn


def test_lazy_instance_norm_learns_and_tracks():
    layer = nn.LazyInstanceNorm2d()
    assert (
        repr(layer)
        == "LazyInstanceNorm2d(0, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
    )
    layer(torch.randn(2, 3, 4, 4))
    assert type(layer) is nn.InstanceNorm2d and layer.num_features == 3
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def test_channel_shuffle_wants_places():
    with pytest.raises(RuntimeError, match="> 2 dims"):
        nn.ChannelShuffle(3)(torch.ones(1, 6))
    with pytest.raises(RuntimeError, match="divisible by groups"):
        nn.ChannelShuffle(4)(torch.ones(1, 6, 2))


def test_cross_entropy_of_probabilities_ignores_no_index():
    with pytest.raises(RuntimeError, match="ignore_index is not supported for floating point target"):
        nn.CrossEntropyLoss(ignore_index=0)(torch.ones(2, 3), torch.ones(2, 3) / 3)


def test_soft_margin_loss_has_no_gradient_of_its_target():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="argument 'target'"):
        nn.SoftMarginLoss()(x, y)
    with torch.no_grad():
        nn.SoftMarginLoss()(x, y)
    with pytest.raises(ValueError, match="bad is not a valid value"):
        nn.SoftMarginLoss(reduction="bad")(x, y)


def test_dropout3d_takes_other_inputs_as_one_sample():
    torch.manual_seed(0)
    with pytest.warns(UserWarning):
        kept = nn.functional.dropout3d(torch.ones(50, 4), 0.5)
    assert all(row in ([0.0] * 4, [2.0] * 4) for row in kept.tolist())


def test_fractional_pooling_of_volumes_wants_one_place_more():
    with pytest.raises(RuntimeError, match="too large"):
        nn.FractionalMaxPool3d(2, output_size=3)(torch.ones(1, 1, 4, 4, 4))
    nn.FractionalMaxPool2d(2, output_size=3)(torch.ones(1, 1, 4, 4))


def test_group_norm_of_single_values():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.GroupNorm(3, 3)(torch.ones(1, 3))


ORDERS = {
    "ASGD": "lr lambd alpha t0 weight_decay foreach maximize differentiable capturable",
    "Adadelta": "lr rho eps weight_decay maximize capturable foreach differentiable",
    "Adamax": "lr betas eps weight_decay foreach maximize differentiable capturable",
    "NAdam": "lr betas eps weight_decay momentum_decay decoupled_weight_decay maximize foreach capturable differentiable",
    "RAdam": "lr betas eps weight_decay maximize foreach capturable decoupled_weight_decay differentiable",
    "RMSprop": "lr momentum alpha eps centered weight_decay capturable foreach maximize differentiable",
    "Rprop": "lr etas step_sizes foreach maximize differentiable capturable",
}


@pytest.mark.parametrize("name", ORDERS)
def test_settings_are_filed_in_pytorchs_order(name):
    optimizer = getattr(torch.optim, name)([nn.Parameter(torch.ones(1))])
    assert list(optimizer.state_dict()["param_groups"][0]) == [*ORDERS[name].split(), "params"]


def test_plateau_is_filed_whole_and_follows_new_groups():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    assert (
        list(schedule.state_dict())
        == (
            "factor default_min_lr min_lrs patience cooldown eps last_epoch _last_lr mode_worse mode threshold threshold_mode best "
            "cooldown_counter num_bad_epochs"
        ).split()
    )
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 4.0})
    for _ in range(2):
        schedule.step(1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 2.0]


def test_lbfgs_files_its_weights():
    p = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = torch.optim.LBFGS([p], max_iter=4, history_size=3)

    def closure():
        optimizer.zero_grad()
        loss = ((p - 1) ** 4).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    state = optimizer.state_dict()["state"][0]
    assert list(state) == "func_evals n_iter al d t old_dirs old_stps ro H_diag prev_flat_grad prev_loss".split()
    assert len(state["al"]) == 3 and isinstance(state["H_diag"], torch.Tensor)
    optimizer.load_state_dict(optimizer.state_dict())
    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < before


REFUSALS = [
    (RuntimeError, "at least 3 dimensions", lambda: nn.PixelUnshuffle(2)(torch.ones(4, 4))),
    (RuntimeError, "2D or 3D", lambda: nn.Fold((4, 6), (2, 2))(torch.ones(1, 2, 8, 15))),
    (RuntimeError, "batch dimensions do not match", lambda: nn.Bilinear(1, 1, 1)(torch.ones(1, 1), torch.ones(2, 1))),
    (ValueError, "expected 3D or 4D input", lambda: nn.CircularPad2d(1)(torch.ones(1, 1, 2, 6, 9))),
    (NotImplementedError, "not supported for 1D", lambda: nn.ReflectionPad1d(2)(torch.ones(8))),
    (NotImplementedError, "not supported for 4D", lambda: nn.ReplicationPad1d(1)(torch.ones(1, 2, 3, 4))),
    (ValueError, "to be 4D", lambda: nn.CrossMapLRN2d(2)(torch.ones(1, 3, 4))),
    (RuntimeError, "Integral inputs", lambda: nn.KLDivLoss(reduction="sum")(torch.ones(2), torch.ones(2).long())),
    (RuntimeError, r"size \[2\]", lambda: nn.MultiMarginLoss()(torch.ones(2, 4), torch.tensor([1]))),
    (TypeError, "bias should be of type bool", lambda: nn.GRU(3, 2, bias=None)),
    (
        AssertionError,
        "does not match value shape",
        lambda: nn.MultiheadAttention(2, 1)(torch.ones(4, 2), torch.ones(3, 2), torch.ones(2, 2)),
    ),
    (
        RuntimeError,
        "2D input tensors",
        lambda: nn.CosineEmbeddingLoss()(torch.ones(1, 3, 2), torch.ones(3, 2), torch.ones(3)),
    ),
]


@pytest.mark.parametrize("kind, words, call", REFUSALS)
def test_refusals_are_pytorchs(kind, words, call):
    with pytest.raises(kind, match=words) as caught:
        call()
    assert type(caught.value) is kind


def test_attention_over_an_empty_batch():
    layer = nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True)
    assert layer(torch.ones(0, 3, 2)).shape == (0, 3, 2)


def test_hardsigmoid_says_nothing_of_inplace():
    assert repr(nn.Hardsigmoid(inplace=True)) == "Hardsigmoid()"
