"""First and second gradients of every differentiable operator against finite differences, in double precision, real and complex.

The inputs are those of the reference cases; rows of the signature table that no case reaches get inputs from the types in their
signature. What has no gradient is named in `NO_GRADIENT`, so that a new operator is either checked or looked at.
"""

from __future__ import annotations

import collections
import json
import random
import re
import sys
from pathlib import Path

import flambeau as torch
import pytest

REFERENCE = Path(__file__).parent / "reference"
sys.path.insert(0, str(REFERENCE))
import cases as reference  # noqa: E402

DOUBLE = {"complex64": torch.complex128, "float32": torch.float64}
# Functions of Hermitian matrices: they look at one triangle, and the gradient is that of the Hermitian part.
HERMITIAN = {
    "cholesky",
    "linalg.cholesky",
    "linalg.cholesky_ex",
    "linalg.eigh",
    "linalg.eigvalsh",
    "linalg.pinv hermitian",
}
# Functions of a triangle: which operand it is.
TRIANGULAR = {"cholesky_inverse": 0, "cholesky_solve": 1}
# PyTorch has no gradient, or not the derivative, and neither have we.
NOT_THE_DERIVATIVE = {
    "as_strided_scatter": "the input's gradient is by definition that of the part which was written over",
    "geqrf": "not differentiable",
    "linalg.ldl_factor": "not differentiable",
    "linalg.ldl_factor_ex": "not differentiable",
    "linalg.ldl_solve": "not differentiable in the factors",
    "normal": "a draw: its gradient is zero by definition",
    "resize_": "tensors that require grad cannot be resized",
    "resize_as_": "tensors that require grad cannot be resized",
    "nn.functional.max_unpool3d": "the case writes several values to one place",
    "linalg.norm subgradients_at_zero": "a subgradient where there is no derivative",
}


def stored(name):
    """A file's cases with their decoder."""
    arrays = reference.load_arrays(REFERENCE / f"ops_{name}.safetensors")
    return json.loads((REFERENCE / f"ops_{name}.json").read_text()), reference.Decoder(torch, arrays)


FILES = {name: stored(name) for name in ("float64", "complex64")}


def by_operator():
    """The indices of cases with tensors that could have gradients, by file and operator."""
    found = collections.defaultdict(list)
    for name, (cases, _) in FILES.items():
        for index, c in enumerate(cases):
            if c["call"] != "attribute" and any(
                leaf["dtype"].startswith(("float", "complex")) for leaf in reference.stored_leaves({"list": c["args"]})
            ):
                found[name, c["op"]].append(index)
    return found


OPERATORS = by_operator()


def prepare(name, case):
    """A case as a function of those of its tensors that can have gradients, and these."""
    decode = FILES[name][1]
    inputs = []
    wants = name != "float64"

    def convert(x):
        if isinstance(x, torch.Tensor):
            asked = x.requires_grad or (wants and (x.is_floating_point() or x.is_complex()))
            x = x.detach()
            x = x.to(DOUBLE.get(str(x.dtype).rpartition(".")[2], x.dtype))
            if not asked:
                return x
            inputs.append(x.clone().requires_grad_())
            return Slot(len(inputs) - 1)
        if isinstance(x, dict):
            return {k: convert(v) for k, v in x.items()}
        return type(x)(map(convert, x)) if type(x) in (tuple, list) else x

    name_and_variant = f"{case['op']} {case['variant']}".strip()
    hermitian = case["op"] in HERMITIAN or name_and_variant in HERMITIAN
    triangle = TRIANGULAR.get(case["op"])

    def fill(x, given):
        if isinstance(x, Slot):
            value = given[x]
            if hermitian and x == 0:
                value = (value + value.mH) / 2
            if x == triangle:
                value = value.triu() if upper else value.tril()
            # An operator may write to its operands.
            return value.clone()
        if isinstance(x, torch.Tensor):
            return x.clone()
        if isinstance(x, dict):
            return {k: fill(v, given) for k, v in x.items()}
        return type(x)(fill(v, given) for v in x) if type(x) in (tuple, list) else x

    args = convert([decode(a) for a in case["args"]])
    kwargs = convert({k: decode(v) for k, v in case["kwargs"].items()})
    upper = any(a is True for a in (*args, kwargs.get("upper")))
    call = reference.find(torch, case["op"], case["call"])

    def function(*given):
        torch.manual_seed(0)
        out = reference.post(torch, case["op"], call(*fill(args, given), **fill(kwargs, given)))
        return tuple(t for t in reference.leaves(torch, out) if t.dtype in (torch.float64, torch.complex128))

    return function, inputs


