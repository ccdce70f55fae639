"""Profiles: what ran, how it nests, tables, traces, schedules; and that none of it stays on."""

import json

import flambeau as torch
import pytest
from flambeau import _flambeau
from flambeau.autograd import profiler as autograd_profiler
from flambeau.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule


def trained(**options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with profile(activities=[ProfilerActivity.CPU], **options) as prof:
        with record_function("forward"):
            loss = model(torch.ones(4, 5)).sum()
        loss.backward()
        optimizer.step()
    return prof


def test_operators_nest_in_ranges_and_backward_nodes():
    prof = trained()
    events = prof.events()
    forward = next(e for e in events if e.name == "forward")
    assert forward.is_user_annotation
    assert [c.name for c in forward.cpu_children] == [
        "aten::ones",
        "aten::linear",
        "aten::relu",
        "aten::linear",
        "aten::sum",
    ]
    names = [e.name for e in events]
    assert names.count("autograd::engine::evaluate_function: LinearBackward0") == 2
    assert names.count("torch::autograd::AccumulateGrad") == 4
    assert "Optimizer.step#SGD.step" in names
    node = next(e for e in events if e.name == "LinearBackward0")
    assert node.cpu_parent.name == "autograd::engine::evaluate_function: LinearBackward0"
    assert "aten::bmm" in [c.name for c in node.cpu_children]
    for e in events:
        assert e.time_range.end >= e.time_range.start
        for c in e.cpu_children:
            assert e.time_range.start <= c.time_range.start and c.time_range.end <= e.time_range.end


def test_backward_nodes_know_their_operator():
    events = trained().events()
    made = {e.sequence_nr for e in events if e.name == "aten::linear"}
    assert made == {e.sequence_nr for e in events if e.name == "LinearBackward0"}
    assert len(made) == 2


def test_shapes_memory_flops_and_stacks():
    prof = trained(record_shapes=True, profile_memory=True, with_flops=True, with_stack=True)
    first = next(e for e in prof.events() if e.name == "aten::linear")
    assert first.input_shapes == [[4, 5], [3, 5], [3]]
    assert first.input_dtypes == ["float"] * 3
    assert first.flops == 2 * 4 * 3 * 5
    assert first.cpu_memory_usage >= 4 * 3 * 4
    assert any("test_profiler.py" in frame and frame.endswith("trained") for frame in first.stack)
    node = next(e for e in prof.events() if e.name == "LinearBackward0")
    assert any(frame.endswith(": forward") for frame in node.stack)
    grouped = prof.key_averages(group_by_input_shape=True)
    assert sum(a.key == "aten::linear" for a in grouped) == 2
    assert sum(a.key == "aten::linear" for a in prof.key_averages()) == 1


def test_flops_of_convolutions_and_batched_products():
    with profile(with_flops=True) as prof:
        torch.nn.functional.conv2d(torch.ones(2, 4, 8, 8), torch.ones(6, 2, 3, 3), padding=1, groups=2)
        torch.bmm(torch.ones(3, 4, 5), torch.ones(3, 5, 6))
    flops = {a.key: a.flops for a in prof.key_averages()}
    assert (flops["aten::conv2d"] or flops["aten::convolution"]) == 2 * (2 * 6 * 8 * 8) * (2 * 3 * 3)
    assert flops["aten::bmm"] == 2 * 3 * 4 * 6 * 5


def test_table_has_pytorchs_form():
    prof = trained(record_shapes=True, with_flops=True)
    table = prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=3, header="report")
    lines = table.splitlines()
    assert lines[1] == "report"
    assert lines[0] == "=" * (len(lines[2].rstrip()))
    assert lines[3].split("  ")[-2].strip() == "Total FLOPs"
    assert [h for h in lines[3].split("  ") if h][:2][0].strip() == "Name"
    assert lines[2] == lines[4] == lines[8]
    assert lines[9].startswith("Self CPU time total: ")
    own = [a.self_cpu_time_total for a in sorted(prof.key_averages(), key=lambda a: -a.self_cpu_time_total)]
    assert own == sorted(own, reverse=True)
    with pytest.raises(AttributeError):
        prof.key_averages().table(sort_by="beauty")


