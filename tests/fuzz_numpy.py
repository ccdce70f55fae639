"""Compares every operator that has a namesake in NumPy with it, on random shapes, strides and dtypes.

    python tests/fuzz_numpy.py --seconds 600 --seed 7 --only cumsum

The list of operators is what both namespaces have (`torch.NAME` and `numpy.NAME`, likewise `linalg` and `fft`). Arguments come from
a few families; a pair of calls counts when both sides accept the arguments. What PyTorch does otherwise on purpose is said in
`DIFFERENT`. `test_fuzz.py` runs the short form.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import flambeau as torch
import numpy as np

DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
EPS = {"float16": 4e-3, "bfloat16": 1.6e-2, "float32": 3e-5, "complex64": 3e-5, "float64": 1e-10, "complex128": 1e-10}

# Names that mean something else in PyTorch, or are no functions of arrays.
DIFFERENT = {
    "__dir__ __getattr__ typename set_printoptions save load from_dlpack frombuffer asarray": "not operators",
    "empty empty_like": "values are whatever memory holds",
    "select put": "torch.select takes an index, numpy.select conditions",
    "can_cast promote_types result_type": "dtypes are compared in test_dtypes",
    "gradient histogramdd unravel_index broadcast_shapes einsum histogram": "arguments of their own: compared in test_numpy",
    "median nanmedian": "torch takes the lower of two middle values",
    "equal": "torch.equal is numpy.array_equal",
    "tril_indices triu_indices": "torch takes rows, columns and offset, numpy rows, offset and columns",
    "split hsplit vsplit dsplit": "torch.split takes sizes, numpy.split a number of parts",
}


def excluded() -> set[str]:
    return {name for names in DIFFERENT for name in names.split()}


def names() -> list[str]:
    """Functions that both have."""
    found = []
    for prefix, ours, theirs in (("", torch, np), ("linalg.", torch.linalg, np.linalg), ("fft.", torch.fft, np.fft)):
        for name in dir(theirs):
            f = getattr(theirs, name)
            if callable(f) and not isinstance(f, type) and hasattr(ours, name) and prefix + name not in excluded():
                found.append(prefix + name)
    return found


def get(module: Any, name: str) -> Callable[..., Any]:
    for part in name.split("."):
        module = getattr(module, part)
    return module  # type: ignore[no-any-return]


def array(r: random.Random, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values of a dtype, often with odd strides; now and then with what is not finite."""
    g = np.random.default_rng(r.getrandbits(32))
    if dtype == "bool":
        a = g.integers(0, 2, shape).astype(bool)
    elif np.dtype(dtype).kind in "iu":
        a = g.integers(0 if dtype == "uint8" else -9, 10, shape).astype(dtype)
    else:
        a = g.normal(size=shape) * r.choice((1, 1, 3))
        if dtype.startswith("complex"):
            a = a + 1j * g.normal(size=shape)
        elif r.random() < 0.3:
            a = np.round(a)
        a = np.asarray(a).astype(dtype)
        if a.size and r.random() < 0.1 and not dtype.startswith("complex"):
            a = np.array(a)
            a.reshape(-1)[r.randrange(a.size)] = r.choice((np.nan, np.inf, -np.inf, 0.0, -0.0))
    if a.ndim > 1 and r.random() < 0.3:
        a = np.ascontiguousarray(a.T).T
    elif a.ndim and r.random() < 0.2:
        a = np.stack([a, a], -1)[..., 0]
    return a


def shape(r: random.Random, least: int = 0) -> tuple[int, ...]:
    return tuple(r.choice((0, 1, 1, 2, 3, 4, 5)) for _ in range(r.randint(least, 4)))


def broadcastable(r: random.Random, s: tuple[int, ...]) -> tuple[int, ...]:
    s = tuple(1 if r.random() < 0.25 else n for n in s)
    return s[r.randint(0, len(s)) :] if r.random() < 0.3 else s


REDUCTIONS = set(
    "sum prod mean amax amin std var all any nansum nanmean count_nonzero cumsum cumprod argmax argmin sort argsort "
    "quantile nanquantile flip diff trapezoid max min logsumexp".split()
)


