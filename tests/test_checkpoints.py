"""Checkpoints: files that PyTorch wrote, files that we write, files that nobody should read."""

import collections
import copy
import encodings
import importlib.util
import io
import os
import pickle
import pickletools
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import flambeau as torch
import pytest

FOLDER = Path(__file__).parent / "data/checkpoints"
spec = importlib.util.spec_from_file_location("checkpoint_objects", FOLDER / "objects.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
OBJECTS = module.objects(torch)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.stride(), a.requires_grad) == (b.dtype, b.shape, b.stride(), b.requires_grad)
        assert a.storage_offset() == b.storage_offset()
        # Results of an optimizer step may round differently.
        a, b = a.detach(), b.detach()
        if a.dtype.is_floating_point:
            torch.testing.assert_close(a, b)
        else:
            assert a.tolist() == b.tolist()
        assert {k: v for k, v in vars(a).items()} == {k: v for k, v in vars(b).items()}
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("form", ["", ".legacy"])
def test_files_of_pytorch(name, form):
    same(torch.load(FOLDER / f"{name}{form}.pt"), OBJECTS[name])


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_round_trip(name, archive, protocol):
    file = io.BytesIO()
    torch.save(OBJECTS[name], file, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    file.seek(0)
    same(torch.load(file), OBJECTS[name])


def global_names(data):
    return {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}


@pytest.mark.parametrize("name", OBJECTS)
def test_written_files_use_the_names_of_pytorch(name):
    """What PyTorch's own reader is asked for is what its own writer asks for."""
    file = io.BytesIO()
    torch.save(OBJECTS[name], file)
    ours, theirs = zipfile.ZipFile(file), zipfile.ZipFile(FOLDER / f"{name}.pt")
    assert global_names(ours.read("archive/data.pkl")) == global_names(theirs.read(f"{name}/data.pkl"))
    for info in ours.infolist():
        if "/data/" in info.filename:
            header = file.getvalue()[info.header_offset :]
            assert (info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))) % 64 == 0
            assert ours.read(info) == theirs.read(info.filename.replace("archive/", f"{name}/")) or name in (
                "adam",
                "training",
            )


def test_shared_storage_stays_shared(tmp_path):
    torch.save(OBJECTS["shared"], tmp_path / "x.pt")
    for where in (tmp_path / "x.pt", FOLDER / "shared.pt", FOLDER / "shared.legacy.pt"):
        x = torch.load(where)
        x["whole"][3] = 50
        assert x["part"][0] == 50 and x["square"][1, 0] == 50


def test_mapped(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(1000.0), "b": torch.ones(3, dtype=torch.uint8)}, path)
    before = path.read_bytes()
    x = torch.load(path, mmap=True)
    assert x["a"][999] == 999
    x["a"].zero_()
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="mmap"):
        torch.load(io.BytesIO(before), mmap=True)
    with pytest.raises(RuntimeError, match="mmap"):
        torch.load(FOLDER / "adam.legacy.pt", mmap=True)


def test_map_location():
    file = FOLDER / "state_dict.pt"
    seen = []

    def where(storage, location):
        seen.append(location)
        return storage

    for given in ("cpu", torch.device("cpu"), {"cpu": "cpu"}, where):
        same(torch.load(file, map_location=given), OBJECTS["state_dict"])
    assert seen and set(seen) == {"cpu"}


def test_tensors_of_a_missing_device():
    data = (FOLDER / "view.legacy.pt").read_bytes().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    with pytest.raises(RuntimeError, match="map_location"):
        torch.load(io.BytesIO(data))
    same(torch.load(io.BytesIO(data), map_location="cpu"), OBJECTS["view"])


class Harmless:
    def __init__(self, x):
        self.x = x


class Evil:
    def __reduce__(self):
        return os.system, ("touch flambeau_was_here",)


@pytest.mark.parametrize("archive", [True, False])
def test_nothing_runs(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    torch.save({"x": Evil()}, file, _use_new_zipfile_serialization=archive)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="system"):
        torch.load(file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    assert not os.path.exists("flambeau_was_here")


def test_names_that_are_declared_safe():
    file = io.BytesIO()
    torch.save([Harmless(torch.ones(2))], file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Harmless"):
        torch.load(file)
    file.seek(0)
    assert [name.split(".")[-1] for name in torch.serialization.get_unsafe_globals_in_checkpoint(file)] == ["Harmless"]
    with torch.serialization.safe_globals([Harmless]):
        file.seek(0)
        assert torch.load(file)[0].x.tolist() == [1, 1]
    assert torch.serialization.get_safe_globals() == []
    file.seek(0)
    assert torch.load(file, weights_only=False)[0].x.tolist() == [1, 1]


def test_whole_module():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copy = torch.load(file, weights_only=False)
    x = torch.ones(1, 2)
    assert torch.equal(copy(x), model(x))


def test_byte_order():
    file = io.BytesIO()
    torch.save({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1 + 2j])}, file)
    swapped = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(swapped, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if "/data/" in info.filename:
                data = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
            new.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else data)
    swapped.seek(0)
    x = torch.load(swapped)
    assert x["a"].tolist() == [1, 2] and x["b"].tolist() == [1 + 2j]


