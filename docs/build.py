"""Builds the documentation: a page for each kind of operators, from the signature table and docs/operators.txt; a table of what runs on
CUDA, from the sources; the guides; and Rust's own documentation beside them.

    python -m pip install ".[docs]"
    python docs/build.py                # target/site/index.html; --no-rust leaves cargo doc out

What each page shows of an operator is derived: signatures, forms and other names from the table that the extension was built from, the
meaning of arguments from their types and names, and the result of an example from running it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "target" / "pages"
SITE = ROOT / "target" / "site"

# What examples are about.
SETTING = """import numpy
import flambeau as torch
import flambeau.nn.functional as F

x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
v = torch.tensor([0.25, 0.5, 0.75])
a = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
n = torch.tensor([5, 3, 8])
i = torch.tensor([0, 2])
z = torch.tensor([1 + 1j, 2 - 1j])
s = x.to_sparse()
img = torch.arange(16.0).view(1, 1, 4, 4)
"""

_TYPES = {
    "Tensor": "tensor", "Tensor|Number": "tensor or number", "Tensor[]": "sequence of tensors", "Tensor[*]": "tensors, one by one or in a sequence",
    "Tensor?[]": "sequence of tensors or None", "Number": "number", "int": "int", "float": "float", "bool": "bool", "str": "str", "int[]": "ints",
    "int[2]": "an int or two", "int[*]": "ints, one by one or in a sequence", "float[]": "floats", "bool[]": "bools", "dtype": "dtype",
    "device": "device", "layout": "layout", "memory_format": "memory format", "Generator": "random generator", "object": "object",
}  # fmt: skip
_NAMES = {
    "dim": "the dimension, from the end where negative", "keepdim": "whether reduced dimensions stay, with size 1",
    "dtype": "the dtype of the result, and of what is computed", "device": "where the result lies",
    "generator": "the stream of random numbers; the default one unless given", "memory_format": "the order of the result's dimensions in memory",
    "requires_grad": "whether gradients of the result are wanted", "inplace": "whether to write onto the operand", "alpha": "a factor",
    "beta": "a factor", "eps": "a small number that keeps divisors from zero", "largest": "whether the greatest count, not the least",
    "descending": "whether the greatest comes first", "stable": "whether equal elements keep their order",
    "weight": "what the normalised or windowed values are multiplied by", "bias": "what is added, one for each output channel",
    "stride": "steps between windows", "padding": "how much is added at each border", "dilation": "steps within a window",
    "groups": "into how many groups channels are divided", "kernel_size": "the window's sizes", "p": "an order or a probability",
    "correction": "what is taken off the count", "unbiased": "whether the count is corrected by one", "upper": "whether the upper triangle",
    "non_blocking": "accepted; copies are in order anyway", "pin_memory": "whether to pin the memory for transfers",
    "norm": '"forward", "backward" or "ortho": which direction is scaled', "k": "how many, or which rank", "size": "the sizes",
    "index": "int64 indices", "indices": "int64 indices", "mask": "bools that broadcast with the operand", "training": "whether in training",
    "offset": "which diagonal: above 0, above the main one", "diagonal": "which diagonal: above 0, above the main one",
    "sym": "whether symmetric, for filters, not periodic", "M": "how many numbers",
    "rounding_mode": 'None, "floor" or "trunc"', "min": "the lower bound", "max": "the upper bound", "layout": "strided or a sparse layout",
    "copy": "whether always to copy", "atol": "an absolute tolerance", "rtol": "a relative tolerance", "ord": "the norm's order",
    "check_errors": "whether a failure raises instead of being a code", "hermitian": "whether matrices are taken for Hermitian",
    "accumulate": "whether to add instead of to write", "interpolation": "how to go between two elements", "n": "a count",
    "s": "the transform's sizes, which cut or pad", "ceil_mode": "whether a window may begin within the last step", "other": "any sizes",
    "tensors": "of sizes that fit each other", "value": "a factor, or what is written", "dim0": "a dimension", "dim1": "a dimension",
    "dim2": "a dimension", "dims": "dimensions, from the end where negative", "output_size": "the result's sizes", "train": "whether in training",
    "values": "what is stored, one for each place", "source": "what is written, one for each index", "src": "what is written, as large as its place",
    "dense_dim": "how many last dimensions are stored densely", "sparse_dim": "how many first dimensions are stored by place",
    "start": "the first value or index", "end": "the last value, or the index behind", "step": "steps between values or windows",
    "steps": "how many values", "return_indices": "whether places are returned too", "check_invariants": "whether to check the indices",
    "fill_value": "what every element is", "left": "whether the matrix stands to the left", "window_length": "how many points",
    "periodic": "whether to be continued periodically", "lambd": "a threshold, or a rate", "threshold": "from where on", "min_val": "the lower bound",
    "max_val": "the upper bound", "storage_offset": "the first element's place in memory", "sections": "how many pieces",
    "reduce": "how values at one place are combined", "out_dtype": "the result's dtype", "std": "standard deviations", "mean": "means",
    "mat1": "(m, n)", "mat2": "(n, p)", "lower": "the lower bound, or whether the lower triangle", "low": "the least value",
    "high": "the value behind the greatest", "normalized_shape": "the last sizes, over which is normalised", "data": "numbers, arrays or sequences",
    "to": "the bound, exclusive", "from": "the least value", "shape": "the sizes", "sizes": "the sizes", "length": "how many elements",
    "pivot": "whether rows are exchanged", "driver": "LAPACK's name for a method; accepted",
    "center": "whether windows are centred on their step", "output_padding": "how much is added to one side of the result",
    "count_include_pad": "whether the border counts in averages", "divisor_override": "what to divide by instead of the window's size",
    "sparse": "whether the gradient is sparse", "sparse_grad": "whether the gradient is sparse", "blocksize": "the blocks' two sizes",
    "equal_nan": "whether NaN equals NaN", "negative_slope": "the slope below 0", "count": "how many", "row": "how many rows",
    "col": "how many columns", "tensor": "any sizes", "hook": "a function of the gradient, or of the tensor", "dimension": "along which dimension",
    "split_size": "a piece's size", "split_sizes": "the pieces' sizes", "repeats": "how many times", "q": "between 0 and 1", "y": "values",
    "dx": "the distance of neighbours", "sorted": "whether in order", "out_int32": "whether indices are int32",
    "right": "whether behind equal elements", "return_inverse": "whether each element's place is returned too",
    "return_counts": "whether counts are returned too", "bins": "how many bins, or their edges", "range": "the outer edges",
    "include_self": "whether what was there counts", "unitriangular": "whether the diagonal counts as ones", "transpose": "whether transposed",
    "some": "whether reduced", "full_matrices": "whether factors are square", "UPLO": "which triangle is read", "rcond": "a relative tolerance",
    "d": "the distance of two points", "n_fft": "a transform's size", "hop_length": "steps between windows", "win_length": "a window's size",
    "window": "(win_length)", "normalized": "whether to divide by the root of the size", "onesided": "whether half of the frequencies suffice",
    "return_complex": "whether the result is complex", "momentum": "the newest value's share in running statistics",
    "padding_idx": "a row that gets no gradient", "scale_grad_by_freq": "whether gradients are divided by how often a row is used",
    "crow_indices": "(rows + 1), where each row begins", "ccol_indices": "(columns + 1), where each column begins",
    "col_indices": "each value's column", "row_indices": "each value's row", "weights": "one for each element", "fweights": "whole weights",
    "aweights": "weights", "boundaries": "sorted", "sorted_sequence": "sorted along its last dimension", "elements": "any sizes",
    "test_elements": "any sizes", "is_causal": "whether later keys are hidden", "dropout_p": "a probability", "scale": "a factor",
}  # fmt: skip
_BASES = {"float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16", "bool": "bool", "byte": "uint8", "char": "int8",
          "short": "int16", "int": "int32", "long": "int64", "chalf": "complex32", "cfloat": "complex64", "cdouble": "complex128"}  # fmt: skip
_FORMS = {
    "method": "method", "inplace": "in place", "inplace_function": "in place as a function", "out": "`out=`", "property": "property",
}  # fmt: skip


class Operator(NamedTuple):
    """What the pages say of one operator."""

    name: str
    section: str
    text: str
    example: str
    signatures: list[str]
    forms: str


def signatures() -> dict[str, list[tuple[str, str]]]:
    """Signatures and forms of every public operator, by name."""
    from flambeau import _flambeau

    found: dict[str, list[tuple[str, str]]] = {}
    for name, text, forms in _flambeau._signature_rows():
        if not name.rpartition(".")[2].startswith("_"):
            found.setdefault(name, []).append((text, forms))
    return found


def table() -> dict[str, tuple[str, str, str]]:
    """Section, line and example by name, as docs/operators.txt has them."""
    entries, section = {}, ""
    for line in (ROOT / "docs" / "operators.txt").read_text().splitlines():
        if line.startswith("# "):
            section = line[2:]
        elif line:
            # The first and the last bar part; in between they are a norm's.
            name, rest = line.split(" | ", 1)
            text, bar, example = rest.rpartition(" | ")
            entries[name] = (section, text, example) if bar else (section, rest, "")
    return entries


def _derived(name: str, entries: dict[str, tuple[str, str, str]]) -> tuple[str, str, str] | None:
    """What follows from another operator, or from the name."""
    place, _, last = name.rpartition(".")
    for ending, words in (("_", "in place"), ("_copy", "with memory of its own")):
        base = last.removesuffix(ending)
        source = next((p for p in (f"{place}.{base}" if place else base, base, f"nn.functional.{base}") if p in entries), None)
        if base != last and source is not None:
            section, _, example = entries[source]
            example = example.replace(f"torch.{base}(", f"torch.{last}(") if ending == "_copy" else ""
            return section, f"`{base}` {words}.", example
    if place == "nn.functional" and last in entries:
        return "Activations", entries[last][1], entries[last][2].replace("torch.", "F.", 1)
    if last in _BASES and not place:
        return "Dtypes, devices and properties", f"The tensor in {_BASES[last]}.", f"x.{last}()"
    if "polynomial" in last:
        kind = last.rpartition("_polynomial_")[0].replace("_", " ").title()
        return "Special functions", f"The {kind} polynomial {last[-1].upper()} of the given degree.", f"torch.{name}(v, 3)"
    if "window" in name:
        kind = last.removesuffix("_window").title()
        return "Fourier transforms and windows", f"{kind}'s window.", f"torch.{name}(5)"
    if f"nn.functional.{last}" in entries and not place:
        return entries[f"nn.functional.{last}"]
    return None


def _example(name: str, rows: list[tuple[str, str]]) -> str:
    """The usual example: an operator of one or two tensors."""
    last, (text, forms) = name.rpartition(".")[2], rows[0]
    if "property" in forms.split():
        return f"x.{last}"
    values = ", ".join(["v", "v + 1"][: len(re.findall(r"Tensor\b[^,)]* \w+(?=[,)]|$)", text.partition(" ->")[0]))] or ["v"])
    if "function" in forms.split():
        return f"{'F.' + last if name.startswith('nn.functional.') else 'torch.' + name}({values})"
    return f"v.clone().{last}({values.partition(', ')[2]})"


def operators() -> list[Operator]:
    """Every public operator, in the order of the table."""
    entries, found, order = table(), [], list(table())
    for name, rows in signatures().items():
        entry = entries.get(name) or _derived(name, entries)
        if entry is None:
            if name.startswith("__"):
                continue
            raise LookupError(f"docs/operators.txt has no line for {name}")
        section, text, example = entry
        found.append(Operator(name, section, text, example or _example(name, rows), [t for t, _ in rows], rows[0][1]))
    place = {name: k for k, name in enumerate(order)}
    sections = list(dict.fromkeys(s for s, _, _ in entries.values()))
    return sorted(found, key=lambda o: (sections.index(o.section), place.get(o.name, len(place)), o.name))


def run_example(operator: Operator) -> str:
    """What an operator's example gives, as text."""
    space: dict[str, Any] = {}
    exec(SETTING, space)  # noqa: S102
    space["torch"].manual_seed(0)
    result = eval(operator.example, space)  # noqa: S307
    return "" if result is None else repr(result)


