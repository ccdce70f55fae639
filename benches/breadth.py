"""A few hundred single operators, for `compare.py --cases benches/breadth.py`: what programs call beside the operators that a
training step is made of, so that none is slow without anybody knowing."""

MATRIX = "x, y = t.rand(1000, 1000) * 0.8 + 0.1, t.rand(1000, 1000) + 0.1"
INTEGERS = "x, y = t.randint(1, 1000, (1000, 1000)), t.randint(1, 100, (1000, 1000))"
CUBE = "x = t.rand(64, 128, 200)"
INDEX = MATRIX + "; i, j = t.randint(0, 1000, (2000,)), t.randint(0, 1000, (1000, 300))"
IMAGES = "F = t.nn.functional; x = t.rand(8, 32, 56, 56); w, b = t.rand(32), t.rand(32)"
LOSSES = MATRIX + "; F = t.nn.functional; z, k = t.randn(1000, 1000), t.randint(0, 1000, (1000,))"

CASES = {}


def each(setup, form, names, label="{}"):
    for name in names.split():
        CASES[label.format(name)] = (setup, form.format(name))


def several(setup, statements):
    for name, statement in statements.items():
        CASES[name] = (setup, statement)


def gradient(setup, statement, leaf="x"):
    """The statement's sum and its backward."""
    return f"{setup}; {leaf}.requires_grad_()", f"{statement}.sum().backward(); {leaf}.grad = None"


each(
    MATRIX, "t.{}(x)",
    "sin cos tan asin acos atan sinh cosh tanh asinh atanh exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal abs neg sign "
    "floor ceil round trunc frac sigmoid erf erfc erfinv lgamma digamma square relu isnan logical_not",
)  # fmt: skip
each(
    MATRIX + "; F = t.nn.functional", "F.{}(x)",
    "silu gelu softplus elu selu mish hardswish hardsigmoid leaky_relu logsigmoid relu6",
)  # fmt: skip
each(
    MATRIX,
    "t.{}(x, y)",
    "add sub mul div pow maximum minimum atan2 fmod remainder eq lt hypot floor_divide logaddexp copysign",
)
each(INTEGERS, "t.{}(x, y)", "add mul floor_divide remainder bitwise_and eq maximum", "{}, int64")
each(MATRIX + "; x, y = x.bfloat16(), y.bfloat16()", "t.{}(x, y)", "add mul div maximum eq", "{}, bfloat16")
each(MATRIX + "; x = x.bfloat16()", "t.{}(x)", "exp tanh sigmoid sqrt neg", "{}, bfloat16")
each(MATRIX + "; x = x.double()", "t.{}(x)", "exp log sin tanh sqrt sigmoid erf", "{}, float64")
for dim in range(3):
    names = "sum mean amax argmax std prod logsumexp cumsum cumprod softmax log_softmax median sort"
    each(CUBE, "t.{}(x, " + str(dim) + ")", names, "{} over dim " + str(dim))
    CASES[f"norm over dim {dim}"] = (CUBE, f"t.linalg.vector_norm(x, dim={dim})")
