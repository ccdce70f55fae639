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
    (ValueError, "input_size must be greater than zero", lambda: nn.LSTM(0, 2)),
    (ValueError, "does not match weight dtype", lambda: nn.RNN(2, 2)(torch.ones(1, 1, 2).double())),
    (RuntimeError, "sequence length", lambda: nn.GRU(2, 2)(torch.ones(0, 1, 2))),
    (ValueError, "must be positive during training", lambda: nn.BatchNorm1d(2, eps=0.0)(torch.ones(3, 2))),
    (ValueError, "must be non-negative", lambda: nn.BatchNorm1d(2, eps=-1.0).eval()(torch.ones(3, 2))),
    (NotImplementedError, "'Long'", lambda: nn.BatchNorm1d(2).eval()(torch.ones(3, 2).long())),
    (NotImplementedError, "'Long'", lambda: nn.InstanceNorm1d(2)(torch.ones(3, 2, 2).long())),
    (RuntimeError, "mixed dtype", lambda: nn.BatchNorm1d(2)(torch.ones(3, 2).double())),
    (RuntimeError, "mixed dtype", lambda: nn.LayerNorm(2)(torch.ones(3, 2).double())),
    (RuntimeError, "mixed dtype", lambda: nn.GroupNorm(1, 2)(torch.ones(3, 2).double())),
    (ValueError, "at least 2 dimensions", lambda: nn.RMSNorm((3, 2))(torch.ones(2))),
    (NotImplementedError, "'Long'", lambda: nn.RMSNorm(2)(torch.ones(3, 2).long())),
    (NotImplementedError, "'Long'", lambda: nn.AdaptiveAvgPool2d(2)(torch.ones(1, 4, 4).long())),
    (RuntimeError, "floating point or complex", lambda: nn.AdaptiveAvgPool2d(1)(torch.ones(1, 4, 4).long())),
    (NotImplementedError, "'Int'", lambda: nn.AdaptiveMaxPool1d(2)(torch.ones(1, 4, 4).int())),
    (RuntimeError, "all 3 classes", lambda: nn.CrossEntropyLoss(torch.ones(2))(torch.ones(2, 3), torch.tensor([0, 1]))),
    (RuntimeError, "float64", lambda: nn.NLLLoss(torch.ones(3).double())(torch.ones(2, 3), torch.tensor([0, 1]))),
    (RuntimeError, "input should be between 0 and 1", lambda: nn.BCELoss()(torch.tensor([2.0]), torch.tensor([1.0]))),
    (RuntimeError, "target should be between 0 and 1", lambda: nn.BCELoss()(torch.tensor([0.5]), torch.tensor([-1.0]))),
    (RuntimeError, "positive upscale_factor", lambda: nn.PixelShuffle(0)(torch.ones(1, 4, 2, 2))),
    (RuntimeError, "positive downscale_factor", lambda: nn.PixelUnshuffle(0)(torch.ones(1, 4, 2, 2))),
    (RuntimeError, "greater than zero", lambda: nn.Unfold(2, stride=0)(torch.ones(1, 3, 4, 4))),
    (NotImplementedError, "got 2D", lambda: nn.Upsample(scale_factor=2, mode="area")(torch.ones(3, 4))),
    (RuntimeError, "vector or a matrix", lambda: nn.MultiLabelMarginLoss()(torch.ones(1, 1, 2), torch.zeros(1, 1, 2).long())),
    (TypeError, "tuple of Tensors", lambda: nn.LSTMCell(1, 1)(torch.ones(2, 1), torch.ones(2, 1))),
    (RuntimeError, "at dimension 1", lambda: nn.CTCLoss()(torch.zeros(5, 1, 3), torch.ones(1, 2).long(), (5,), (3,))),
    (RuntimeError, "sum to their number", lambda: nn.CTCLoss()(torch.zeros(5, 1, 3), torch.ones(2).long(), (5,), (3,))),
    (TypeError, "float or int", lambda: nn.HuberLoss(delta=1j)),
    (RuntimeError, r"\(2,\)", lambda: nn.LinearCrossEntropyLoss(3, 2, weight=torch.ones(3))),
    (RuntimeError, "label_smoothing", lambda: nn.LinearCrossEntropyLoss(3, 2, label_smoothing=2.0)),
    (ValueError, "batch_size", lambda: nn.LinearCrossEntropyLoss(3, 2)(torch.ones(4, 3), torch.ones(5, 2))),
    (ValueError, "max mode", lambda: nn.EmbeddingBag(3, 2, mode="max", sparse=True)(torch.tensor([[0]]))),
    (RuntimeError, "offsets", lambda: nn.EmbeddingBag(3, 2)(torch.tensor([0, 1]), torch.tensor([1, 2]))),
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


