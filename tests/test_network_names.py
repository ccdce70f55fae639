"""The names under torch.nn, torch.optim and torch.utils that programs use exist, and those without a counterpart say what to use."""

import importlib
import importlib.util
from pathlib import Path

import flambeau
import pytest

NAMES = (Path(__file__).parent / "data" / "network_names.txt").read_text().split()
MODULES = """
nn.common_types nn.modules.activation nn.modules.adaptive nn.modules.batchnorm nn.modules.channelshuffle nn.modules.container
nn.modules.conv nn.modules.distance nn.modules.dropout nn.modules.flatten nn.modules.fold nn.modules.instancenorm nn.modules.lazy
nn.modules.linear nn.modules.loss nn.modules.module nn.modules.normalization nn.modules.padding nn.modules.pixelshuffle
nn.modules.pooling nn.modules.rnn nn.modules.sparse nn.modules.transformer nn.modules.upsampling nn.modules.utils nn.parallel
nn.parallel.data_parallel nn.parallel.distributed nn.parallel.parallel_apply nn.parallel.replicate nn.parallel.scatter_gather
nn.attention nn.attention.bias nn.attention.flex_attention nn.utils.clip_grad nn.utils.convert_parameters nn.utils.rnn
optim.adadelta optim.adagrad optim.adam optim.adamax optim.adamw optim.asgd optim.lbfgs optim.lr_scheduler optim.nadam
optim.optimizer optim.radam optim.rmsprop optim.rprop optim.sgd optim.sparse_adam optim.swa_utils
utils.benchmark utils.checkpoint utils.collect_env utils.cpp_extension utils.data utils.data.dataloader utils.data.dataset
utils.data.datapipes utils.data.distributed utils.data.sampler utils.deterministic utils.dlpack utils.flop_counter utils.hooks
utils.model_zoo utils.weak hub profiler autograd.profiler autograd.profiler_util
""".split()


def resolve(name):
    value, path = flambeau, "flambeau"
    for part in name.split(".")[1:]:
        path += "." + part
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(path)
    return value


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name):
    if "utils.tensorboard" in name and importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ImportError, match="pip install tensorboard"):
            resolve(name)
    else:
        resolve(name)


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name):
    module = importlib.import_module(f"flambeau.{name}")
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), public


def test_whole_modules_are_filed_where_pytorch_looks():
    places = {"Flatten": "flatten", "Fold": "fold", "InstanceNorm2d": "instancenorm", "MultiheadAttention": "activation",
              "PixelShuffle": "pixelshuffle", "TransformerEncoderLayer": "transformer", "Upsample": "upsampling"}  # fmt: skip
    for name, place in places.items():
        assert getattr(flambeau.nn, name).__module__ == f"flambeau.nn.modules.{place}"
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"):
        assert getattr(flambeau.optim, name).__module__ == f"flambeau.optim.{name.lower()}"


def test_asking_raises_nothing():
    assert hasattr(flambeau.nn, "DataParallel") and hasattr(flambeau.nn.parallel, "DistributedDataParallel")
    assert not hasattr(flambeau.nn, "no_such_layer")


def test_what_is_missing_says_what_to_use():
    from flambeau.utils import cpp_extension

    with pytest.raises(RuntimeError, match=r"autograd\.Function"):
        cpp_extension.load(name="x", sources=["x.cpp"])
    with pytest.raises(RuntimeError, match="DataParallel"):
        flambeau.nn.parallel.DistributedDataParallel(flambeau.nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="export_chrome_trace"), flambeau.autograd.profiler.emit_nvtx():
        pass


def test_data_parallel_without_devices_calls_the_module():
    model = flambeau.nn.Linear(3, 2)
    wrapped = flambeau.nn.DataParallel(model)
    x = flambeau.ones(4, 3)
    assert flambeau.equal(wrapped(x), model(x))
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"]