def test_two_dtypes_over_one_storage():
    x = torch.ones(4)
    with pytest.raises(RuntimeError, match="share memory"):
        torch.save([x, x.view(torch.int32)], io.BytesIO())


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        torch.save({"a": (i for i in range(3))}, path)
    assert torch.load(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.pt"]
    with pytest.raises(RuntimeError, match="does not exist"):
        torch.save(1, tmp_path / "nowhere/x.pt")


def test_killed_while_saving(tmp_path):
    """At any moment the file is the old or the new one, whole."""
    path = tmp_path / "x.pt"
    torch.save({"step": 0, "values": torch.zeros(20_000)}, path)
    script = Path(__file__).parent / "workers/save_forever.py"
    rounds = int(os.environ.get("FLAMBEAU_KILLS", "8"))
    for _ in range(rounds):
        process = subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(random.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        x = torch.load(path)
        assert x["values"].tolist() == [float(x["step"])] * 20_000
    assert len(os.listdir(tmp_path)) <= rounds + 1


def test_files_that_promise_more_than_they_have():
    def archive(pickled, **records):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as z:
            z.writestr("x/data.pkl", pickled)
            for name, data in records.items():
                z.writestr(f"x/data/{name}", data)
        file.seek(0)
        return file

    def tensor(count, size, stride, offset=0):
        size, stride = (b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in x) + b"t" for x in (size, stride))
        storage = (
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\x8a\x08"
            + struct.pack("<q", count)
            + b"tQ"
        )
        head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"\x8a\x08" + struct.pack("<q", offset)
        return head + size + stride + b"\x89ccollections\nOrderedDict\n)RtR."

    assert torch.load(archive(tensor(2, [2], [1]), **{"0": b"\0" * 8})).tolist() == [0, 0]
    for bad in (
        tensor(2**61, [2], [1]),
        tensor(-1, [2], [1]),
        tensor(2, [3], [1]),
        tensor(2, [2], [2]),
        tensor(2, [2], [-1]),
        tensor(2, [-2], [1]),
        tensor(2, [2**40, 2**40], [1, 1]),
        tensor(2, [2], [2**62]),
        tensor(2, [1], [1], offset=2),
        tensor(2, [1], [1], offset=-1),
        tensor(2, [2, 1], [1]),
        b"\x80\x02B\xff\xff\xff\x7f.",
        b"\x80\x05\x8e" + struct.pack("<Q", 2**50) + b".",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R.",
        b"\x80\x02" + b")" + b"\x85" * 100_000 + b"N\x86}" + b"(2Nd.",
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"Ns.",
    ):
        with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError, TypeError)):
            torch.load(archive(bad, **{"0": b"\0" * 8}))


SEEDS = {
    "zip": ("adam.pt", "training.pt", "tensor_with_attribute.pt", "numbers.pt"),
    "legacy": ("shared.legacy.pt", "sgd.legacy.pt"),
    "safetensors": (),
}
#: What a file might do if it could: none of it is part of reading one.
FORBIDDEN = {"exec", "compile", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "subprocess.Popen", "socket.connect"}  # fmt: skip
happened: list[str] = []
watching = False


def watch(event: str, what: tuple) -> None:
    if watching and event in FORBIDDEN:
        # Python's own codecs are modules that are imported when first asked for; safetensors in a buffer pass through a file.
        codec = event == "exec" and what[0].co_filename.startswith(os.path.dirname(encodings.__file__))
        if not codec and not (event == "os.remove" and str(what[0]).startswith(tempfile.gettempdir())):
            happened.append(f"{event} {what}")


def seed_files(form: str, folder: Path) -> list[bytes]:
    if form != "safetensors":
        return [(FOLDER / name).read_bytes() for name in SEEDS[form]]
    files = []
    for tensors in (
        {"a": torch.arange(6).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)},
        {"": torch.zeros(0), "scalar": torch.tensor(1.5), "c": torch.tensor([True, False])},
    ):
        torch.save(tensors, folder / "x.safetensors")
        files.append((folder / "x.safetensors").read_bytes())
    return files


@pytest.mark.parametrize("form", SEEDS)
def test_damaged_files(form, tmp_path):
    """Whatever bytes change: an object or a documented exception, no memory beyond the file's own size class, and nothing
    runs."""
    global watching
    seeds = seed_files(form, tmp_path)
    rng = random.Random(0)
    allowed = (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        KeyError,
        MemoryError,
    )
    refused = collections.Counter()
    if not happened:
        sys.addaudithook(watch)
    for seed in seeds:
        torch.load(io.BytesIO(seed))  # Modules that reading needs are imported here.
    end = time.time() + float(os.environ.get("FLAMBEAU_FUZZ_SECONDS", "1"))
    while time.time() < end:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice([1, 1, 2, 5, 50])):
            match rng.randrange(4):
                case 0:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                case 1:
                    del data[rng.randrange(len(data)) :]
                    data += b"\0"
                case 2:
                    i = rng.randrange(len(data))
                    data[i : i + 4] = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16]))
                case 3:
                    i, j = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
                    data[i:i] = data[j : j + rng.randrange(1, 40)]
        torch.cpu.reset_peak_memory_stats()
        before = torch.cpu.memory_allocated()
        watching = True
        try:
            torch.load(io.BytesIO(bytes(data)))
            refused["accepted"] += 1
        except allowed as failure:
            assert len(str(failure)) >= 5, (type(failure), failure)
            refused[type(failure).__name__] += 1
        finally:
            watching = False
        assert not happened
        assert torch.cpu.max_memory_allocated() - before <= 1 << 20, (len(data), refused)
    assert refused.total() > 100 and len(refused) > 1
    print(form, dict(refused))


