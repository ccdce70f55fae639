"""Gradients checked against finite differences.

The numerical Jacobian's columns are central differences, (f(x + ε eⱼ) - f(x - ε eⱼ)) / 2ε; for a complex input the steps ε and iε
are taken apart and combined to the conjugate derivative that backward computes. The fast mode compares one random projection
uᵀJv of the Jacobian instead of all of it, which takes two calls of the function for each input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._flambeau import Tensor
from .._ops import ops
from . import grad as _grad
from .grad_mode import enable_grad, no_grad


class GradcheckError(RuntimeError):
    """Raised by `gradcheck` and `gradgradcheck` when a gradient is wrong."""


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _differentiable(t: Any) -> bool:
    return isinstance(t, Tensor) and bool(t.is_floating_point() or t.is_complex())


def _outputs(value: Any) -> tuple[Tensor, ...]:
    """The outputs that carry gradients."""
    if value is None:
        raise ValueError("gradcheck expects the function to return tensors, but it returned None")
    return tuple(o for o in _as_tuple(value) if _differentiable(o) and o.requires_grad)


def _same_outputs(func: Callable[..., Any], inputs: tuple[Any, ...], chosen: list[int]) -> list[Tensor]:
    """Copies of the outputs numbered `chosen` at the inputs as they are now."""
    with no_grad():
        outs = [o for o in _as_tuple(func(*inputs)) if isinstance(o, Tensor)]
        return [outs[i].detach().clone() for i in chosen]


def _numerical(func: Callable[..., Any], inputs: tuple[Any, ...], x: Tensor, chosen: list[int], eps: float) -> list[Tensor]:
    """For each chosen output the Jacobian by `x`, one row for each element of `x`."""
    rows: list[list[Tensor]] = [[] for _ in chosen]
    data = x.data
    flat_index = list(_indices(tuple(data.shape)))

    def difference(index: Any, step: complex | float) -> list[Tensor]:
        with no_grad():
            before = data[index].clone()
            data[index] = before + step
            high = _same_outputs(func, inputs, chosen)
            data[index] = before - step
            low = _same_outputs(func, inputs, chosen)
            data[index] = before
        return [(a - b).reshape(-1) / (2 * eps) for a, b in zip(high, low, strict=True)]

    for index in flat_index:
        along = difference(index, eps)
        if x.is_complex():
            across = difference(index, 1j * eps)
            for row, ds, di in zip(rows, along, across, strict=True):
                row.append(_wirtinger(ds, di))
        else:
            for row, ds in zip(rows, along, strict=True):
                row.append(ds)
    outs = _same_outputs(func, inputs, chosen)
    return [
        ops.stack(row, 0) if row else ops.zeros((0, o.numel()), dtype=o.dtype) for row, o in zip(rows, outs, strict=True)
    ]


def _wirtinger(ds: Tensor, di: Tensor) -> Tensor:
    """Of an output's derivatives along the real and the imaginary axis: ds + i di, kept as a pair of rows."""
    return ops.stack([ds, di], 0)