class Slot(int):
    """The place of an input among the inputs."""


def finite(t):
    return bool(torch.isfinite(t).all())


def check(function, inputs):
    """First and second gradients along random directions, backward and forward."""
    outs = function(*inputs)
    # Where a function has no value it has no derivative.
    if not outs or not all(map(finite, outs)):
        return False
    torch.autograd.gradcheck(function, inputs, fast_mode=True, check_forward_ad=True)
    if any(o.requires_grad for o in outs):
        torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    return True


@pytest.mark.parametrize(("name", "operator"), sorted(OPERATORS), ids=lambda x: x)
def test_cases(name, operator):
    for index in OPERATORS[name, operator]:
        case = FILES[name][0][index]
        if operator in NOT_THE_DERIVATIVE or f"{operator} {case['variant']}" in NOT_THE_DERIVATIVE:
            continue
        function, inputs = prepare(name, case)
        if inputs:
            try:
                check(function, inputs)
            except Exception as e:
                raise AssertionError(f"{name}#{index} {operator} {case['variant']}: {type(e).__name__}: {e}") from e


# ---- every row of the signature table -----------------------------------------------------------------------------------------

ROWS = [row[1].split(" -> ")[0] for row in torch._flambeau._signature_rows()]
SHAPES = ((3, 3), (3,), (), (2, 3, 3), (2, 3, 4, 4), (1, 2, 3, 4, 4), (4, 3), (9,))


def parameters(signature):
    """Type, name, whether there is a default, and whether it is given by keyword, of each parameter."""
    keyword = False
    for part in re.split(r",\s*(?![^\[(]*[\])])", signature[signature.index("(") + 1 : -1]):
        keyword = keyword or part == "*"
        if part not in ("*", "/", ""):
            kind, _, rest = part.partition(" ")
            yield kind, rest.partition("=")[0], "=" in rest, keyword


def guess(kind, name, r, shape, dtype):
    """A value that a parameter may take."""
    if kind.startswith("Tensor["):
        return [guess("Tensor", "", r, shape, dtype) for _ in range(2)]
    if kind.startswith("Tensor"):
        if re.search("ind(ex|ices)$|^target$|offsets|lengths|repeats|pivots", name) and r.random() < 0.8:
            # No place twice: what several values that are written to one place give is nobody's derivative.
            first = torch.arange(shape[0] if shape else 1)
            own = r.choice((shape, shape[:1]))
            return first.reshape(-1, *[1] * (len(own) - 1)).expand(own).clone() if own else first[0]
        if re.search("mask|condition", name) and r.random() < 0.8:
            return torch.tensor([r.random() < 0.5 for _ in range(max(1, torch.Size(shape).numel()))]).reshape(shape)
        g = torch.Generator().manual_seed(r.randrange(1 << 30))
        own = shape if r.random() < 0.8 else r.choice(SHAPES)
        # Away from 0 and 1, where functions end; a little over one for those that begin there.
        return (torch.rand(own, dtype=dtype, generator=g) * 0.8 + r.choice((0.1, 0.1, 1.2))).requires_grad_()
    if kind.startswith("int["):
        return tuple(r.choice((0, 1, 1, 2, 3)) for _ in range(r.choice((1, 1, 2, 2, 3)))) if r.random() < 0.6 else shape
    return {
        "int": r.choice((1, 0, 2, 3)),
        "float": 0.5,
        "Number": r.choice((0.5, 2)),
        "bool": r.random() < 0.5,
        "dtype": dtype,
    }.get(kind.rstrip("?"), r.choice(("mean", "sum", "reduce", "ij", "constant", "amax")) if kind == "str" else None)


