"""Benchmarks, counts of operations, summaries, logs and plots."""

import math

import flambeau as torch
import pytest
from flambeau.utils import benchmark, plot
from flambeau.utils.flop_counter import FlopCounterMode


def test_timer_counts_runs():
    calls = []
    clock = iter(range(10_000_000))
    timer = benchmark.Timer(
        "calls.append(1)", globals={"calls": calls}, timer=lambda: next(clock), label="list", description="append"
    )
    measured = timer.timeit(100)
    assert len(calls) == 102 and measured.raw_times == [1] and measured.times == [0.01]
    measured = benchmark.Timer("x + x", globals={"x": torch.ones(3)}).blocked_autorange(min_run_time=0.01)
    assert sum(measured.raw_times) >= 0.01
    assert 0 < measured.median
    assert benchmark.Timer("torch.ones(1)").timeit(1).title == "torch.ones(1)"
    with pytest.raises(ValueError):
        benchmark.Timer("x;", language="c++")


def test_timer_uses_the_threads_it_is_told():
    before = torch.get_num_threads()
    seen = []
    benchmark.Timer("seen.append(torch.get_num_threads())", globals={"seen": seen}, num_threads=1).timeit(1)
    assert set(seen) == {1} and torch.get_num_threads() == before


def spec(**kwargs):
    return benchmark.TaskSpec(**{"stmt": "f()", "setup": "pass", "label": "L", **kwargs})


def test_measurements_say_what_they_know():
    m = benchmark.Measurement(10, [1.0, 2.0, 1.5, 9.0], spec())
    assert (m.median, m.iqr, m.significant_figures, m.has_warnings) == (0.175, 0.2375, 1, True)
    assert repr(m).splitlines()[1:] == [
        "L",
        "  Median: 175.00 ms",
        "  IQR:    237.50 ms (137.50 to 375.00)",
        "  4 measurements, 10 runs per measurement, 1 thread",
        "  WARNING: Interquartile range is 135.7% of the median measurement.",
        "           This suggests significant environmental influence.",
    ]
    (merged,) = benchmark.Measurement.merge([m, m])
    assert merged.number_per_run == 1 and len(merged.times) == 8


def test_comparison_is_a_table():
    results = [
        benchmark.Measurement(
            1, [1e-5 * (n + 1) * (3 if d == "a" else 1)], spec(sub_label=s, description=d, num_threads=n + 1)
        )
        for n in range(2)
        for d in ("a", "bb")
        for s in ("s1", "s2")
    ]
    table = str(benchmark.Compare(results))
    assert table.splitlines() == [
        "[---------- L -----------]",
        "          |   a    |   bb ",
        "1 threads: ---------------",
        "      s1  |  30.0  |  10.0",
        "      s2  |  30.0  |  10.0",
        "2 threads: ---------------",
        "      s1  |  60.0  |  20.0",
        "      s2  |  60.0  |  20.0",
        "",
        "Times are in microseconds (us).",
    ]


def test_operations_are_counted_by_module():
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(3, 4)).sum().backward()
    counts = counter.get_flop_counts()
    # Forward, and in backward the gradients of the weights and of the second layer's input.
    assert sum(counts["Sequential.0"].values()) == 2 * (2 * 3 * 4 * 5)
    assert sum(counts["Sequential.2"].values()) == 3 * (2 * 3 * 5 * 2)
    assert counter.get_total_flops() == 420
    assert "Sequential.2" in counter.get_table()
    with FlopCounterMode(display=False) as counter:
        q, k = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 7, 8)
        torch.nn.functional.scaled_dot_product_attention(q, k, k)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 7 * (8 + 8)


def test_convolutions_count_as_pytorch_counts_them():
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ConvTranspose2d(4, 2, 2, 2))
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(3, 2, 6, 6)).sum().backward()
    counts = counter.get_flop_counts()
    assert sum(counts["Sequential.0"].values()) == 15552 + 15552
    assert sum(counts["Sequential.1"].values()) == 3 * 6912


def test_summary_counts_shared_parameters_once():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    model.train()
    model[0].eval()
    summary = torch.utils.summary(model, torch.ones(2, 4))
    assert (summary.total_parameters, summary.trainable_parameters) == (24, 20)
    assert summary.total_flops == 2 * (2 * 2 * 4 * 4)
    assert model.training and not model[0].training and model[1].training
    lines = str(summary).splitlines()
    assert lines[2].split()[:3] == ["Sequential", "[2,", "4]"]
    assert not model[0]._forward_hooks
    assert torch.utils.summary(model).total_flops is None


def test_pictures_side_by_side():
    images = torch.stack([torch.full((1, 2, 3), float(i)) for i in range(5)])
    sheet = plot.grid(images, columns=3, padding=1, value_range=(0, 4))
    assert sheet.shape == (2 * 3 + 1, 3 * 4 + 1)
    assert sheet[1, 1] == 0 and sheet[1, 5] == 0.25 and sheet[4, 1] == 0.75 and sheet[0, 0] == 1
    assert plot.grid(torch.rand(2, 3, 4, 4)).shape == (8, 14, 3)
    with pytest.raises(ValueError, match="channels"):
        plot.grid(torch.rand(1, 2, 4, 4))


def test_arrays_for_plots():
    assert plot.array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).dtype == "float32"
    assert plot.array([torch.tensor(1.5), 2]).tolist() == [1.5, 2]


def test_curves_are_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    plot.curves({"loss": [torch.tensor(3.0), torch.tensor(2.0)]}, ax=ax)
    assert ax.lines[0].get_ydata().tolist() == [3, 2]
    plt.close(figure)


def test_logs_are_read_by_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from flambeau.utils.tensorboard import SummaryWriter
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with SummaryWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("loss", torch.tensor(1 / (step + 1)), step)
        writer.add_histogram("weights", torch.arange(100.0))
        writer.add_image("picture", torch.rand(3, 4, 5))
        writer.add_text("note", "hello")
        writer.add_hparams({"lr": 0.1, "name": "x"}, {"accuracy": 0.5})
        writer.add_scalars("both", {"a": 1, "b": 2}, 0)
        writer.add_pr_curve("pr", torch.tensor([0, 1, 1, 0]), torch.tensor([0.1, 0.9, 0.4, 0.6]))
        writer.add_graph(torch.nn.Linear(3, 2), torch.ones(1, 3))
        writer.add_embedding(torch.rand(4, 5), metadata=list("abcd"))
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    assert [(s.step, round(s.value, 4)) for s in log.Scalars("loss")] == [(0, 1.0), (1, 0.5), (2, 0.3333)]
    histogram = log.Histograms("weights")[0].histogram_value
    assert (histogram.num, histogram.min, histogram.max, histogram.sum) == (100, 0, 99, 4950)
    assert math.isclose(sum(histogram.bucket), 100)
    picture = log.Images("picture")[0]
    assert (picture.height, picture.width) == (4, 5)
    assert "note/text_summary" in log.Tags()["tensors"]


def test_pictures_of_logs_are_png():
    pytest.importorskip("tensorboard")
    import struct
    import zlib

    import numpy as np
    from flambeau.utils.tensorboard.summary import encode_png

    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    data = encode_png(picture)
    assert struct.unpack(">II", data[16:24]) == (4, 2)
    start = data.index(b"IDAT") + 4
    rows = zlib.decompress(data[start : data.index(b"IEND") - 8])
    assert rows == b"".join(b"\0" + picture[i].tobytes() for i in range(2))