def test_trace_is_chromes(tmp_path):
    prof = trained(record_shapes=True, profile_memory=True)
    prof.add_metadata_json("run", json.dumps({"seed": 3}))
    for name in ("trace.json", "trace.json.gz"):
        prof.export_chrome_trace(str(tmp_path / name))
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace["run"] == {"seed": 3} and trace["record_shapes"] == 1
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    linear = next(e for e in spans if e["name"] == "aten::linear")
    assert linear["cat"] == "cpu_op" and linear["args"]["Input Dims"] == [[4, 5], [3, 5], [3]]
    assert any(e["cat"] == "user_annotation" and e["name"] == "forward" for e in spans)
    starts = {e["id"] for e in trace["traceEvents"] if e["ph"] == "s"}
    assert starts and starts == {e["id"] for e in trace["traceEvents"] if e["ph"] == "f"}


def test_schedule_steps():
    plan = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    assert (
        "".join(plan(i).name[0] if plan(i) is not ProfilerAction.RECORD_AND_SAVE else "S" for i in range(11))
        == "NNWRSNWRSNN"
    )
    seen = []
    with profile(
        schedule=plan, on_trace_ready=lambda p: seen.append((p.step_num, [e.name for e in p.events()]))
    ) as prof:
        for i in range(11):
            torch.ones(2).add(i)
            prof.step()
    cycle = ["ProfilerStep*", "aten::ones", "aten::add"] * 2
    assert seen == [(5, cycle), (9, cycle)]
    with pytest.raises(AssertionError, match="Invalid profiler schedule arguments"):
        schedule(wait=1, warmup=1, active=0)


def test_stacks_and_timeline_are_written(tmp_path):
    prof = trained(record_shapes=True, profile_memory=True, with_stack=True)
    prof.export_stacks(str(tmp_path / "stacks.txt"))
    line = (tmp_path / "stacks.txt").read_text().splitlines()[0]
    frames, _, value = line.rpartition(" ")
    assert ";" in frames and int(value) > 0
    prof.export_memory_timeline(str(tmp_path / "memory.json"))
    times, sizes = json.loads((tmp_path / "memory.json").read_text())
    assert len(times) == len(sizes) > 0 and times == sorted(times)


def test_legacy_interface():
    with autograd_profiler.profile() as prof:
        (torch.ones(3) * 2).sum()
    assert [e.name for e in prof.function_events] == ["aten::ones", "aten::mul", "aten::sum"]
    assert prof.total_average().count == 3
    assert "aten::mul" in str(prof)
    assert str(autograd_profiler.profile()) == "<unfinished torch.autograd.profile>"
    with pytest.raises(RuntimeError, match="not reentrant"):
        prof.__enter__()
    with autograd_profiler.profile(enabled=False) as nothing:
        torch.ones(1)
    assert nothing is None


def test_decorated_functions_are_ranges():
    @record_function("twice")
    def twice(x):
        return x + x

    with profile() as prof:
        twice(torch.ones(2))
    assert prof.events()[1].name == "twice" and prof.events()[1].cpu_children[0].name == "aten::add"


def test_profile_ends_with_its_block():
    with pytest.raises(ValueError), profile() as prof, record_function("broken"):
        raise ValueError
    assert not _flambeau._profile_on()
    assert [e.name for e in prof.events()] == ["broken"]
    with profile():
        with pytest.raises(RuntimeError, match="already enabled"), profile():
            pass
    assert not _flambeau._profile_on()


def test_results_are_the_same_under_a_profile():
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    plain = torch.autograd.grad((x.exp() @ x.T).softmax(-1).pow(2).sum(), x)[0]
    with profile(record_shapes=True, profile_memory=True, with_flops=True, with_stack=True):
        profiled = torch.autograd.grad((x.exp() @ x.T).softmax(-1).pow(2).sum(), x)[0]
        with torch.no_grad():
            y = torch.ones(3)
            y.add_(1).mul_(2)
            out = torch.empty(0)
            torch.add(y, y, out=out)
    assert torch.equal(plain, profiled)
    assert out.tolist() == [8.0, 8.0, 8.0]


def test_compiled_functions_show_their_kernels():
    f = torch.compile(lambda x: (x * 2 + 1).relu().sum())
    x = torch.ones(100)
    with profile() as prof:
        f(x).item()
    assert any(e.name.startswith("flambeau::fused(") for e in prof.events())