def test_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.arange(6).view(2, 3), "b": torch.ones(2)}, path)
    x = torch.load(path)
    assert x["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and x["b"].tolist() == [1, 1]
    assert torch.load(io.BytesIO(path.read_bytes()))["b"].tolist() == [1, 1]
    with pytest.raises(TypeError, match="safetensors"):
        torch.save({"a": 1}, path)


def test_modules_are_written_as_plain_data():
    """A module's file names its classes and PyTorch's, so that a reader who knows those classes reads it."""
    file = io.BytesIO()
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.RNN(2, 2))
    torch.save(model, file)
    file.seek(0)
    names = {name.removeprefix("torch.nn.modules.") for name in torch.serialization.get_unsafe_globals_in_checkpoint(file)}
    assert names == {"container.Sequential", "linear.Linear", "rnn.RNN"}
    file.seek(0)
    with torch.serialization.safe_globals([torch.nn.Sequential, torch.nn.Linear, torch.nn.RNN]):
        copy = torch.load(file)
    copy[0].weight = torch.nn.Parameter(torch.zeros(2, 2))
    assert type(copy[0]._parameters) is type(model[0]._parameters) and dict(copy.named_parameters())["0.weight"].sum() == 0


@pytest.mark.parametrize("archive", [True, False])
def test_values_that_are_still_to_be_conjugated(archive):
    """PyTorch writes the storage as it is and says what is to be done with its values."""
    file = io.BytesIO()
    torch.save(torch.tensor([1 + 2j, 3 - 1j]), file, _use_new_zipfile_serialization=archive)

    def marked(data, name):
        call = data.rindex(b"tq", 0, data.rindex(b"Rq"))
        mark = b"}X" + struct.pack("<I", len(name)) + name + b"\x88s"
        return data[:call] + mark + data[call:]

    for name, values in ((b"conj", [1 - 2j, 3 + 1j]), (b"neg", [-1 - 2j, -3 + 1j])):
        changed = io.BytesIO()
        if archive:
            with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
                for info in old.infolist():
                    data = old.read(info)
                    new.writestr(info.filename, marked(data, name) if info.filename.endswith("data.pkl") else data)
        else:
            changed.write(marked(file.getvalue(), name))
        changed.seek(0)
        assert torch.load(changed).tolist() == values


def test_names_are_those_of_pytorch():
    """Modules that PyTorch keeps elsewhere, layouts and buffers are written under its names."""
    nn = torch.nn
    objects = {
        "torch.nn.modules.activation MultiheadAttention": nn.MultiheadAttention(4, 2),
        "torch.nn.modules.transformer TransformerEncoderLayer": nn.TransformerEncoderLayer(4, 2, 4),
        "torch.nn.modules.flatten Flatten": nn.Flatten(),
        "torch.serialization _get_layout": torch.strided,
    }
    for name, value in objects.items():
        file = io.BytesIO()
        torch.save(value, file)
        assert name in global_names(zipfile.ZipFile(file).read("archive/data.pkl"))
        file.seek(0)
        assert type(torch.load(file, weights_only=False)) is type(value)
    file = io.BytesIO()
    torch.save(nn.Buffer(torch.ones(2), persistent=False), file)
    assert "torch.nn.parameter Buffer" not in global_names(zipfile.ZipFile(file).read("archive/data.pkl"))
    file.seek(0)
    buffer = torch.load(file)
    assert isinstance(buffer, nn.Buffer) and not buffer.persistent


def test_recurrent_modules_are_copied_and_written():
    model = torch.nn.LSTM(2, 3, 2, bidirectional=True)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.ones(4, 1, 2)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x)[0], model(x)[0]) and "_flat_weights" not in vars(other)
        other.weight_ih_l0.data.zero_()
        assert other._flat_weights[0].sum() == 0 and model.weight_ih_l0.abs().sum() > 0


def test_older_files_name_the_class_of_a_module_with_its_source(tmp_path):
    class Pickler(pickle.Pickler):
        told = False

        def persistent_id(self, value):
            if value is not torch.nn.Identity or self.told:
                return None
            self.told = True
            return ("module", value, "file", "source")

    with open(tmp_path / "x.pt", "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
            pickle.dump(part, file, protocol=2)
        Pickler(file, protocol=2).dump([torch.nn.Identity])
        pickle.dump([], file, protocol=2)
    assert torch.load(tmp_path / "x.pt", weights_only=False) == [torch.nn.Identity]