def arguments(operator: Operator) -> list[tuple[str, str, str]]:
    """Name, type and meaning of every argument of all overloads."""
    found: dict[str, tuple[str, str, str]] = {}
    elementwise = operator.section in ("Element by element", "Activations", "Special functions")
    shaped = operator.section in ("Products", "Linear algebra", "Networks")
    for text in operator.signatures:
        inner = text.partition("(")[2].rpartition(" ->")[0] or text.partition("(")[2]
        for part in re.split(r",\s*(?![^\[]*\])", inner.rpartition(")")[0]):
            words = part.split("=", 1)[0].split()
            if len(words) != 2:
                continue
            kind, name = words
            meaning = _NAMES.get(name, "")
            if kind.startswith("Tensor") and shaped:
                meaning = meaning if name in ("bias", "index", "indices") else "sizes as said above"
            elif kind.startswith("Tensor") and not meaning:
                meaning = "any sizes" if name in ("input", "x") else "broadcasts with the first operand" if elementwise else ""
            default = part.partition("=")[2]
            label = _TYPES.get(kind.rstrip("?"), _TYPES.get(kind, kind)) + (" or None" if kind.endswith("?") else "")
            found.setdefault(name, (name, label, meaning + (f" (default {default})" if default else "")))
    return list(found.values())