def reached(signature, dtype, tries=120):
    """A function and inputs at which a row gives a result that requires a gradient; None where no guess does."""
    path = signature[: signature.index("(")]
    wanted = list(parameters(signature))
    if not any(kind.startswith("Tensor") for kind, *_ in wanted):
        return None
    for attempt in range(tries):
        r = random.Random(f"{signature} {attempt}")
        shape = r.choice(SHAPES)
        args, kwargs, inputs = [], {}, []

        def own(x, inputs=inputs):
            if isinstance(x, torch.Tensor) and x.requires_grad:
                inputs.append(x)
                return Slot(len(inputs) - 1)
            return [own(y) for y in x] if isinstance(x, list) else x

        keyword = False
        for kind, name, default, by_keyword in wanted:
            if default and r.random() < 0.7:
                keyword = True
                continue
            value = own(guess(kind.split("|")[0] if r.random() < 0.6 else kind.split("|")[-1], name, r, shape, dtype))
            if keyword or by_keyword:
                kwargs[name] = value
            else:
                args.append(value)
        target = find(path)
        if target is None or not inputs:
            continue

        def function(*given, target=target, args=args, kwargs=kwargs):
            def fill(x):
                return given[x].clone() if isinstance(x, Slot) else [fill(y) for y in x] if isinstance(x, list) else x

            torch.manual_seed(0)
            out = target(*map(fill, args), **{k: fill(v) for k, v in kwargs.items()})
            return tuple(
                t
                for t in reference.leaves(torch, out)
                if t.layout is torch.strided and t.dtype in (torch.float64, torch.complex128)
            )

        try:
            outs = function(*inputs)
        except Exception:
            continue
        if outs and any(o.requires_grad and o.numel() for o in outs) and all(map(finite, outs)):
            return function, inputs
    return None


def find(path):
    """The operator as a function: from the namespace, or as a method."""
    for start in (torch, torch.Tensor):
        found = start
        for part in path.split("."):
            found = getattr(found, part, None)
        if callable(found):
            return found
    return None


# Rows that take what is not guessed from types.
TENSOR = torch.tensor([[0.3, -0.7, 1.1], [0.9, 0.4, -0.2], [-0.5, 0.8, 0.6]], dtype=torch.float64)
PATTERN = torch.tensor([[0, 0, 1, 2], [0, 2, 1, 0]])


def sparse(values):
    return torch.sparse_coo_tensor(PATTERN, values, (3, 3))