def test_layers_of_no_outputs_pass_gradients():
    layer = nn.Linear(4, 0)
    x = torch.ones(2, 3, 4, requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 3, 4)) and layer.weight.grad.shape == (0, 4)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_an_empty_batch_goes_through_recurrent_layers(kind):
    layer = getattr(nn, kind)(3, 4)
    y, _ = layer(torch.ones(2, 0, 3))
    y.sum().backward()
    assert y.shape == (2, 0, 4) and not layer.weight_hh_l0.grad.any()


def test_adaptive_pools_to_nothing():
    x = torch.ones(2, 3, 5, 4)
    assert nn.AdaptiveAvgPool2d(0)(x).shape == nn.AdaptiveMaxPool2d(0)(x).shape == (2, 3, 0, 0)
    assert nn.AdaptiveAvgPool2d(1)(x[0, 0]).tolist() == [[1.0]]


def test_instances_are_normalised_without_eps():
    x = torch.tensor([[[1.0, 3.0]]])
    assert nn.InstanceNorm1d(1, eps=0.0)(x).tolist() == [[[-1.0, 1.0]]]


def test_the_limits_of_power_pooling():
    x = torch.tensor([[[1.0, -3.0, 2.0, -0.5]]])
    assert nn.LPPool1d(float("inf"), 2)(x).tolist() == [[[3.0, 2.0]]]
    assert nn.functional.lp_pool1d(x, -float("inf"), 2).tolist() == [[[1.0, 0.5]]]


def test_cross_map_normalisation_has_pytorchs_windows():
    # One channel alone makes visible which channels its square enters: all of them for the first.
    layer = nn.CrossMapLRN2d(3, alpha=3.0, beta=1.0, k=1.0)
    reach = []
    for on in range(5):
        x = torch.full((1, 5, 1, 1), 1e-3)
        x[0, on] = 1.0
        reach.append([c for c in range(5) if x[0, c].item() / layer(x)[0, c].item() > 1.5])
    assert reach == [[0, 1, 2, 3, 4], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]


def test_row_gradients_by_frequency_may_be_sparse():
    grads = []
    for sparse in (False, True):
        table = nn.Embedding(4, 1, sparse=sparse, scale_grad_by_freq=True)
        (table(torch.tensor([1, 2, 1])) * torch.tensor([[3.0], [5.0], [4.0]])).sum().backward()
        assert table.weight.grad.is_sparse == sparse
        grads.append(table.weight.grad.to_dense() if sparse else table.weight.grad)
    assert grads[0].tolist() == grads[1].tolist() == [[0.0], [3.5], [5.0], [0.0]]


def test_alignments_of_half_precision():
    x = torch.arange(30.0).reshape(5, 2, 3).sin().log_softmax(2)
    args = (torch.tensor([[1, 2], [2, 1]]), (5, 5), (2, 2))
    expected = nn.CTCLoss()(x, *args)
    for dtype in (torch.float16, torch.bfloat16):
        loss = nn.CTCLoss()(x.to(dtype), *args)
        assert loss.dtype == dtype and abs(loss.item() - expected.item()) < 0.02


@pytest.mark.parametrize("name", "Adam Adagrad Adadelta Adamax ASGD NAdam RAdam RMSprop Rprop SGD".split())
def test_complex_parameters_step_as_pairs_of_real_ones(name):
    settings = {"momentum": 0.9} if name == "SGD" else {}
    p = torch.tensor([1 + 2j], requires_grad=True)
    q = torch.tensor([1.0, 2.0], requires_grad=True)
    a, b = (getattr(torch.optim, name)([t], **{"lr": 0.1, **settings}) for t in (p, q))
    for _ in range(2):
        p.grad = torch.tensor([2 + 4j])
        q.grad = torch.tensor([2.0, 4.0])
        a.step()
        b.step()
    assert torch.view_as_real(p.detach())[0].tolist() == pytest.approx(q.tolist(), abs=1e-6)
    held = [v for v in a.state[p].values() if isinstance(v, torch.Tensor) and v.dim()]
    assert held and all(v.is_complex() and v.shape == p.shape for v in held)
    assert len(a.state) == 1


@pytest.mark.parametrize("name", "Adam AdamW SGD Adadelta Adagrad Adamax ASGD NAdam RAdam RMSprop".split())
def test_differentiable_steps(name):
    def run(g):
        start = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
        p = start.clone()
        p.grad = g
        optimizer = getattr(torch.optim, name)([p], lr=0.1, differentiable=True)
        optimizer.step()
        optimizer.step()
        return (p**2).sum()

    g = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(run(g), g)
    for i in range(3):
        d = torch.zeros(3, dtype=torch.float64)
        d[i] = 1e-5
        numeric = (run((g + d).detach()) - run((g - d).detach())).item() / 2e-5
        assert slope[i].item() == pytest.approx(numeric, abs=1e-5)