def errors(operator: Operator) -> list[str]:
    """What an operator raises, from its arguments."""
    names = {name for name, _, _ in arguments(operator)}
    said = ["`TypeError`: an argument is missing, unknown or of another type."]
    if names & {"dim", "dims", "dim0", "start_dim", "axis"}:
        said.append("`IndexError`: a dimension is out of range.")
    if names & {"index", "indices"} and operator.section == "Indexing":
        said.append("`IndexError` or `RuntimeError`: an index is out of range.")
    if operator.section == "Element by element" and "other" in names:
        said.append("`RuntimeError`: the sizes do not broadcast.")
    if operator.section in ("Products", "Networks"):
        said.append("`RuntimeError`: the sizes or dtypes do not fit each other; the message has them.")
    if operator.section == "Linear algebra":
        said.append("`LinAlgError`: a matrix is singular, not positive-definite or not finite where it must be. `RuntimeError`: not a matrix.")
    if names & {"size", "sizes", "steps", "window_length", "M"} or operator.name in ("eye", "arange", "fft.fftfreq", "fft.rfftfreq"):
        said.append("`RuntimeError`: a size is negative. `OutOfMemoryError`: the result does not fit into memory.")
    if "out" in operator.forms.split():
        said.append("`RuntimeError`: the result cannot be cast to `out`'s dtype.")
    return said