def arguments(r: random.Random, name: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Arrays and numbers for both, and keyword arguments for PyTorch and for NumPy."""
    base = name.rpartition(".")[2]
    dtype = r.choice(DTYPES)
    s = shape(r)
    kt: dict[str, Any] = {}
    kn: dict[str, Any] = {}
    if name.startswith("linalg.") or base in (
        "matmul",
        "dot",
        "inner",
        "outer",
        "vdot",
        "kron",
        "tensordot",
        "trace",
        "cross",
        "cov",
        "corrcoef",
    ):
        return linear(r, name)
    if name.startswith("fft."):
        args: list[Any] = [array(r, shape(r, 1), r.choice(DTYPES[5:]))]
        if base in ("fftfreq", "rfftfreq"):
            return [r.randint(1, 9), r.choice((0.5, 1.0, 2.0))], {}, {}
        if "shift" in base:
            return args, {}, {}
        nd = base.rstrip("2n") != base
        if not nd:
            d = r.randint(-args[0].ndim, args[0].ndim - 1)
            kt["dim"], kn["axis"] = d, d
            if r.random() < 0.4:
                kt["n"] = kn["n"] = r.randint(1, 6)
        if r.random() < 0.5:
            kt["norm"] = kn["norm"] = r.choice(("forward", "backward", "ortho"))
        return args, kt, kn
    if base in REDUCTIONS:
        a = array(r, s, dtype)
        args = [a]
        if base in ("quantile", "nanquantile"):
            args = [array(r, s, r.choice(("float32", "float64"))), r.choice((0.0, 0.25, 0.5, 0.9, 1.0))]
        if (
            base
            in (
                "amax",
                "amin",
                "sum",
                "mean",
                "std",
                "var",
                "prod",
                "all",
                "any",
                "argmax",
                "argmin",
                "nansum",
                "nanmean",
            )
            and r.random() < 0.4
        ):
            pass
        elif a.ndim:
            d = r.randint(-a.ndim, a.ndim - 1)
            if base in ("flip",):
                return [a, d], {}, {}
            kt["dim"], kn["axis"] = d, d
            if (
                base not in ("cumsum", "cumprod", "sort", "argsort", "diff", "trapezoid", "count_nonzero")
                and r.random() < 0.4
            ):
                kt["keepdim"] = kn["keepdims"] = True
        if base in ("std", "var"):
            kt["correction"] = kn["ddof"] = r.choice((0, 1, 2))
        if base in ("all", "any") and dtype == "uint8":
            args = [a.astype(bool)]
        if base == "argsort" and not a.ndim:
            args = [array(r, (3,), dtype)]
        if base in ("argsort", "sort"):
            kt["stable"] = kn["stable"] = True
        return args, kt, kn
    if base in ("arange", "linspace", "logspace"):
        return [r.randint(-5, 5), r.randint(-5, 9), *([r.randint(1, 7)])], {}, {}
    if base in ("eye", "tril_indices", "triu_indices"):
        return [r.randint(0, 5), r.randint(0, 5)], {}, {}
    if base in ("zeros", "ones"):
        return [s], {}, {}
    if base == "full":
        return [s, r.choice((1, 2.5, True))], {}, {}
    if base == "full_like":
        return [array(r, s, dtype), r.choice((0, 1))], {}, {}
    if base in ("reshape",):
        return [array(r, s, dtype), (-1,)], {}, {}
    if base in ("broadcast_to", "tile"):
        return (
            [
                array(r, broadcastable(r, s), dtype),
                s if base == "broadcast_to" else tuple(r.randint(0, 3) for _ in range(r.randint(0, 3))),
            ],
            {},
            {},
        )
    if base in ("roll", "rot90", "diag", "diagflat", "diagonal", "tril", "triu", "vander"):
        return [array(r, s, dtype), *([r.randint(-2, 3)] if r.random() < 0.7 or base == "roll" else [])], {}, {}
    if base in ("moveaxis", "swapaxes"):
        n = max(1, len(s))
        return [array(r, s or (2,), dtype), r.randint(-n, n - 1), r.randint(-n, n - 1)], {}, {}
    if base in ("transpose", "squeeze", "ravel"):
        return [array(r, s, dtype)], {}, {}
    if base in (
        "stack",
        "concat",
        "concatenate",
        "hstack",
        "vstack",
        "dstack",
        "column_stack",
        "row_stack",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
    ):
        parts = tuple(array(r, s, r.choice(DTYPES) if r.random() < 0.3 else dtype) for _ in range(r.randint(1, 3)))
        return [parts if not base.startswith("atleast") else parts[0]], {}, {}
    if base == "meshgrid":
        return (
            [array(r, (r.randint(0, 4),), dtype) for _ in range(r.randint(1, 3))],
            {"indexing": "ij"},
            {"indexing": "ij"},
        )
    if base == "take":
        a = array(r, tuple(max(1, n) for n in s) or (3,), dtype)
        return [a, np.random.default_rng(r.getrandbits(32)).integers(-a.size, a.size, shape(r))], {}, {}
    if base in ("all", "any"):
        return [array(r, s, r.choice(("bool", "int64", "float32")))], {}, {}
    if base == "searchsorted":
        d = r.choice(("float32", "float64", "int64"))
        right = r.random() < 0.5
        return (
            [np.sort(np.nan_to_num(array(r, (r.randint(0, 6),), d))), array(r, s, d)],
            {"right": right},
            {"side": "right" if right else "left"},
        )
    if base == "bincount":
        return [np.abs(array(r, (r.randint(0, 9),), "int64"))], {"minlength": 3}, {"minlength": 3}
    if base == "where":
        return (
            [
                array(r, broadcastable(r, s), "bool"),
                array(r, s, dtype),
                array(r, broadcastable(r, s), r.choice(DTYPES)),
            ],
            {},
            {},
        )
    if base in ("clip",):
        return [array(r, s, dtype), *sorted((r.randint(-3, 3), r.randint(-3, 3)))], {}, {}
    if base in ("nan_to_num", "unique", "nonzero", "argwhere"):
        return [array(r, s, dtype)], {"as_tuple": True} if base == "nonzero" else {}, {}
    if base in ("round", "angle"):
        # NumPy rounds conditions to half precision, and takes the angle of -0.0 for π.
        return [array(r, s, r.choice(("float32", "float64")) if base == "round" else "complex64")], {}, {}
    if base in ("reciprocal", "heaviside", "sign"):
        # Of whole numbers torch answers in floating point, or in whole numbers, and the sign of NaN is 0.
        a = [
            np.nan_to_num(array(r, s, r.choice(("float32", "float64")))) for _ in range(2 if base == "heaviside" else 1)
        ]
        return a, {}, {}
    # One, two or three operands, whatever the function takes.
    n = r.choice((1, 2))
    others = dtype if r.random() < 0.6 else r.choice(DTYPES)
    args = [array(r, s, dtype)]
    if n == 2:
        args.append(array(r, broadcastable(r, s), others))
        if r.random() < 0.1:
            args[1] = r.choice((0, 1, 2, -1, 2.5))
    return args, kt, kn


def linear(r: random.Random, name: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Operands of products and decompositions; of finite numbers, since a matrix with another has no one answer."""
    args, kt, kn = matrices(r, name)
    clean = name.startswith("linalg.") or name in ("cov", "corrcoef")
    return over_arrays(lambda a: np.nan_to_num(a, posinf=1, neginf=-1), args) if clean else args, kt, kn


def matrices(r: random.Random, name: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """`linear` before what is not finite is taken out."""
    base = name.rpartition(".")[2]
    dtype = r.choice(("float32", "float64", "complex64", "complex128") if name.startswith("linalg.") else DTYPES)
    batch = tuple(r.randint(0, 3) for _ in range(r.choice((0, 0, 1, 2))))
    n, m, k = (r.randint(0, 5) for _ in range(3))
    if base in ("det", "slogdet", "inv", "eig", "eigvals", "matrix_power", "solve", "cond", "tensorinv"):
        a = array(r, (*batch, n, n), dtype)
        a = np.asarray(a + 2 * np.eye(n)).astype(dtype)
        if base == "matrix_power":
            return [a, r.randint(-2, 4)], {}, {}
        return [a, *([array(r, (*batch, n, k), dtype)] if base == "solve" else [])], {}, {}
    if base in ("cholesky", "eigh", "eigvalsh"):
        a = array(r, (*batch, n, n), dtype)
        a = np.asarray(a @ a.conj().swapaxes(-1, -2) + np.eye(n)).astype(dtype)
        return [a], {}, {}
    if base in ("cross",):
        s = (*batch, 3)
        return [array(r, s, dtype), array(r, s, dtype)], {} if name.startswith("linalg") else {"dim": -1}, {}
    if base in ("vecdot", "dot", "inner", "vdot", "outer"):
        return [array(r, (n,), dtype), array(r, (n,) if base != "outer" else (m,), dtype)], {}, {}
    if base in ("norm", "vector_norm", "matrix_norm"):
        order = (
            r.choice((1, 2, np.inf, -np.inf, 0, 3))
            if base == "vector_norm"
            else r.choice(("fro", "nuc", 1, 2, -1, -2, np.inf, -np.inf))
        )
        return (
            [
                array(r, (*batch, max(n, 1), max(m, 1)) if base != "norm" else (n + 1, m + 1), dtype),
                *([order] if base == "norm" else []),
            ],
            {"ord": order} if base != "norm" else {},
            {"ord": order} if base != "norm" else {},
        )
    if base == "trace":
        return [array(r, (n, m), dtype)], {}, {}
    if base in ("cov", "corrcoef"):
        return [array(r, (max(n, 1), m + 2), dtype)], {}, {}
    if base == "kron":
        return [array(r, shape(r), dtype), array(r, shape(r), dtype)], {}, {}
    if base == "tensordot":
        a, b = array(r, (n, m, k), dtype), array(r, (m, k, n), dtype)
        return [a, b, 2], {}, {}
    if base == "multi_dot":
        return [[array(r, (n, m), dtype), array(r, (m, k), dtype), array(r, (k, n), dtype)]], {}, {}
    if base == "diagonal":
        return [array(r, (*batch, n, m), dtype)], {"offset": r.randint(-2, 2)} if r.random() < 0 else {}, {}
    if base == "matmul":
        if r.random() < 0.3:
            return [array(r, (n,), dtype), array(r, (*batch, n, k), dtype)], {}, {}
        return (
            [array(r, (*batch, n, m), dtype), array(r, (m, k) if r.random() < 0.5 else (*batch, m, k), dtype)],
            {},
            {},
        )
    return [array(r, (*batch, n, m), dtype)], {}, {}


def over_arrays(f: Callable[[np.ndarray], Any], x: Any) -> Any:
    """`x` with every array in it replaced."""
    if isinstance(x, np.ndarray):
        return f(x)
    return type(x)(over_arrays(f, y) for y in x) if isinstance(x, (tuple, list)) else x


def tensors(x: Any) -> Any:
    return over_arrays(
        lambda a: torch.from_numpy(a) if a.flags.writeable and all(s >= 0 for s in a.strides) else torch.tensor(a), x
    )


def wide(x: Any) -> Any:
    """Arrays in double precision, so that NumPy's small types do not decide."""
    return over_arrays(
        lambda a: a.astype("complex128" if a.dtype.kind == "c" else "float64") if a.dtype.kind in "fc" else a, x
    )


def floating(x: Any) -> Any:
    """Arrays of whole numbers as float64: NumPy's functions of small integers answer in half precision."""
    return over_arrays(lambda a: a.astype("float64") if a.dtype.kind in "biu" else a, wide(x))


def flat(x: Any) -> list[np.ndarray]:
    if isinstance(x, (tuple, list)):
        return [a for y in x for a in flat(y)]
    if isinstance(x, torch.Tensor):
        x = x.detach().resolve_conj()
        return [(x.float() if x.dtype == torch.bfloat16 else x).numpy()]
    return [np.asarray(x)]


def unique_form(name: str, out: Any) -> Any:
    """Decompositions without the freedom of sign, phase and order."""
    base = name.rpartition(".")[2]
    if base in ("sort", "max", "min", "cummax") and isinstance(out, tuple):
        return out[0]
    if base == "unique_values":
        return np.sort(flat(out)[0])
    if base == "cond":
        # The nearer a matrix is to a singular one, the less digits its condition has; of no matrix but zeros, 0 / 0 is none.
        a = flat(out)[0]
        with np.errstate(all="ignore"):
            return np.nan_to_num(1 / a).astype(a.dtype)
    if base == "slogdet":
        # Of a singular matrix the sign is that of a rounding error.
        sign, logarithm = flat(out)
        return sign * np.exp(logarithm)
    if base in ("eig", "eigvals"):
        # Of what several eigenvalues lie close to, the polynomial is known to full precision, and they are not.
        values = np.sort_complex(flat(out)[0])
        return (
            np.apply_along_axis(np.poly, -1, values).astype(values.dtype)
            if np.isfinite(values).all() and values.size
            else values
        )
    if base == "eigh":
        return flat(out)[0]
    if base == "svd":
        return flat(out)[1]
    if base == "qr":
        # Of a matrix of deficient rank R has more freedom than signs; its square has none.
        upper = flat(out)[1]
        return upper.conj().swapaxes(-1, -2) @ upper
    return out


def compare(name: str, ours: Any, theirs: Any, eps: float) -> str | None:
    """What differs, or None."""
    a, b = flat(unique_form(name, ours)), flat(unique_form(name, theirs))
    if len(a) != len(b):
        return f"{len(a)} results, NumPy has {len(b)}"
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return f"shape {x.shape}, NumPy's is {y.shape}"
        kinds = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
        if x.dtype.kind == "b" and y.dtype.kind in "iu":
            # Of conditions NumPy's arithmetic makes int8.
            y = y.astype(bool)
        if kinds[x.dtype.kind] != kinds[y.dtype.kind]:
            return f"dtype {x.dtype}, NumPy's is {y.dtype}"
        if x.dtype.kind in "iub":
            same = x.astype(y.dtype) == y if x.dtype.itemsize >= y.dtype.itemsize else x == y.astype(x.dtype)
        else:
            with np.errstate(all="ignore"):
                eps = max(eps, EPS[x.dtype.name])
                y = y.astype(x.dtype)
                x, y = x.astype("c16"), y.astype("c16")
                scale = 1 + np.abs(np.where(np.isfinite(y), y, 0)).max(initial=0)
                same = (x == y) | (np.abs(x - y) <= eps * scale) | (np.isnan(x) & np.isnan(y))
                # A complex number that is not finite in one part says nothing of the other.
                same |= ~np.isfinite(x) & ~np.isfinite(y) & (np.iscomplexobj(a[0]))
        if not np.all(same):
            return f"values {x[~same].ravel()[:3]}, NumPy's are {y[~same].ravel()[:3]}"
    return None


def incomparable(name: str, args: Any) -> bool:
    """Whether NumPy's result follows from how it computes, or from its rules for dtypes."""
    arrays: list[np.ndarray] = []
    over_arrays(lambda a: arrays.append(a), list(args))
    base = name.rpartition(".")[2]
    if base in ("quantile", "nanquantile"):
        # NumPy multiplies the neighbour by a weight of zero.
        return any(a.dtype.kind == "f" and np.isinf(a).any() for a in arrays)
    if name.startswith("fft."):
        # Which of the results a NaN or an infinity reaches as which is the algorithm's.
        return any(a.dtype.kind in "fc" and not np.isfinite(a).all() for a in arrays)
    if base == "nextafter":
        # The next number in double precision is another than in single precision.
        return len({a.dtype for a in arrays}) > 1
    return False


def show(args: Any) -> str:
    if isinstance(args, np.ndarray):
        return (
            f"np.array({args.tolist()}, '{args.dtype}').reshape({args.shape})"
            if args.size < 40
            else f"<{args.dtype} {args.shape}>"
        )
    if isinstance(args, (tuple, list)):
        return "[" + ", ".join(map(show, args)) + "]"
    return repr(args)


def run(seconds: float, seed: int = 0, only: str = "", stop: int = 1 << 60) -> tuple[Counter[str], list[str]]:
    """How many calls of each operator both accepted, and what differed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    end, counts, findings = time.monotonic() + seconds, Counter[str](), []
    every = [n for n in names() if only in n]
    for index in itertools.count():
        if time.monotonic() > end or index >= stop:
            return counts, findings
        r = random.Random(f"{seed}:{index}")
        name = every[index % len(every)]
        args, kt, kn = arguments(r, name)
        with np.errstate(all="ignore"):
            try:
                theirs = get(np, name)(*wide(args), **kn)
                plain = get(np, name)(*args, **kn)
                ours = get(torch, name)(*tensors(args), **kt)
            except Exception as e:
                if "internal error" in str(e):
                    findings.append(f"{index}: {name}({show(args)}, {kt}): {e}")
                continue
        if incomparable(name, args):
            continue
        counts[name] += 1
        # An eigenvalue that a matrix has twice is known to the root of the precision.
        least = 1e-6 if "linalg.eig" in name else 0
        eps = max((EPS.get(a.dtype.name, 0) for a in args if isinstance(a, np.ndarray)), default=0)
        eps = max(eps, least)
        try:
            wrong = compare(name, ours, theirs, eps)
            if wrong and compare(name, ours, plain, eps) is None:
                wrong = None
            if wrong:
                with np.errstate(all="ignore"):
                    wrong = compare(name, ours, get(np, name)(*floating(args), **kn), eps) and wrong
        except Exception as e:
            wrong = f"{type(e).__name__}: {e}"
        if wrong:
            findings.append(f"{index}: {name}({show(args)}, {kt}): {wrong}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the operators' names")
    options = parser.parse_args()
    counted, found = run(options.seconds, options.seed, options.only)
    print("\n".join(found))
    print(f"{counted.total()} calls of {len(counted)} operators, {len(found)} findings")
    print("never compared:", sorted(set(n for n in names() if options.only in n) - set(counted)))
    sys.exit(bool(found))