def test_replicas_send_gradients_home():
    model = flambeau.nn.Sequential(flambeau.nn.Linear(3, 3), flambeau.nn.Linear(3, 1))
    x = flambeau.randn(6, 3)
    flambeau.autograd.backward(model(x).sum())
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    replicas = flambeau.nn.parallel.replicate(model, ["cpu", "cpu"])
    parts = flambeau.nn.parallel.scatter(x, ["cpu", "cpu"])
    flambeau.nn.parallel.gather(flambeau.nn.parallel.parallel_apply(replicas, parts), "cpu").sum().backward()
    for p, g in zip(model.parameters(), expected, strict=True):
        assert flambeau.allclose(p.grad, g)


def test_flex_attention_is_attention():
    from flambeau.nn.attention.flex_attention import and_masks, create_block_mask, flex_attention

    q, k, v = (flambeau.randn(2, 4, 70, 16) for _ in range(3))
    causal = create_block_mask(lambda b, h, i, j: i >= j, None, None, 70, 70, BLOCK_SIZE=32)
    expected = flambeau.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert flambeau.allclose(flex_attention(q, k, v, block_mask=causal), expected, atol=1e-5)
    assert causal.kv_num_blocks.tolist() == [[[1, 1, 3]]] and causal.full_kv_num_blocks.tolist() == [[[0, 1, 0]]]
    biased = flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s - (i - j).abs() * 0.5)
    places = flambeau.arange(70)
    bias = -(places[:, None] - places).abs() * 0.5
    assert flambeau.allclose(
        biased, flambeau.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias), atol=1e-5
    )
    nothing = create_block_mask(and_masks(lambda b, h, i, j: i > j), None, None, 70, 70)
    assert flex_attention(q, k, v, block_mask=nothing)[:, :, 0].abs().sum().item() == 0


def test_registration_hooks_see_every_kind():
    from flambeau.nn.modules import module

    seen = []
    handles = [
        module.register_module_parameter_registration_hook(lambda m, name, p: seen.append(("parameter", name))),
        module.register_module_buffer_registration_hook(lambda m, name, b: seen.append(("buffer", name))),
        module.register_module_module_registration_hook(lambda m, name, s: seen.append(("module", name))),
    ]
    try:
        flambeau.nn.Sequential(flambeau.nn.BatchNorm1d(2, affine=True))
    finally:
        for handle in handles:
            handle.remove()
    flambeau.nn.Linear(1, 1)
    assert seen == [
        ("parameter", "weight"), ("parameter", "bias"), ("buffer", "running_mean"), ("buffer", "running_var"),
        ("buffer", "num_batches_tracked"), ("module", "0"),
    ]  # fmt: skip


def test_collate_knows_types_that_programs_add():
    from flambeau.utils.data import default_collate
    from flambeau.utils.data._utils.collate import collate, default_collate_fn_map

    class Picture(str):
        pass

    def join(batch, *, collate_fn_map=None):
        return "|".join(batch)

    default_collate_fn_map[Picture] = join
    try:
        joined = default_collate([{"x": Picture("a"), "y": 1.5}, {"x": Picture("b"), "y": 2.5}])
        assert joined["x"] == "a|b" and joined["y"].tolist() == [1.5, 2.5] and joined["y"].dtype == flambeau.float64
        assert default_collate([Picture("a"), Picture("b")]) == "a|b"
    finally:
        del default_collate_fn_map[Picture]
    assert default_collate(["a", "b"]) == ["a", "b"]
    with pytest.raises(TypeError):
        collate([object()], collate_fn_map={})


def test_pipes_chain():
    from flambeau.utils.data.datapipes import IterableWrapper

    pipe = IterableWrapper(range(10)).map(lambda x: 2 * x).filter(lambda x: x % 4 == 0).batch(2)
    assert list(pipe) == [[0, 4], [8, 12], [16]]
    assert sorted(IterableWrapper(range(9)).shuffle().set_seed(0)) == list(range(9))