def refused(operator: Operator) -> list[str]:
    """What an operator raises where its example is made with tensors of another dtype or of sizes that nobody expects."""
    said: dict[str, list[str]] = {}
    # Beside tensors that the example makes itself, another dtype would not be the reason.
    alone = not re.search(r"torch\.(ones|zeros|eye|a?range|tensor|rand\w*|full|linspace)\(", operator.example)
    for dtype in ("bool", "int64", "float16", "complex64") if alone else ():
        failure = _failure(operator.example, dtype)
        if failure is not None:
            said.setdefault(type(failure).__name__, []).append(dtype)
    out = [f"`{kind}`: tensors of dtype {' or '.join(dtypes)}." for kind, dtypes in said.items()]
    places = [m.span() for m in re.finditer(r"\b[vxanisz]\b(?!\s*=)", operator.example)]
    for begin, end in places[-1:]:
        failure = _failure(f"{operator.example[:begin]}torch.ones(2, 7, 5){operator.example[end:]}")
        if failure is not None:
            message = re.sub(r"\s+", " ", str(failure)).strip().replace("`", "'")
            out.append(f"`{type(failure).__name__}` for sizes that do not fit, as `{message[:200]}`.")
    return out


def _failure(example: str, dtype: str = "") -> Exception | None:
    """What an example raises in a setting of another dtype."""
    space: dict[str, Any] = {}
    exec(SETTING, space)  # noqa: S102
    torch = space["torch"]
    if dtype:
        space.update({name: space[name].to(getattr(torch, dtype)) for name in ("x", "v", "a", "s", "img")})
    try:
        eval(example, space)  # noqa: S307
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        return failure
    return None


def section_page(section: str, members: list[Operator]) -> str:
    """The page of one section."""
    out = [f"# {section}\n", "Examples stand in this setting:\n", "```python", SETTING.rstrip(), "```\n"]
    for o in members:
        forms = [words for form, words in _FORMS.items() if form in re.sub(r"alias\(.*\)", "", o.forms).split()]
        aliases = re.findall(r"alias\((.*?)\)", o.forms)
        out += [f"## {o.name}\n", f"{o.text}\n", "```text", *o.signatures, "```\n"]
        listed = arguments(o)
        if listed:
            out += ["| argument | type | |", "|---|---|---|"]
            out += [f"| `{name}` | {kind.replace('|', chr(92) + '|')} | {meaning} |" for name, kind, meaning in listed] + [""]
        if forms:
            out.append(f"Also: {', '.join(forms)}.\n")
        if aliases:
            out.append(f"Other names: {', '.join(f'`{n.strip()}`' for n in aliases[0].split(','))}.\n")
        out += ["Raises " + " ".join(errors(o) + refused(o)) + "\n"]
        out += ["```python", f">>> {o.example}", *([run_example(o)] if "data_ptr" not in o.example else []), "```\n"]
    return "\n".join(out)