def _indices(shape: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    if 0 in shape:
        return
    index = [0] * len(shape)
    while True:
        yield tuple(index)
        for d in reversed(range(len(shape))):
            index[d] += 1
            if index[d] < shape[d]:
                break
            index[d] = 0
        else:
            return


def _expected(numerical: Tensor, x: Tensor, out: Tensor, j: int, seed: complex) -> Tensor:
    """The gradient of `x` that a cotangent `seed` at element j of the output must give, from finite differences."""
    if x.is_complex():
        ds, di = numerical[:, 0, j], numerical[:, 1, j]
        # L = Re(conj(seed) f): its gradient is dL/da + i dL/db.
        real = (ds * seed.conjugate()).real if out.is_complex() else ds * seed.real
        imag = (di * seed.conjugate()).real if out.is_complex() else di * seed.real
        return ops.complex(real, imag)
    column = numerical[:, j]
    return (column * seed.conjugate()).real if out.is_complex() else column * seed.real


def _allclose(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    if a.numel() == 0:
        return True
    wide = ops.complex128 if a.is_complex() else ops.float64
    return bool(ops.allclose(a.detach().to(wide), b.detach().to(wide), rtol=rtol, atol=atol, equal_nan=True))


def _fail(message: str) -> None:
    raise GradcheckError(message)


def _analytical(out: Tensor, inputs: list[Tensor], seed: Tensor) -> tuple[Any, ...]:
    return _grad(out, inputs, seed, retain_graph=True, allow_unused=True)


def _filled(grads: tuple[Any, ...], inputs: list[Tensor]) -> list[Tensor]:
    return [ops.zeros_like(x.detach()) if g is None else g for g, x in zip(grads, inputs, strict=True)]


def _check_inputs(inputs: tuple[Any, ...], check_batched_grad: bool) -> list[Tensor]:
    wanted = []
    for i, x in enumerate(inputs):
        if not (isinstance(x, Tensor) and x.requires_grad):
            continue
        if x.dtype not in (ops.float64, ops.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex. This check will likely "
                "fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=4,
            )
        if any(stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)):
            raise RuntimeError(
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are non-overlapping to be able "
                "to compute the numerical gradients correctly. You should call .contiguous on the input before passing it to "
                "gradcheck."
            )
        wanted.append(x)
    if not wanted:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True."
        )
    for x in wanted:
        if x.is_leaf:
            x.grad = None
        else:
            x.retain_grad()
    return wanted


def _units(out: Tensor) -> Iterable[tuple[int, complex, Tensor]]:
    """Every element of an output with the cotangents that probe it: 1, and i for a complex output."""
    for j in range(out.numel()):
        for value in (1.0, 1j) if out.is_complex() else (1.0,):
            seed = ops.zeros(out.numel(), dtype=out.dtype, device=out.device)
            seed[j] = value
            yield j, complex(value), seed.reshape(out.shape)


def _mismatch(numerical: Tensor, analytical: Tensor, i: int, o: int, prefix: str = "") -> None:
    _fail(
        f"{prefix}Jacobian mismatch for output {o} with respect to input {i},\nnumerical:{numerical}\nanalytical:{analytical}\n"
    )


def _check_reverse(
    func: Callable[..., Any],
    inputs: tuple[Any, ...],
    wanted: list[Tensor],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_grad_dtypes: bool,
) -> None:
    value = func(*inputs)
    everything = [o for o in _as_tuple(value) if isinstance(o, Tensor)]
    chosen = [i for i, o in enumerate(everything) if _differentiable(o) and o.requires_grad]
    if not chosen:
        # Nothing leads back: then nothing may depend on the inputs.
        floating = [i for i, o in enumerate(everything) if _differentiable(o)]
        for x in wanted:
            for n in _numerical(func, inputs, x, floating, eps):
                if not _allclose(n, ops.zeros_like(n), rtol, atol):
                    _fail("Numerical gradient for function expected to be zero")
        return
    position = {id(x): i for i, x in enumerate(inputs)}
    numerical = [_numerical(func, inputs, x, chosen, eps) for x in wanted]
    for k, o in enumerate(chosen):
        out = everything[o]
        table: list[list[Tensor]] = [[] for _ in wanted]
        expected: list[list[Tensor]] = [[] for _ in wanted]
        for j, seed_value, seed in _units(out):
            raw = _analytical(out, wanted, seed)
            _check_form(raw, wanted, check_grad_dtypes)
            again = _analytical(out, wanted, seed)
            first, second = _filled(raw, wanted), _filled(again, wanted)
            _check_again(first, second, nondet_tol)
            for n, g in enumerate(first):
                table[n].append(g.detach().reshape(-1))
                expected[n].append(_expected(numerical[n][k], wanted[n], out, j, seed_value))
        for n, x in enumerate(wanted):
            if not table[n]:
                continue
            a, e = ops.stack(table[n], 1), ops.stack(expected[n], 1)
            if not _allclose(a, e.to(a.dtype), rtol, atol):
                _mismatch(e, a, position[id(x)], o)


