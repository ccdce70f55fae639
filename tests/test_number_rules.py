"""Numbers beside half precisions, gradients that can be differentiated again, draws and text. Numbers are PyTorch's."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import flambeau as torch
import pytest

# ---- numbers beside half precisions ----------------------------------------------------------------------

NUMBER = 8.396163642458497  # 8.375 as bfloat16


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda t: t + NUMBER, [16.125, 5.0625, 8.5, 16.75]),
        (lambda t: t - NUMBER, [-0.625, -11.6875, -8.25, -0.0625]),
        (lambda t: NUMBER - t, [0.625, 11.6875, 8.25, 0.0625]),
        (lambda t: t * NUMBER, [65.0, -27.75, 0.8515625, 70.0]),
        (lambda t: t / NUMBER, [0.921875, -0.39453125, 0.0120849609375, 0.98828125]),
        (lambda t: NUMBER / t, [1.0859375, -2.546875, 83.0, 1.0078125]),
        (lambda t: t % NUMBER, [7.75, 5.0625, 0.1015625, 8.3125]),
        (lambda t: NUMBER % t, [0.625, -1.5625, 0.046875, 0.0625]),
    ],
)
def test_a_number_beside_a_half_precision_is_rounded_to_it_except_as_a_factor_or_divisor(
    compute: Callable[[torch.Tensor], torch.Tensor], expected: list[float]
) -> None:
    t = torch.tensor([7.75, -3.3125, 0.1015625, 8.3125], dtype=torch.bfloat16)
    assert compute(t).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_function_of_one_tensor_has_its_gradient_in_half_precision(dtype: torch.dtype) -> None:
    checked = 0
    for _, signature, _ in torch._flambeau._signature_rows():
        name, _, rest = signature.partition("(")
        if not rest.startswith("Tensor input)") or not hasattr(torch, name.partition(".")[0]):
            continue
        function = operator.attrgetter(name)(torch)
        x = torch.tensor([0.25, 0.5, 0.75], dtype=dtype, requires_grad=True)
        wide = x.detach().float().requires_grad_()
        try:
            y = function(wide)
            y.sum().backward()
            z = function(x)
        except (RuntimeError, TypeError, AttributeError) as e:
            assert "internal error" not in str(e), name
            continue
        z.sum().backward()
        assert torch.allclose(x.grad.float(), wide.grad, rtol=0.05, atol=0.02, equal_nan=True), (
            name,
            x.grad,
            wide.grad,
        )
        checked += 1
    assert checked > 60, checked


def test_attention_of_half_precisions_whose_shapes_broadcast_is_rounded_once() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(4, 3, 8) * 3, torch.randn(2, 4, 6, 8) * 3, torch.randn(2, 4, 6, 8)
    halves = [t.to(torch.bfloat16) for t in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = attend(*(t.float() for t in halves)).to(torch.bfloat16)
    assert torch.equal(attend(*halves), expected)


def test_arithmetic_of_two_numbers_gives_a_tensor() -> None:
    cases = [
        (torch.add(1, 2, alpha=3), 7, torch.int64),
        (torch.add(True, False), True, torch.bool),
        (torch.add(1.5, 2j), 1.5 + 2j, torch.complex64),
        (torch.subtract(5, 2, alpha=2), 1, torch.int64),
        (torch.mul(True, True), True, torch.bool),
        (torch.div(5, 2), 2.5, torch.float32),
        (torch.divide(5, 2, rounding_mode="trunc"), 2, torch.int64),
        (torch.true_divide(5, 2), 2.5, torch.float32),
        (torch.floor_divide(5, 2), 2, torch.int64),
        (torch.div(5, 0), math.inf, torch.float32),
    ]
    for t, value, dtype in cases:
        assert (t.shape, t.item(), t.dtype) == (torch.Size([]), value, dtype)
    with pytest.raises(RuntimeError, match="two bool tensors"):
        torch.sub(True, False)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        torch.floor_divide(5, 0)
    with pytest.raises(TypeError):
        torch.remainder(5, 2)


def test_a_list_that_is_the_only_argument_of_a_method_may_be_given_as_ints() -> None:
    x = torch.ones(1, 2, 3)
    assert x.broadcast_to(2, 2, 3).shape == (2, 2, 3)
    assert x.squeeze(0, 1).shape == (2, 3)
    assert x.count_nonzero(1, 2).tolist() == [6]
    assert [t.shape[1] for t in torch.ones(3, 2).hsplit(1, 2)] == [1, 1, 0]
    for call in (
        lambda: torch.reshape(x, 3, 2),
        lambda: torch.reshape(x, 6),
        lambda: torch.permute(x, 0, 1, 2),
        lambda: torch.flip(x, 0, 1),
        lambda: torch.tile(x, 2, 3),
        lambda: torch.full(2, 3),
        lambda: torch.randint(2, 3, 4),
        lambda: torch.empty_permuted(2, 3),
    ):
        with pytest.raises(TypeError):
            call()


# ---- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "f"),
    [
        ((0, 3), torch.linalg.pinv),
        ((0, 1), lambda x: torch.nn.functional.layer_norm(x, (1,))),
        ((1, 0, 3), lambda x: torch.nn.functional.rrelu(x, training=True)),
        ((2, 3), lambda x: torch.nn.functional.rrelu(x, training=True)),
        ((20,), lambda x: torch.stft(x, 5, return_complex=False)),
        ((1, 4, 5, 4), lambda x: torch.nn.functional.fractional_max_pool3d(x, (2, 2, 1), output_size=2)),
        (
            (1, 1, 4, 5),
            lambda x: torch.nn.functional.grid_sample(x, torch.zeros(1, 2, 2, 2), mode="nearest", align_corners=False),
        ),
    ],
)
def test_a_gradient_that_pytorch_computes_from_the_input_can_be_differentiated_again(
    shape: tuple[int, ...], f: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = torch.ones(shape, requires_grad=True)
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    assert g.shape == x.shape
    assert g.requires_grad
    (second,) = torch.autograd.grad(g.sum(), x, allow_unused=True)
    assert second is None or not second.any()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("acosh", [2.0, -2.0, -math.inf, 0.5], [0.57735027, 0.57735027, 0, math.nan]),
        ("special.i1", [0.0, math.nan], [0.5, 0.5]),
        ("special.i1e", [0.0, math.nan], [0.5, 0.5]),
        ("nn.functional.elu", [1.0, -1.0, math.inf, math.nan], [1, 0.36787944, 1, math.nan]),
        ("nn.functional.hardtanh", [0.0, 1.0, 2.0, math.nan], [1, 0, 0, 0]),
        ("nn.functional.hardshrink", [0.1, 1.0, math.nan], [0, 1, 0]),
        ("nn.functional.softshrink", [0.1, 1.0, math.nan], [0, 1, 0]),
        ("digamma", [1.0, -1.0, math.inf], [1.6449341, 6.580790147e32, 0]),
    ],
)
def test_gradients_at_the_ends_of_a_function(name: str, values: list[float], expected: list[float]) -> None:
    f = torch
    for part in name.split("."):
        f = getattr(f, part)
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    f(x).sum().backward()
    assert x.grad.tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_gradients_of_two_arguments_at_zero() -> None:
    a, b = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.atan2(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (0, 0)
    a = torch.tensor([math.inf, 2.0, -2.0, 0.0], dtype=torch.float64, requires_grad=True)
    torch.copysign(a, torch.tensor([-1.0, -1.0, -1.0, 1.0])).sum().backward()
    assert a.grad.tolist() == pytest.approx([math.nan, -1, 1, 0], nan_ok=True)


def test_layer_norm_of_no_rows_reaches_weight_and_bias() -> None:
    w, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    torch.nn.functional.layer_norm(torch.ones(0, 3), (3,), w, b).sum().backward()
    assert w.grad.tolist() == [0, 0, 0]
    assert b.grad.tolist() == [0, 0, 0]


def test_the_median_of_all_shares_its_gradient_among_equals() -> None:
    x = torch.tensor([[1.0, 2.0, 2.0], [3.0, 2.0, 0.0]], requires_grad=True)
    y = x.median()
    y.backward()
    assert y.item() == 2
    assert torch.allclose(x.grad, torch.tensor([[0, 1 / 3, 1 / 3], [0, 1 / 3, 0]]))
    x = torch.tensor([1.0, math.nan, 2.0, 2.0, 5.0], requires_grad=True)
    x.nanmedian().backward()
    assert x.grad.tolist() == [0, 0, 0.5, 0.5, 0]
    assert x.median().isnan()
    x = torch.tensor([1.0, math.inf, math.inf], requires_grad=True)
    assert x.median().item() == math.inf
    assert torch.median(torch.empty(0)).isnan()


def test_logcumsumexp_has_a_hessian() -> None:
    h = torch.func.hessian(lambda x: x.logcumsumexp(-1).sum())(torch.tensor([1.25, -1.5, 0.5], dtype=torch.float64))
    expected = [
        [0.28370033343, -0.08356201998, -0.20013831345],
        [-0.08356201998, 0.09635643431, -0.01279441432],
        [-0.20013831345, -0.01279441432, 0.21293272777],
    ]
    assert torch.allclose(h, torch.tensor(expected, dtype=torch.float64), atol=1e-10)


def test_copying_a_tensor_onto_itself_is_a_write() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.relu()
    y.copy_(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_transposing_no_dimensions_gives_the_leaf_itself() -> None:
    x = torch.tensor(1.0, requires_grad=True)
    assert x.mT.is_leaf


# ---- random numbers ----------------------------------------------------------------------------------------


def test_draws_of_wide_integers_and_of_many_trials_are_pytorchs() -> None:
    torch.manual_seed(1234)
    assert torch.empty(4).random_(0, 2**40).tolist() == [414578769920, 850737168384, 260577443840, 420147298304]
    torch.manual_seed(1234)
    wide = torch.empty(4, dtype=torch.bfloat16).random_(0, 2**40)
    assert wide.tolist() == [901943132160, 609885356032, 242665652224, 764504178688]
    torch.manual_seed(1234)
    whole = torch.empty(3, dtype=torch.int64).random_(-(2**63), None)
    assert whole.tolist() == [3532910284440527571, -6970862871448265675, 8074651545468362100]
    torch.manual_seed(1234)
    counts = torch.binomial(torch.full((12,), 100.0), torch.full((12,), 0.4))
    assert counts.tolist() == [36, 40, 38, 35, 45, 44, 37, 37, 44, 37, 38, 31]
    torch.manual_seed(1234)
    counts = torch.binomial(torch.full((6,), 1000.0, dtype=torch.float64), torch.full((6,), 0.7, dtype=torch.float64))
    assert counts.tolist() == [712, 701, 705, 714, 710, 686]


def test_bernoulli_and_normal_draw_into_contiguous_memory_whatever_the_inputs_layout() -> None:
    torch.manual_seed(0)
    assert torch.bernoulli(torch.full((4, 6), 0.4).t())[0].tolist() == [0, 0, 1, 1]
    torch.manual_seed(0)
    drawn = torch.normal(torch.zeros(4, 6).t(), 2.0)
    assert drawn.stride() == (4, 1)
    assert drawn[0].tolist() == pytest.approx([-2.2516797, -2.3047204, -0.5011572, -0.8677576], abs=1e-6)
    torch.manual_seed(0)
    soft = torch.nn.functional.gumbel_softmax(torch.zeros(4, 6).t())
    assert soft[0].tolist() == pytest.approx([0.0914120, 0.2606527, 0.5214311, 0.1265042], abs=1e-6)


def test_nothing_is_drawn_whatever_the_dtype() -> None:
    for draw in (
        lambda t: t.normal_(),
        lambda t: t.log_normal_(),
        lambda t: t.exponential_(),
        lambda t: t.random_(-(2**63), None),
        lambda t: torch.randn_like(t),
    ):
        for dtype in (torch.int64, torch.bool, torch.complex64):
            assert draw(torch.empty(0, dtype=dtype)).dtype == dtype
    with pytest.raises(NotImplementedError):
        torch.empty(0, dtype=torch.int64).uniform_()
    with pytest.raises(RuntimeError):
        torch.empty(0).normal_(0, -1)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.empty(3, dtype=torch.bool).geometric_(0.3),
        lambda: torch.empty(3, dtype=torch.bool).random_(-(2**63), None),
        lambda: torch.binomial(torch.ones(3).half(), torch.ones(3).half()),
        lambda: torch._standard_gamma(torch.ones(3).bfloat16()),
        lambda: torch._sample_dirichlet(torch.ones(3).half()),
        lambda: torch.nn.functional.rrelu(-torch.ones(3).half(), training=True),
    ],
)
def test_draws_of_dtypes_that_pytorch_does_not_draw(draw: Callable[[], torch.Tensor]) -> None:
    with pytest.raises(NotImplementedError, match="not implemented for"):
        draw()


def test_native_dropout_gives_its_mask() -> None:
    torch.manual_seed(0)
    x = torch.ones(8, requires_grad=True)
    y, mask = torch.native_dropout(x, 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(y, torch.nn.functional.dropout(torch.ones(8), 0.5))
    assert mask.dtype == torch.bool and torch.equal(y, mask * 2.0)
    y.sum().backward()
    assert torch.equal(x.grad, mask * 2.0)
    y, mask = torch.native_dropout(torch.arange(3), 0.5, False)
    assert y.tolist() == [0, 1, 2] and mask.all()
    assert not torch.native_dropout(torch.ones(3), 1.0, None)[0].any()
    assert torch.native_dropout(torch.ones(6, 4).t(), 0.3, True)[1].stride() == (1, 4)
    for p, t in ((1.5, torch.ones(3)), (0.5, torch.arange(3))):
        with pytest.raises(RuntimeError):
            torch.native_dropout(t, p, True)


def test_normal_numbers_are_drawn_in_place() -> None:
    torch.manual_seed(0)
    spread = torch.randn(20, out=torch.empty(40)[::2])
    torch.manual_seed(0)
    assert torch.equal(spread, torch.empty(40)[::2].normal_())
    assert spread[:3].tolist() == pytest.approx([1.5409961, -0.2934289, -2.1787894])
    assert torch.randn(3, out=torch.empty(0, dtype=torch.float64)).dtype == torch.float64


# ---- text --------------------------------------------------------------------------------------------------


def test_what_a_tensor_is_starts_a_new_line_where_the_line_is_full() -> None:
    t = torch.tensor([complex(1e-4, 1.5), complex(12345678.0, 1e30)], dtype=torch.complex128)
    assert repr(t) == "tensor([1.0000e-04+1.5000e+00j, 1.2346e+07+1.0000e+30j],\n       dtype=torch.complex128)"


def test_one_complex_number_is_formatted_as_a_number() -> None:
    assert f"{torch.tensor(3 + 4j)}" == "(3+4j)"


def test_the_slice_of_a_whole_dimension_is_a_slice() -> None:
    x = torch.ones(1, requires_grad=True)
    assert [y.grad_fn.name() for y in (x[:], x[:3], x[...])] == ["SliceBackward0", "SliceBackward0", "AliasBackward0"]


def test_limits_are_printed_with_six_digits() -> None:
    assert repr(torch.iinfo(torch.int64)) == "iinfo(min=-9.22337e+18, max=9.22337e+18, dtype=int64)"
    assert repr(torch.iinfo(torch.int8)) == "iinfo(min=-128, max=127, dtype=int8)"
    assert "min=-1.79769e+308, max=1.79769e+308, eps=2.22045e-16" in repr(torch.finfo(torch.float64))


def test_factors_with_infos_are_named() -> None:
    found = torch.lu(torch.eye(2), get_infos=True)
    assert type(found).__name__ == "_lu_with_info"
    assert found.info.item() == 0 and torch.equal(found.LU, torch.eye(2)) and found.pivots.tolist() == [1, 2]
    assert type(torch.lu(torch.eye(2))) is tuple


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_normal_numbers_of_half_precision_are_those_of_single_precision_rounded(dtype: torch.dtype) -> None:
    for n, same in ((16, 16), (48, 48), (40, 24), (100_000, 100_000)):
        draws = []
        for kind in (dtype, torch.float32):
            torch.manual_seed(3)
            draws.append(torch.randn(n, dtype=kind)[:same].to(dtype))
        assert torch.equal(*draws), n