def host_families() -> dict[str, bool]:
    """Families of kernels, and whether the CUDA backend has them."""
    trait = (ROOT / "crates/flambeau-core/src/backend.rs").read_text()
    trait = trait[trait.index("pub trait Backend") :]
    trait = trait[: trait.index("fn direct")]
    own = set(re.findall(r"^    fn (\w+)", (ROOT / "crates/flambeau-cuda/src/backend.rs").read_text(), re.M))
    families = re.findall(r"^    fn (\w+)\((?:[^)]*Operand)", trait, re.M)
    return {name: name in own for name in families}


def host_page() -> str:
    """What runs on CUDA by a kernel, and what through the host."""
    out = [
        "# CUDA: kernels and the host\n",
        "An operator runs through one of these families of kernels. Where the CUDA backend has none, or none for such operands, the "
        "operands are copied to the host, its kernel runs and the results are copied back; results are the same, and the first time a "
        "line on standard error says so (`flambeau: OPERATOR has no kernel on cuda:0; it runs through the host (said once)`).\n",
        "| family | CUDA |",
        "|---|---|",
    ]
    out += [f"| `{name}` | {'kernel' if has else 'through the host'} |" for name, has in host_families().items()]
    out += ["\nOperands for which a family with kernels goes through the host:\n"]
    reasons = set()
    for source in sorted((ROOT / "crates/flambeau-cuda/src").glob("*.rs")):
        reasons.update(re.findall(r'unsupported\(\s*"([^"]+)"', source.read_text()))
    return "\n".join(out + [f"- {reason}" for reason in sorted(reasons)]) + "\n"


def write_pages() -> None:
    """Writes target/pages and its configuration."""
    shutil.rmtree(PAGES, ignore_errors=True)
    (PAGES / "docs" / "operators").mkdir(parents=True)
    guides = {"Start": ROOT / "README.md", "Changes": ROOT / "CHANGELOG.md", "Architecture": ROOT / "ARCHITECTURE.md"}
    guides.update({p.stem.replace("_", " ").capitalize(): p for p in sorted((ROOT / "docs").glob("*.md"))})
    navigation = []
    for title, source in guides.items():
        target = "index.md" if title == "Start" else f"{source.stem.lower()}.md"
        text = re.sub(r"\]\(docs/", "](", source.read_text())
        text = re.sub(r"\]\((\w+)\.md\)", lambda m: f"]({m[1].lower()}.md)", text)
        (PAGES / "docs" / target).write_text(text)
        navigation.append(f"  - {title}: {target}")
    for picture in (ROOT / "docs").glob("*.svg"):
        shutil.copy(picture, PAGES / "docs")
    (PAGES / "docs" / "cuda_host.md").write_text(host_page())
    navigation += ["  - CUDA and the host: cuda_host.md", "  - Operators:"]
    pages: dict[str, list[Operator]] = {}
    for operator in operators():
        pages.setdefault(operator.section, []).append(operator)
    for section, members in pages.items():
        name = re.sub(r"\W+", "_", section.lower())
        (PAGES / "docs" / "operators" / f"{name}.md").write_text(section_page(section, members))
        navigation.append(f"    - {section}: operators/{name}.md")
    navigation.append("  - Rust: rust/flambeau/index.html")
    configuration = ["site_name: Flambeau", f"site_dir: {SITE}", "use_directory_urls: false", "theme: readthedocs", "plugins: [search]"]
    (PAGES / "mkdocs.yml").write_text("\n".join([*configuration, "nav:", *navigation]) + "\n")


def main() -> None:
    """The one command."""
    parser = argparse.ArgumentParser(description="Builds the documentation into target/site.")
    parser.add_argument("--no-rust", action="store_true", help="leave cargo doc out")
    options = parser.parse_args()
    write_pages()
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", str(PAGES / "mkdocs.yml")], check=True)
    if not options.no_rust:
        crates = [f"-pflambeau{part}" for part in ("", "-core", "-cpu", "-cuda")]
        subprocess.run(["cargo", "doc", "--no-deps", *crates, "--target-dir", str(ROOT / "target" / "rustdoc")], check=True, cwd=ROOT)
        shutil.copytree(ROOT / "target" / "rustdoc" / "doc", SITE / "rust", dirs_exist_ok=True)
    print(f"built {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