BY_HAND = {
    "where": (lambda a, b: torch.where(TENSOR > 0, a, b), 2),
    "index_put_": (lambda a, b: a.clone().index_put_((torch.tensor([2, 0]),), b[:2]), 2),
    "batch_norm": (lambda x, w: torch.batch_norm(x, w[0], w[1], None, None, True, 0.1, 1e-5, False), 2),
    "conv1d": (lambda x, w: torch.conv1d(x[None], w[:, :, None]), 2),
    "conv_transpose1d": (lambda x, w: torch.conv_transpose1d(x[None], w[:, :, None]), 2),
    "conv_transpose2d": (lambda x, w: torch.conv_transpose2d(x[None, None], w[None, None]), 2),
    "conv_transpose3d": (lambda x, w: torch.conv_transpose3d(x[None, None, None], w[None, None, None]), 2),
    "hspmm": (lambda v, d: torch.hspmm(sparse(v[0, :1].expand(4)), d).to_dense(), 2),
    "smm": (lambda v, d: torch.smm(sparse(v[0, :1].expand(4)), d).to_dense(), 2),
    "spmm": (lambda v, d: torch.spmm(sparse(v[0, :1].expand(4)), d), 2),
    "sspaddmm": (lambda v, d: torch.sspaddmm(sparse(v[1, :1].expand(4)), sparse(v[0, :1].expand(4)), d).to_dense(), 2),
    "sparse.mm": (lambda v, d: torch.sparse.mm(sparse(v[0, :1].expand(4)), d), 2),
    "sparse.addmm": (lambda v, d: torch.sparse.addmm(d, sparse(v[0, :1].expand(4)), d), 2),
    "sparse.sum": (lambda v: torch.sparse.sum(sparse(v.reshape(-1)[:4]), 0).to_dense(), 1),
    "sparse.softmax": (lambda v: torch.sparse.softmax(sparse(v.reshape(-1)[:4]), 1).to_dense(), 1),
    "sparse.log_softmax": (lambda v: torch.sparse.log_softmax(sparse(v.reshape(-1)[:4]), 1).to_dense(), 1),
    "sparse.sampled_addmm": (lambda a, b: torch.sparse.sampled_addmm(torch.eye(3, dtype=a.dtype).to_sparse_csr(), a, b).to_dense(), 2),
    "to_sparse": (lambda a: (a.to_sparse() * 2).to_dense(), 1),
    "to_sparse_coo": (lambda a: a.to_sparse_coo().to_dense(), 1),
    "to_sparse_csr": (lambda a: a.to_sparse_csr().to_dense(), 1),
    "to_sparse_csc": (lambda a: a.to_sparse_csc().to_dense(), 1),
    "to_sparse_bsr": (lambda a: a.to_sparse_bsr((3, 1)).to_dense(), 1),
    "to_sparse_bsc": (lambda a: a.to_sparse_bsc((1, 3)).to_dense(), 1),
    "sparse_coo_tensor": (lambda v: sparse(v.reshape(-1)[:4]).to_dense(), 1),
    "sparse_mask": (lambda a: a.sparse_mask(sparse(torch.ones(4)).coalesce()).to_dense(), 1),
    "values": (lambda v: sparse(v.reshape(-1)[:4]).coalesce().values(), 1),
    "coalesce": (lambda v: sparse(v.reshape(-1)[:4]).coalesce().to_dense(), 1),
    "T": (lambda a: a.T, 1),
    "mT": (lambda a: a.mT, 1),
    "H": (lambda a: a.H, 1),
    "mH": (lambda a: a.mH, 1),
    # With respect to one operand alone; PyTorch has no gradient for the other.
    "igamma": (lambda a: torch.igamma(TENSOR.abs() + 1, a.abs() + 0.5), 1),
    "igammac": (lambda a: torch.igammac(TENSOR.abs() + 1, a.abs() + 0.5), 1),
    "special.zeta": (lambda a: torch.special.zeta(TENSOR.abs() + 2, a.abs() + 0.5), 1),
    "frexp": (lambda a: torch.frexp(a + 0.03).mantissa, 1),
}  # fmt: skip
REAL = {"sparse.softmax", "sparse.log_softmax", "igamma", "igammac", "special.zeta", "frexp"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_by_hand(name, dtype):
    function, count = BY_HAND[name]
    if name in REAL:
        dtype = torch.float64
    turned = [TENSOR, TENSOR.T + 0.1][:count]
    inputs = [(t + (0.3j * t.flip(0) if dtype.is_complex else 0)).clone().requires_grad_() for t in turned]
    assert check(lambda *given: (function(*given),), inputs)


# Rows without a gradient: of whole numbers, conditions and places, of metadata, of what is made or drawn, and those that PyTorch has no
# gradient for.
NO_GRADIENT = set(
    """
    _int_mm all allclose any argmax argmin argsort argwhere bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor bool bucketize byte char count_nonzero eq equal gcd ge gt hash_tensor histc histogram _histogramdd_at
    _histogramdd_edges int isclose isfinite isin isinf isnan isneginf isposinf isreal lcm le logical_and logical_not logical_or
    logical_xor long lt ne nn.functional.one_hot nonzero nonzero_static searchsorted short signbit unique unique_consecutive
    unravel_index heaviside linalg.matrix_rank

    __array__ __complex__ __deepcopy__ __format__ __reduce_ex__ _check_sparse_invariants _coalesced_ _indices _nnz _values apply_
    as_subclass backward can_cast ccol_indices col_indices crow_indices data_ptr dense_dim detach detach_ dim dim_order element_size
    get_device indices item new numel numpy promote_types register_hook register_post_accumulate_grad_hook result_type retain_grad
    row_indices set_ size sparse_dim storage_offset stride tolist type cuda bfloat16 cfloat chalf float half

    arange as_tensor asarray bartlett_window blackman_window empty empty_like empty_permuted empty_strided eye fft.fftfreq
    fft.rfftfreq from_numpy frombuffer full full_like hamming_window hann_window kaiser_window linspace logspace new_empty
    new_empty_strided new_full new_tensor ones ones_like scalar_tensor tensor tril_indices triu_indices zeros zeros_like

    bernoulli binomial multinomial normal poisson rand rand_like randint randint_like randn randn_like randperm _sample_dirichlet
    _standard_gamma

    geqrf linalg.ldl_factor linalg.ldl_factor_ex linalg.ldl_solve resize_ resize_as_ sparse_resize_
    sparse_resize_and_clear_ special.airy_ai special.bessel_j0 special.bessel_j1 special.bessel_y0 special.bessel_y1
    special.modified_bessel_i0 special.modified_bessel_i1 special.modified_bessel_k0 special.modified_bessel_k1
    special.scaled_modified_bessel_k0 special.scaled_modified_bessel_k1 special.spherical_bessel_j0
    """.split()
)
NO_GRADIENT_PREFIXES = ("is_", "_is_", "signal.windows.", "special.chebyshev", "special.shifted", "special.hermite",
                        "special.laguerre", "special.legendre")  # fmt: skip
# Reached by the cases alone: what they compare does not depend on signs, phases and order, or has to be triangular, or of
# full rank, and no place is written twice.
CASES_ONLY = {"linalg.eig", "linalg.eigh", "linalg.svd", "svd", "linalg.lstsq", "put", "as_strided_scatter"}
# Written over in other rows' tests: parts of nn.LSTM, other constructors of what `sparse_coo_tensor` makes, signs of what is read.
ELSEWHERE = {
    "_lstm", "_weave", "_formally_reads", "_sparse_coo_tensor_unsafe", "sparse_csr_tensor", "sparse_csc_tensor", "sparse_bsr_tensor",
    "sparse_bsc_tensor", "sparse_compressed_tensor", "sparse.spdiags", "_neg_view",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_rows(dtype):
    by_case = {operator for _, operator in OPERATORS}
    checked, unexplained, wrong = 0, [], []
    for signature in ROWS:
        name = signature[: signature.index("(")]
        if name in NO_GRADIENT | CASES_ONLY or name in BY_HAND or name.startswith(NO_GRADIENT_PREFIXES):
            continue
        if name in HERMITIAN or name in TRIANGULAR:
            continue
        found = reached(signature, dtype)
        if found is None:
            # Functions of real numbers alone have no complex form, and the other way round.
            if name not in by_case | ELSEWHERE and not dtype.is_complex and reached(signature, torch.complex128) is None:
                unexplained.append(signature)
            continue
        try:
            check(*found)
            checked += 1
        except Exception as e:
            wrong.append(f"{signature}: {type(e).__name__}: {e}"[:400])
    assert not wrong, "\n".join(wrong)
    assert not unexplained, unexplained
    assert checked > 250, checked
