"""`DataLoader` with worker processes: order, seeds, failures, and what is left behind."""

import os
import signal
import subprocess
import sys
import time

import flambeau as torch
import pytest
from flambeau.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


class Squares(Dataset):
    def __getitem__(self, i):
        return torch.tensor([i, i * i]), str(i)

    def __len__(self):
        return 23


class Failing(Squares):
    def __getitem__(self, i):
        if i == 7:
            raise KeyError("seven")
        return super().__getitem__(i)


class Dying(Squares):
    def __getitem__(self, i):
        if i == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


class Slow(Squares):
    def __getitem__(self, i):
        time.sleep(30)


class Late(Squares):
    def __getitem__(self, i):
        time.sleep(0.5)
        return i


class Stream(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        return iter(range(info.id, 11, info.num_workers))


class Seeds(Dataset):
    def __getitem__(self, i):
        return get_worker_info().seed, torch.initial_seed()

    def __len__(self):
        return 4


def contents(loader):
    return [(x.tolist(), list(names)) for x, names in loader]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn", "thread"])
def test_same_batches_as_in_this_process(method):
    def loader(workers, context=None):
        torch.manual_seed(3)
        return DataLoader(Squares(), 4, shuffle=True, num_workers=workers, multiprocessing_context=context)

    assert contents(loader(2, method)) == contents(loader(0))


def test_persistent_workers_and_an_abandoned_epoch():
    loader = DataLoader(Squares(), 4, num_workers=2, persistent_workers=True)
    expected = contents(DataLoader(Squares(), 4))
    assert contents(loader) == expected
    pids = [p.pid for p in loader._workers.processes]
    next(iter(loader))
    assert contents(loader) == expected
    assert [p.pid for p in loader._workers.processes] == pids


def test_seeds_and_shards():
    torch.manual_seed(5)
    seeds = [s for batch in DataLoader(Seeds(), None, num_workers=2) for s in [batch]]
    assert all(a == b for a, b in seeds)
    assert seeds[1][0] == seeds[0][0] + 1 and seeds[2] == seeds[0]
    batches = [b.tolist() for b in DataLoader(Stream(), 3, num_workers=2)]
    assert batches == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9]]


def test_exceptions_keep_their_type_and_trace():
    with pytest.raises(KeyError, match="(?s)Caught KeyError in DataLoader worker process.*line.*seven"):
        list(DataLoader(Failing(), 4, num_workers=2))


def test_death_of_a_worker_is_reported_at_once():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="is killed by signal: SIGKILL"):
        list(DataLoader(Dying(), 4, num_workers=2))
    assert time.monotonic() - start < 5


def test_timeout():
    with pytest.raises(RuntimeError, match="timed out after 0.2"):
        list(DataLoader(Slow(), 4, num_workers=1, timeout=0.2))


PROGRAM = """
import signal, sys, time
# A test run in the background of a shell would pass on that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import flambeau as torch
from flambeau.utils.data import DataLoader, Dataset
class D(Dataset):
    def __len__(self): return 10**6
    def __getitem__(self, i): return torch.ones(1000)
it = iter(DataLoader(D(), 8, num_workers=2))
next(it)
print(*[p.pid for p in it._workers.processes], flush=True)
for _ in it: time.sleep(0.01)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_loader(sent):
    before = set(os.listdir("/dev/shm"))
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(p) for p in program.stdout.readline().split()]
    assert len(pids) == 2
    program.send_signal(sent)
    _, errors = program.communicate(timeout=20)
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    until = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{p}") and " Z " not in open(f"/proc/{p}/stat").read() for p in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert set(os.listdir("/dev/shm")) <= before


def test_workers_that_stay_draw_no_seed():
    torch.manual_seed(3)
    loader = DataLoader(list(range(8)), 4, shuffle=True, num_workers=1, persistent_workers=True)
    epochs = [[x.tolist() for x in loader] for _ in range(2)]
    assert epochs == [[[2, 1, 6, 5], [0, 4, 3, 7]], [[3, 4, 5, 7], [6, 0, 1, 2]]]  # PyTorch's
    assert torch.rand(1).item() == 0.7718658447265625


def test_settings_that_samplers_are_made_from_are_fixed():
    loader = DataLoader(list(range(4)), 2)
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 3
    loader.num_workers = 0


def test_threads_shard_streams_fail_and_end():
    threads = {"num_workers": 2, "multiprocessing_context": "thread"}
    assert [x.tolist() for x in DataLoader(Stream(), 2, **threads)] == [
        x.tolist() for x in DataLoader(Stream(), 2, num_workers=2)
    ]
    loader = DataLoader(Failing(), 4, **threads)
    with pytest.raises(KeyError, match="seven"):
        list(loader)
    started = []
    torch.manual_seed(0)
    seeds = [x.tolist() for x, _ in DataLoader(Seeds(), worker_init_fn=started.append, **threads)]
    assert sorted(started) == [0, 1] and seeds[0] != seeds[1] and seeds[:2] == seeds[2:]
    assert get_worker_info() is None
    with pytest.raises(RuntimeError, match="timed out"):
        next(iter(DataLoader(Late(), 1, timeout=0.05, **threads)))


def test_batches_of_tensors_take_the_samplers_order():
    # Batches are parts of one tensor of indices; the draws from the generator are those of the sampler read one by one.
    data = torch.utils.data.TensorDataset(torch.arange(100), torch.arange(100) * 2)
    for size, drop in ((7, False), (7, True), (100, False), (200, True), (25, False)):
        results = []
        for collate in (None, lambda rows: [torch.stack([r[k] for r in rows]) for k in range(2)]):
            g = torch.Generator().manual_seed(3)
            loader = torch.utils.data.DataLoader(
                data, batch_size=size, shuffle=True, drop_last=drop, generator=g, collate_fn=collate
            )
            seen = []
            for _ in range(2):
                for a, b in loader:
                    assert b.tolist() == (a * 2).tolist()
                    seen.append(a.tolist() + torch.randint(0, 1000, (1,), generator=g).tolist())
            results.append((seen, torch.rand(1, generator=g).item()))
        assert results[0] == results[1]
