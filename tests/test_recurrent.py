"""LSTM layers in one kernel: against their own cells, step by step, and at several thread counts."""

import flambeau as torch
import pytest


def _by_cells(m, x, h, c, reverse):
    cell = torch.nn.LSTMCell(m.input_size, m.hidden_size, dtype=x.dtype)
    suffix = "_l0_reverse" if reverse else "_l0"
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(m, name + suffix))
    outputs = []
    for row in reversed(list(x)) if reverse else list(x):
        h, c = cell(row, (h, c))
        outputs.append(h)
    if reverse:
        outputs.reverse()
    return torch.stack(outputs), h, c


@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden"), [(1, 1, 3, 2), (7, 3, 5, 6), (4, 9, 8, 33), (3, 30, 6, 40), (2, 3, 4, 300)]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_lstm_is_its_cells(steps, batch, inputs, hidden, batch_first):
    torch.manual_seed(1)
    m = torch.nn.LSTM(inputs, hidden, bidirectional=True, batch_first=batch_first, dtype=torch.float64)
    x = torch.randn(steps, batch, inputs, dtype=torch.float64)
    states = [torch.randn(2, batch, hidden, dtype=torch.float64) for _ in range(2)]
    cotangent = torch.randn(steps, batch, 2 * hidden, dtype=torch.float64)
    results = []
    for fused in (True, False):
        leaves = [t.clone().requires_grad_() for t in (x, *states)]
        if fused:
            y, (h, c) = m(leaves[0].transpose(0, 1) if batch_first else leaves[0], (leaves[1], leaves[2]))
            y = y.transpose(0, 1) if batch_first else y
        else:
            parts = [_by_cells(m, leaves[0], leaves[1][d], leaves[2][d], d == 1) for d in range(2)]
            y = torch.cat([parts[0][0], parts[1][0]], -1)
            h, c = (torch.stack([p[i] for p in parts]) for i in (1, 2))
        m.zero_grad()
        ((y * cotangent).sum() + (h * 2).sum() + c.sin().sum()).backward()
        results.append([y, h, c, *(t.grad for t in leaves), *(p.grad.clone() for p in m.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_second_gradients_are_the_cells(bidirectional):
    torch.manual_seed(2)
    m = torch.nn.LSTM(3, 4, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    zero = torch.zeros(2, 4, dtype=torch.float64)
    results = []
    for fused in (True, False):
        leaf = x.clone().requires_grad_()
        if fused:
            y = m(leaf)[0]
        else:
            y = torch.cat([_by_cells(m, leaf, zero, zero, d == 1)[0] for d in range(1 + bidirectional)], -1)
        (g,) = torch.autograd.grad((y * y).sum(), leaf, create_graph=True)
        m.zero_grad()
        (g * g).sum().backward()
        results.append([g, leaf.grad, *(p.grad.clone() for p in m.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 20])
def test_bits_do_not_depend_on_threads(batch):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            m = torch.nn.LSTM(32, 96)
            y = m(torch.randn(6, batch, 32))[0]
            y.square().sum().backward()
            found.append([y.detach().numpy().tobytes(), *(p.grad.numpy().tobytes() for p in m.parameters())])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_bfloat16_products_keep_float32_sums():
    torch.manual_seed(4)
    for m, n, k in ((64, 48, 96), (33, 65, 129), (200, 31, 1025), (17, 300, 2)):
        for transposed in range(4):
            a = torch.randn(*((k, m) if transposed & 1 else (m, k))).to(torch.bfloat16)
            b = torch.randn(*((n, k) if transposed & 2 else (k, n))).to(torch.bfloat16)
            a, b = (a.t() if transposed & 1 else a), (b.t() if transposed & 2 else b)
            want = a.double() @ b.double()
            error = ((a @ b).double() - want).abs()
            assert bool((error <= want.abs() * 2**-8 + 1e-5 * k).all())