def test_swapped_tensors_change_places():
    a = flambeau.nn.Parameter(flambeau.ones(2))
    b = flambeau.nn.Parameter(flambeau.zeros(3))
    (a * 2).sum().backward()
    flambeau.utils.swap_tensors(a, b)
    assert a.tolist() == [0, 0, 0] and b.tolist() == [1, 1]
    assert a.grad is None and b.grad.tolist() == [2, 2]


def test_paths_of_trees():
    from flambeau.utils import _pytree as pytree

    tree = {"a": [1, (2, 3)], "b": 4}
    leaves, spec = pytree.tree_flatten_with_path(tree)
    assert [(pytree.keystr(path), leaf) for path, leaf in leaves] == [
        ("['a'][0]", 1),
        ("['a'][1][0]", 2),
        ("['a'][1][1]", 3),
        ("['b']", 4),
    ]
    assert all(pytree.key_get(tree, path) == leaf for path, leaf in leaves)
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    assert list(pytree.tree_iter(tree)) == [1, 2, 3, 4]


def test_download_is_whole_or_absent(tmp_path):
    import hashlib

    source = tmp_path / "source.pth"
    flambeau.save({"w": flambeau.ones(3)}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    named = tmp_path / f"model-{digest[:8]}.pth"
    source.rename(named)
    loaded = flambeau.hub.load_state_dict_from_url(
        named.as_uri(), model_dir=str(tmp_path / "kept"), progress=False, check_hash=True
    )
    assert loaded["w"].tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="invalid hash value"):
        flambeau.hub.download_url_to_file(named.as_uri(), str(tmp_path / "bad"), hash_prefix="00000000", progress=False)
    assert not (tmp_path / "bad").exists() and not list(tmp_path.glob("*.partial"))


def test_hub_loads_a_folder(tmp_path):
    (tmp_path / "hubconf.py").write_text("def double(x=1):\n    'Twice.'\n    return 2 * x\n")
    hub = flambeau.hub
    assert hub.list(str(tmp_path), source="local") == ["double"]
    assert hub.help(str(tmp_path), "double", source="local") == "Twice."
    assert hub.load(str(tmp_path), "double", 4, source="local") == 8
    with pytest.raises(RuntimeError, match="Cannot find callable"):
        hub.load(str(tmp_path), "triple", source="local")


def network():
    layers = [
        flambeau.nn.Sequential(flambeau.nn.Linear(4, 4), flambeau.nn.ReLU(), flambeau.nn.Linear(5, 3)) for _ in range(2)
    ]
    return flambeau.nn.ModuleDict({"body": flambeau.nn.ModuleList(layers)})


class Net(flambeau.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = network()

    def forward(self, x, *, scale=1):
        for block in self.parts["body"]:
            x = block(x * scale)
        return x


def test_a_failure_names_its_module():
    with pytest.raises(RuntimeError) as caught:
        Net()(flambeau.ones(2, 4), scale=2)
    (note,) = caught.value.__notes__
    assert note.splitlines() == [
        "in module Net.parts.body.0.2 = Linear(in_features=5, out_features=3, bias=True)",
        "  called with ([2, 4] float32)",
        "  which has weight [3, 5] float32, bias [3] float32",
    ]


def test_a_failure_in_a_hook_or_elsewhere_keeps_its_kind():
    model = flambeau.nn.Sequential(flambeau.nn.Identity())
    model[0].register_forward_hook(lambda m, a, r: {}["key"])
    with pytest.raises(KeyError) as caught:
        model([flambeau.ones(1, dtype=flambeau.bool)])
    assert caught.value.args == ("key",)
    assert caught.value.__notes__ == ["in module Sequential.0\n  called with ([[1] bool])"]


def test_one_exception_met_twice_is_told_once():
    failure = ValueError("same")

    class Bad(flambeau.nn.Module):
        def forward(self):
            raise failure

    for _ in range(2):
        with pytest.raises(ValueError):
            Bad()()
    assert len(failure.__notes__) <= 2