def _random_direction(like: Tensor, generator: Any) -> Tensor:
    """A random tensor of length 1 with the shape and dtype of `like`."""
    made = ops.randn(like.shape, dtype=ops.float64, generator=generator)
    if like.is_complex():
        made = ops.complex(made, ops.randn(like.shape, dtype=ops.float64, generator=generator))
    return (made / (made.norm() + 1e-30)).to(like.dtype).to(like.device)


def _along(func: Callable[..., Any], inputs: tuple[Any, ...], x: Tensor, v: Tensor, chosen: list[int], eps: float) -> list[Tensor]:
    """The chosen outputs' derivatives along `v` at `x`, by central differences."""
    data = x.data
    with no_grad():
        before = data.clone()
        data.copy_(before + eps * v)
        high = _same_outputs(func, inputs, chosen)
        data.copy_(before - eps * v)
        low = _same_outputs(func, inputs, chosen)
        data.copy_(before)
    return [(a - b) / (2 * eps) for a, b in zip(high, low, strict=True)]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product of two tensors, in which complex numbers are pairs."""
    product = a.conj() * b
    return (product.real if product.is_complex() else product).sum()


def _check_reverse_fast(
    func: Callable[..., Any],
    inputs: tuple[Any, ...],
    wanted: list[Tensor],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_grad_dtypes: bool,
) -> None:
    everything = [o for o in _as_tuple(func(*inputs)) if isinstance(o, Tensor)]
    floating = [i for i, o in enumerate(everything) if _differentiable(o)]
    # Where nothing leads back, nothing may depend on the inputs.
    chosen = [i for i in floating if everything[i].requires_grad] or floating
    position = {id(x): i for i, x in enumerate(inputs)}
    generator = ops.Generator().manual_seed(0)
    directions = [_random_direction(x, generator) for x in wanted]
    slopes = [_along(func, inputs, x, v, chosen, eps) for x, v in zip(wanted, directions, strict=True)]
    for k, o in enumerate(chosen):
        out = everything[o]
        u = _random_direction(out, generator)
        if out.requires_grad:
            raw = _analytical(out, wanted, u)
            _check_form(raw, wanted, check_grad_dtypes)
            grads = _filled(raw, wanted)
            _check_again(grads, _filled(_analytical(out, wanted, u), wanted), nondet_tol)
        else:
            grads = [ops.zeros_like(x.detach()) for x in wanted]
        for x, v, slope, g in zip(wanted, directions, slopes, grads, strict=True):
            numerical, analytical = _inner(u, slope[k]), _inner(g.detach(), v)
            # Every entry of the Jacobian may be off by `atol`.
            if not _allclose(analytical, numerical, rtol, atol * float(u.abs().sum() * v.abs().sum())):
                if not out.requires_grad:
                    _fail("Numerical gradient for function expected to be zero")
                _mismatch(numerical, analytical, position[id(x)], o, "Along one random direction: ")


def _check_form(grads: tuple[Any, ...], inputs: list[Tensor], check_grad_dtypes: bool) -> None:
    for g, x in zip(grads, inputs, strict=True):
        if g is None:
            continue
        if g.layout != x.layout:
            _fail(f"grad is incorrect layout ({g.layout} is not {x.layout})")
        if g.shape != x.shape:
            _fail("grad is incorrect size")
        if check_grad_dtypes and g.dtype != x.dtype:
            _fail(f"grad is incorrect type: Expected gradient of dtype {x.dtype}, but got {g.dtype}")


def _check_again(first: list[Tensor], second: list[Tensor], nondet_tol: float) -> None:
    for g, h in zip(first, second, strict=True):
        if not _allclose(g, h, 0, nondet_tol):
            _fail(
                "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives "
                "different values, although analytical gradient matches numerical gradient. The tolerance for "
                f"nondeterminism was {nondet_tol}."
            )


def _check_forward(
    func: Callable[..., Any], inputs: tuple[Any, ...], wanted: list[Tensor], eps: float, atol: float, rtol: float, fast_mode: bool
) -> None:
    from . import forward_ad

    position = {id(x): i for i, x in enumerate(inputs)}
    with no_grad():
        everything = [o for o in _as_tuple(func(*inputs)) if isinstance(o, Tensor)]
    chosen = [i for i, o in enumerate(everything) if _differentiable(o)]
    generator = ops.Generator().manual_seed(0)

    def pushed(x: Tensor, tangent: Tensor) -> list[Tensor]:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.detach(), tangent)
            args = tuple(dual if a is x else a.detach() if isinstance(a, Tensor) else a for a in inputs)
            outs = [o for o in _as_tuple(func(*args)) if isinstance(o, Tensor)]
            tangents = [forward_ad.unpack_dual(outs[o]).tangent for o in chosen]
        return [
            (ops.zeros_like(everything[o]) if t is None else t).detach().reshape(-1)
            for o, t in zip(chosen, tangents, strict=True)
        ]

    for x in wanted:
        if fast_mode:
            v = _random_direction(x, generator)
            slopes = _along(func, inputs, x, v, chosen, eps)
            for o, want, got in zip(chosen, slopes, pushed(x, v), strict=True):
                if not _allclose(got, want.reshape(-1).to(got.dtype), rtol, atol * max(1.0, float(v.abs().sum()))):
                    _mismatch(want.reshape(-1), got, position[id(x)], o, "Forward mode, along one random direction: ")
            continue
        numerical = _numerical(func, inputs, x, chosen, eps)
        for n, index in enumerate(_indices(tuple(x.shape))):
            for axis, value in enumerate((1.0, 1j) if x.is_complex() else (1.0,)):
                tangent = ops.zeros_like(x.detach())
                tangent[index] = value
                for k, (o, got) in enumerate(zip(chosen, pushed(x, tangent), strict=True)):
                    want = numerical[k][n, axis] if x.is_complex() else numerical[k][n]
                    if not _allclose(got, want.to(got.dtype), rtol, atol):
                        _mismatch(want, got, position[id(x)], o, "Forward mode: ")


def _check_batched(out: Tensor, wanted: list[Tensor]) -> None:
    """The engine over a batch of cotangents against one at a time."""
    seeds = [ops.randn(out.shape, dtype=out.dtype, device=out.device) for _ in range(2)]
    one = [_filled(_analytical(out, wanted, s), wanted) for s in seeds]
    try:
        many = _grad(out, wanted, ops.stack(seeds), retain_graph=True, allow_unused=True, is_grads_batched=True)
    except RuntimeError as failure:
        raise GradcheckError(
            "While computing batched gradients, got an exception: "
            f"{failure}\n\ngradcheck or gradgradcheck failed while testing batched gradient computation."
        ) from failure
    for n, g in enumerate(many):
        want = ops.stack([o[n] for o in one])
        if g is None:
            g = ops.zeros_like(want)
        if not _allclose(g, want, 1e-5, 1e-8):
            _fail(f"For output 0 and input {n}: batched gradients differ from those computed one after the other\n{g}\n{want}")


def _check_scaled(func: Callable[..., Any], inputs: tuple[Any, ...], wanted: list[Tensor]) -> None:
    """A cotangent of zeros must give zeros."""
    outs = _outputs(func(*inputs))
    grads = _grad(outs, wanted, [ops.zeros_like(o) for o in outs], allow_unused=True)
    for g, x in zip(grads, wanted, strict=True):
        if g is None:
            continue
        if not bool((g == 0).all()):
            _fail("backward not multiplied by grad_output")
        if g.dtype != x.dtype or g.device != x.device:
            _fail("grad is incorrect type or device")
        if g.shape != x.shape:
            _fail("grad is incorrect size")


def _check_undefined(func: Callable[..., Any], inputs: tuple[Any, ...], wanted: list[Tensor]) -> None:
    """Cotangents that nobody sent must act as zeros."""
    outs = _outputs(func(*inputs))
    for missing in range(len(outs)):
        kept = [o for i, o in enumerate(outs) if i != missing]
        if not kept:
            continue
        try:
            some = _grad(kept, wanted, [ops.ones_like(o) for o in kept], retain_graph=True, allow_unused=True)
            full = _grad(
                outs,
                wanted,
                [ops.zeros_like(o) if i == missing else ops.ones_like(o) for i, o in enumerate(outs)],
                retain_graph=True,
                allow_unused=True,
            )
        except RuntimeError as failure:
            raise GradcheckError(
                "Expected backward function to handle undefined output grads. Please look at \"Notes about undefined output "
                f"gradients\": {failure}"
            ) from failure
        for a, b in zip(_filled(some, wanted), _filled(full, wanted), strict=True):
            if not _allclose(a, b, 1e-5, 1e-8):
                _fail("Expected all input grads to be undefined or zero when all output grads are undefined or zero.")


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether `func`'s gradients at `inputs` agree with finite differences: |analytical - numerical| ≤ atol + rtol |numerical|.

    Raises `GradcheckError` where they do not (or returns False with `raise_exception=False`).
    """
    if any(isinstance(x, Tensor) and x.layout is not ops.strided for x in _as_tuple(inputs)):
        from ..sparse import as_sparse_gradcheck

        return as_sparse_gradcheck(gradcheck)(  # type: ignore[no-any-return]
            func,
            inputs,
            eps=eps,
            atol=atol,
            rtol=rtol,
            raise_exception=raise_exception,
            nondet_tol=nondet_tol,
            check_undefined_grad=check_undefined_grad,
            check_grad_dtypes=check_grad_dtypes,
            check_batched_grad=check_batched_grad,
            check_batched_forward_grad=check_batched_forward_grad,
            check_forward_ad=check_forward_ad,
            check_backward_ad=check_backward_ad,
            fast_mode=fast_mode,
        )
    if not (check_forward_ad or check_backward_ad):
        raise AssertionError("Expected at least one of check_forward_ad or check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    args = _as_tuple(inputs)

    def check() -> bool:
        with enable_grad():
            wanted = _check_inputs(args, check_batched_grad)
            value = func(*args)
            for o in _as_tuple(value):
                if not isinstance(o, Tensor):
                    raise ValueError(
                        f"Expected function to return tensors or a sequence of tensors, but it returned a {type(o).__name__}"
                    )
            if check_forward_ad:
                _check_forward(func, args, wanted, eps, atol, rtol, fast_mode)
            if check_backward_ad:
                reverse = _check_reverse_fast if fast_mode else _check_reverse
                reverse(func, args, wanted, eps, atol, rtol, nondet_tol, check_grad_dtypes)
                outs = _outputs(value)
                if outs:
                    if check_batched_grad:
                        for out in outs:
                            _check_batched(out, wanted)
                    _check_scaled(func, args, wanted)
                    if check_undefined_grad:
                        _check_undefined(func, args, wanted)
        return True

    if raise_exception:
        return check()
    try:
        return check()
    except GradcheckError:
        return False


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`gradcheck` of the gradients themselves: second derivatives of `func` at `inputs` and random (or the given) `grad_outputs`."""
    if not (check_rev_over_rev or check_fwd_over_rev):
        raise AssertionError("Expected at least one of check_rev_over_rev or check_fwd_over_rev to be True")
    args = _as_tuple(inputs)
    count = len(args)
    if grad_outputs is None:
        seeds = []
        for o in _outputs(func(*args)):
            seed = ops.randn(o.shape, dtype=o.dtype, device=o.device)
            if gen_non_contig_grad_outputs and seed.dim():
                seed = ops.stack([seed, seed], -1)[..., 0]
            seeds.append(seed.detach().requires_grad_())
        cotangents: Sequence[Any] = tuple(seeds)
    else:
        cotangents = _as_tuple(grad_outputs)
    wanted = [i for i, x in enumerate(args) if _differentiable(x) and x.requires_grad]

    def first_gradients(*both: Any) -> Any:
        xs, gs = both[:count], both[count:]
        xs = tuple(x.requires_grad_() if i in wanted and not x.requires_grad else x for i, x in enumerate(xs))
        with enable_grad():
            outs = _outputs(func(*xs))
            grads = _grad(outs, [xs[i] for i in wanted], gs, create_graph=True, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(
        first_gradients,
        (*args, *cotangents),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
        masked=masked,
    )


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