OPTIMIZER_REFUSALS = [
    (ValueError, "1-element", lambda p: torch.optim.SGD([p], lr=torch.ones(2))),
    (RuntimeError, "cannot be `True` together", lambda p: torch.optim.Adam([p], fused=True, foreach=True)),
    (
        RuntimeError,
        "does not support `differentiable`",
        lambda p: torch.optim.AdamW([p], fused=True, differentiable=True),
    ),
    (ValueError, "lr as a Tensor", lambda p: torch.optim.Adam([p], lr=torch.tensor(0.1), foreach=True)),
    (ValueError, "both floats or both Tensors", lambda p: torch.optim.Adam([p], betas=(0.9, torch.tensor(0.9)))),
    (
        ValueError,
        "without names",
        lambda p: torch.optim.SGD([{"params": [p]}, {"params": [("q", p.clone().detach())]}]),
    ),
    (ValueError, "Some param names are missing", lambda p: torch.optim.SGD([("p", p), p.clone().detach()])),
    (ValueError, "complex parameters", lambda p: torch.optim.SparseAdam([torch.ones(1, dtype=torch.complex64)])),
    (ValueError, "requires dense", lambda p: torch.optim.SparseAdam([p.detach().to_sparse()])),
]


@pytest.mark.parametrize("kind, words, call", OPTIMIZER_REFUSALS)
def test_refusals_of_optimizers(kind, words, call):
    with pytest.raises(kind, match=words):
        call(torch.ones(2, requires_grad=True))


def test_dicts_of_parameters_name_the_tensor_type():
    both = nn.ParameterDict({"a": nn.Parameter(torch.ones(2))}), nn.ParameterList([nn.Parameter(torch.ones(2))])
    assert "[torch.FloatTensor of size 2]" in repr(both[0]) and "[torch.float32 of size 2]" in repr(both[1])


def test_alignments_of_no_steps():
    losses = nn.CTCLoss(reduction="none")(
        torch.zeros(3, 2, 3), torch.tensor([[1, 1], [1, 2]]), torch.tensor([0, 0]), torch.tensor([0, 1])
    )
    assert losses.tolist() == [0.0, float("inf")]


def test_losses_of_half_precision_keep_it_under_float32_weights():
    x, y = torch.tensor([[0.25, 0.5]]), torch.tensor([[0.0, 1.0]])
    weight = torch.tensor([2.0, 4.0])
    for dtype in (torch.float16, torch.bfloat16):
        a, b = x.to(dtype), y.to(dtype)
        assert nn.BCELoss(weight)(a, b).dtype == nn.BCEWithLogitsLoss(weight, pos_weight=weight)(a, b).dtype == dtype


def test_byte_classes():
    x = torch.tensor([[0.5, -1.0], [2.0, 1.0]])
    for loss in (nn.NLLLoss(), nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)):
        assert torch.equal(loss(x, torch.tensor([1, 0], dtype=torch.uint8)), loss(x, torch.tensor([1, 0])))


def test_fractional_pools_of_one_ratio():
    assert nn.functional.fractional_max_pool3d(torch.ones(1, 1, 8, 8, 8), 2, output_ratio=0.5).shape[2:] == (4, 4, 4)
    with pytest.raises(TypeError):
        nn.functional.fractional_max_pool2d(torch.ones(1, 1, 8, 8), 2, output_ratio=0.5)


def test_margins_of_one_sample_have_the_targets_shape():
    x = torch.tensor([0.1, 0.7, 0.2])
    loss = nn.functional.multi_margin_loss
    assert loss(x, torch.tensor([1]), reduction="none").shape == (1,)
    assert loss(x, torch.tensor(1), reduction="none").shape == ()


@pytest.mark.parametrize(("query", "key"), [((2, 3, 5), (3, 5)), ((3, 5), (3, 5)), ((1, 2, 3, 5), (3, 5)), ((3, 5), (4, 3, 5))])
def test_heads_that_are_repeated_are_a_dimension(query, key):
    with pytest.raises(IndexError, match="enable_gqa repeats heads, dimension -3"):
        nn.functional.scaled_dot_product_attention(torch.ones(query), torch.ones(key), torch.ones(key), enable_gqa=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_convolutions_of_no_channels_are_empty(dtype):
    x = torch.ones(1, 0, 5, 4, dtype=dtype, requires_grad=True)
    w = torch.ones(2, 0, 1, 4, dtype=dtype, requires_grad=True)
    b = torch.ones(2, dtype=dtype, requires_grad=True)
    y = torch.conv2d(x, w, b, stride=3)
    assert y.shape == (1, 0, 2, 1)
    y.sum().backward()
    assert x.grad.shape == x.shape and w.grad.shape == w.shape and b.grad.tolist() == [0.0, 0.0]