several(MATRIX, {
    "x + number": "x + 1.0", "x ** 2": "x ** 2", "x ** 3": "x ** 3", "x ** 0.5": "x ** 0.5", "number - x": "1 - x",
    "clamp": "x.clamp(0.2, 0.6)", "where": "t.where(x > 0.5, x, y)", "lerp": "t.lerp(x, y, 0.3)", "addcmul": "t.addcmul(x, x, y)",
    "masked_fill": "x.masked_fill(x > 0.5, 0.0)", "to float64": "x.double()", "to int64": "x.long()", "to bool": "x.bool()",
    "count": "(x > 0.5).sum()", "a column broadcast": "x + x[:, :1]", "a row broadcast": "x * x[0]", "x + y.T": "x + y.t()",
    "every second column": "x[:, ::2] + y[:, ::2]", "sum of all": "x.sum()", "max of all": "x.max()", "var of all": "x.var()",
    "norm of all": "x.norm()", "argsort": "x.argsort(1)", "topk": "x.topk(10)", "kthvalue": "x.kthvalue(500)",
    "histc": "t.histc(x, 100)", "nonzero": "(x > 0.5).nonzero()", "quantile": "t.quantile(x, 0.5, dim=1)",
    "cat": "t.cat([x, y])", "cat of columns": "t.cat([x, y], 1)", "stack": "t.stack([x, y], 2)", "transpose": "x.t().contiguous()",
    "flip": "x.flip(1)", "roll": "x.roll(3, 1)", "tril": "x.tril()", "repeat": "x.repeat(2, 2)",
    "repeat_interleave": "x.repeat_interleave(2, 0)", "bernoulli": "t.bernoulli(x)", "multinomial": "t.multinomial(x, 5)",
    "cdist": "t.cdist(x[:300, :64], y[:300, :64])", "fft": "t.fft.fft(x)", "rfft2": "t.fft.rfft2(x)",
})  # fmt: skip
several("", {
    "zeros": "t.zeros(1000, 1000)", "arange": "t.arange(1000000)", "linspace": "t.linspace(0, 1, 1000000)",
    "rand": "t.rand(1000, 1000)", "randn": "t.randn(1000, 1000)", "randint": "t.randint(0, 10, (1000, 1000))",
    "randperm": "t.randperm(100000)",
})  # fmt: skip
several(INTEGERS, {
    "sort, int64": "x.flatten().sort()", "unique": "x.unique()", "bincount": "x.flatten().bincount()", "to float32": "x.float()",
})  # fmt: skip
several(INDEX, {
    "rows by index": "x[i]", "columns by index": "x[:, i]", "gather": "x.gather(1, j)", "take": "x.take(j)", "mask": "x[x > 0.5]",
    "pairs by index": "x[i, i]", "scatter": "t.zeros(1000, 1000).scatter(1, j, x[:, :300])",
    "index_add": "t.zeros(1000, 1000).index_add(0, i, t.ones(2000, 1000))", "masked_scatter": "x.masked_scatter(x > 0.5, y)",
    "write by mask": "x.clone()[x > 0.5] = 0.0", "embedding": "t.nn.functional.embedding(j, x)",
    "embedding_bag": "t.nn.functional.embedding_bag(j, x)", "one_hot": "t.nn.functional.one_hot(i, 1000)",
})  # fmt: skip
several(IMAGES, {
    "max_pool2d, 3 by 2": "F.max_pool2d(x, 3, 2, 1)", "max_pool2d": "F.max_pool2d(x, 2)", "avg_pool2d": "F.avg_pool2d(x, 2)",
    "adaptive_avg_pool2d to 1": "F.adaptive_avg_pool2d(x, 1)", "adaptive_avg_pool2d to 7": "F.adaptive_avg_pool2d(x, 7)",
    "bilinear": "F.interpolate(x, scale_factor=2, mode='bilinear')", "nearest": "F.interpolate(x, scale_factor=2)",
    "bicubic": "F.interpolate(x, size=(80, 80), mode='bicubic')", "pad": "F.pad(x, (1, 1, 1, 1))",
    "pad, reflect": "F.pad(x, (2, 2, 2, 2), mode='reflect')", "pixel_shuffle": "F.pixel_shuffle(x, 4)",
    "grid_sample": "F.grid_sample(x, t.rand(8, 40, 40, 2) * 2 - 1, align_corners=False)",
    "batch_norm, evaluation": "F.batch_norm(x, b, w, w, b)", "batch_norm, training": "F.batch_norm(x, None, None, w, b, True)",
    "group_norm": "F.group_norm(x, 8, w, b)", "instance_norm": "F.instance_norm(x)", "unfold": "F.unfold(x[:4, :16], 3)",
})  # fmt: skip
several(LOSSES, {
    "cross_entropy": "F.cross_entropy(z, k)", "nll_loss": "F.nll_loss(z, k)", "mse_loss": "F.mse_loss(x, y)",
    "binary_cross_entropy": "F.binary_cross_entropy(x, x)", "kl_div": "F.kl_div(z, x, reduction='batchmean')",
    "smooth_l1_loss": "F.smooth_l1_loss(x, y)", "cosine_similarity": "F.cosine_similarity(x, y)",
    "layer_norm": "F.layer_norm(x, (1000,))", "rms_norm": "F.rms_norm(x, (1000,))", "dropout": "F.dropout(x, 0.5)",
})  # fmt: skip
for name, setup, statement in [
    ("gelu", MATRIX, "t.nn.functional.gelu(x)"), ("softmax", MATRIX, "x.softmax(1)"), ("gather", INDEX, "x.gather(1, j)"),
    ("rows by index", INDEX, "x[i]"), ("std", MATRIX, "x.std(1)"), ("cumsum", MATRIX, "x.cumsum(1)"), ("amax", MATRIX, "x.amax(1)"),
    ("avg_pool2d", IMAGES, "F.avg_pool2d(x, 2)"), ("group_norm", IMAGES, "F.group_norm(x, 8)"), ("pad", IMAGES, "F.pad(x, (1, 1, 1, 1))"),
    ("bilinear", IMAGES, "F.interpolate(x, scale_factor=2, mode='bilinear')"), ("embedding_bag", INDEX, "t.nn.functional.embedding_bag(j, x)"),
]:  # fmt: skip
    CASES[f"{name}, backward"] = gradient(setup, statement)
several("x = t.rand(300, 300)", {
    "solve": "t.linalg.solve(x, x)", "svd": "t.linalg.svd(x)", "qr": "t.linalg.qr(x)", "eigh": "t.linalg.eigh(x + x.t())",
    "det": "t.linalg.det(x)",
})  # fmt: skip

# Products: every layout, few rows or columns, long sums, batches.
for dtype in ("float32", "float64", "bfloat16", "float16"):
    for m, k, n in [
        (1024, 1024, 1024), (4096, 64, 64), (64, 4096, 64), (64, 64, 4096), (8, 4096, 4096), (4096, 4096, 8), (2, 4096, 4096),
        (1, 4096, 4096), (4096, 4096, 1), (100, 100, 100), (33, 65, 129), (2000, 3, 2000), (3, 2000, 3), (512, 6282, 64),
    ]:  # fmt: skip
        for layout, a, b in [
            ("", f"t.randn({m}, {k})", f"t.randn({k}, {n})"),
            (", B turned", f"t.randn({m}, {k})", f"t.randn({n}, {k})"),
            (", A turned", f"t.randn({k}, {m})", f"t.randn({k}, {n})"),
        ]:
            turn = {"": "a @ b", ", B turned": "a @ b.t()", ", A turned": "a.t() @ b"}[layout]
            CASES[f"{m} x {k} x {n}, {dtype}{layout}"] = (f"a, b = {a}.to(t.{dtype}), {b}.to(t.{dtype})", turn)
    for batch, m, k, n in [
        (64, 64, 64, 64), (512, 16, 16, 16), (8, 512, 64, 512), (4096, 1, 64, 64), (256, 64, 64, 1), (32, 128, 128, 128), (1000, 3, 3, 3),
    ]:  # fmt: skip
        setup = f"a, b = t.randn({batch}, {m}, {k}).to(t.{dtype}), t.randn({batch}, {k}, {n}).to(t.{dtype})"
        CASES[f"{batch} of {m} x {k} x {n}, {dtype}"] = (setup, "a @ b")
for m, k, n in [(128, 128, 128), (1024, 1024, 1024), (1, 4096, 4096), (8, 4096, 4096)]:
    setup = f"a, b = t.randint(-128, 128, ({m}, {k})).to(t.int8), t.randint(-128, 128, ({n}, {k})).to(t.int8).t()"
    CASES[f"{m} x {k} x {n}, int8"] = (setup, "t._int_mm(a, b)")

# Convolutions: input channels, outputs, kernel, stride, height, batch, groups, dilation, padding.
for name, (c, o, k, s, h, n, g, d, p) in {
    "1 x 1": (64, 256, 1, 1, 28, 8, 1, 1, 0), "1 x 1 by 2": (64, 128, 1, 2, 56, 8, 1, 1, 0), "3 x 3": (64, 64, 3, 1, 28, 8, 1, 1, 1),
    "3 x 3 by 2": (64, 128, 3, 2, 28, 8, 1, 1, 1), "3 x 3 of 3": (3, 32, 3, 1, 64, 8, 1, 1, 1), "5 x 5": (32, 32, 5, 1, 28, 8, 1, 1, 2),
    "7 x 7 by 2": (3, 64, 7, 2, 112, 8, 1, 1, 3), "depthwise": (64, 64, 3, 1, 56, 8, 64, 1, 1), "4 groups": (64, 64, 3, 1, 28, 8, 4, 1, 1),
    "dilated": (64, 64, 3, 1, 28, 8, 1, 2, 2), "digits": (1, 32, 5, 1, 28, 64, 1, 1, 2), "4 x 4 by 2": (64, 128, 4, 2, 28, 8, 1, 1, 1),
    "patches": (3, 192, 16, 16, 224, 2, 1, 1, 0),
}.items():  # fmt: skip
    setup = f"x, w = t.randn({n}, {c}, {h}, {h}), t.randn({o}, {c // g}, {k}, {k})"
    call = f"t.nn.functional.conv2d(x, w, None, {s}, {p}, {d}, {g})"
    CASES[f"conv2d {name}"] = (setup, call)
    backward = f"y = {call}; y.backward(t.ones_like(y)); x.grad = w.grad = None"
    CASES[f"conv2d {name}, backward"] = (f"{setup}; x.requires_grad_(); w.requires_grad_()", backward)
    last = f"{setup}; x, w = (a.contiguous(memory_format=t.channels_last) for a in (x, w))"
    CASES[f"conv2d {name}, channels last"] = (last, call)
