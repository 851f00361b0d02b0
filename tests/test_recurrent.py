"""Recurrent layers, cells and packed sequences against torch, and on every placement."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg
from distgrad.nn.utils import rnn

torch = pytest.importorskip("torch")


def to_dg(tensor):
    return dg.from_numpy(tensor.detach().numpy().copy())


def close(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-11)


def pair(expression):
    """Builds a layer in both libraries with equal parameters."""
    theirs = eval("nn." + expression, {"nn": torch.nn}).double()
    ours = eval("nn." + expression, {"nn": dg.nn}).double()
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: to_dg(value) for name, value in theirs.state_dict().items()})
    return theirs, ours


LAYERS = [
    ("RNN(3, 4)", (5, 2, 3), None),
    ("RNN(3, 4, nonlinearity='relu')", (5, 2, 3), None),
    ("LSTM(3, 4, 2, batch_first=True, bias=False)", (2, 5, 3), None),
    ("LSTM(3, 4, 2, proj_size=2, bidirectional=True)", (5, 2, 3), None),
    ("LSTM(3, 4, bidirectional=True)", (5, 3), None),
    ("GRU(3, 4, 2, bidirectional=True)", (5, 2, 3), None),
    ("GRU(3, 4, batch_first=True, bias=False)", (2, 5, 3), None),
    ("RNN(3, 4, 2, bidirectional=True)", (7, 3, 3), [3, 7, 1]),
    ("LSTM(3, 4, 2, proj_size=2, bidirectional=True)", (6, 3, 3), [3, 5, 1]),
    ("GRU(3, 4, 2, batch_first=True, bidirectional=True)", (3, 6, 3), [3, 5, 1]),
]


@pytest.mark.parametrize(("expression", "shape", "lengths"), LAYERS)
def test_layer_matches_torch_to_second_order(expression, shape, lengths):
    torch.manual_seed(0)
    theirs, ours = pair(expression)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    y = to_dg(x).requires_grad_()
    their_input, our_input = x, y
    first = theirs.batch_first
    if lengths is not None:
        options = {"batch_first": first, "enforce_sorted": False}
        their_input = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, **options)
        our_input = rnn.pack_padded_sequence(y, lengths, **options)
    (their_out, their_state), (our_out, our_state) = theirs(their_input), ours(our_input)
    if lengths is not None:
        close(our_out.data, their_out.data)
        their_out, their_lengths = torch.nn.utils.rnn.pad_packed_sequence(their_out, first, 2.0, 9)
        our_out, our_lengths = rnn.pad_packed_sequence(our_out, first, 2.0, 9)
        assert our_lengths.tolist() == their_lengths.tolist() == lengths
    close(our_out, their_out)
    their_states = their_state if isinstance(their_state, tuple) else (their_state,)
    our_states = our_state if isinstance(our_state, tuple) else (our_state,)
    weights = torch.randn_like(their_out)
    their_loss = (their_out * weights).sum() + sum((s**2).sum() for s in their_states)
    our_loss = (our_out * to_dg(weights)).sum() + sum((s**2).sum() for s in our_states)
    their_inputs, our_inputs = [x, *theirs.parameters()], [y, *ours.parameters()]
    expected = torch.autograd.grad(their_loss, their_inputs, create_graph=True)
    # Without a graph one op computes the gradients, with a graph they are made step by step.
    for create in (False, True):
        found = dg.autograd.grad(our_loss, our_inputs, create_graph=create, retain_graph=True)
        for mine, other in zip(found, expected):
            close(mine, other)
    second = torch.autograd.grad(sum((g**2).sum() for g in expected), their_inputs)
    for mine, other in zip(dg.autograd.grad(sum((g**2).sum() for g in found), our_inputs), second):
        close(mine, other)


@pytest.mark.parametrize("expression", ["RNNCell(3, 4)", "RNNCell(3, 4, nonlinearity='relu')", "LSTMCell(3, 4)",
                                        "GRUCell(3, 4, bias=False)"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)])
def test_cell_matches_torch(expression, shape):
    torch.manual_seed(1)
    theirs, ours = pair(expression)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    h = torch.randn(*shape[:-1], 4, dtype=torch.float64)
    y = to_dg(x).requires_grad_()
    states = [(None, None), ((h, h * 2), (to_dg(h), to_dg(h * 2))) if "LSTM" in expression else (h, to_dg(h))]
    for their_state, our_state in states:
        expected, found = theirs(x, their_state), ours(y, our_state)
        if isinstance(expected, tuple):
            expected, found = expected[0] + expected[1], found[0] + found[1]
        close(found, expected)
        close(dg.autograd.grad((found * found).sum(), y)[0], torch.autograd.grad((expected * expected).sum(), x)[0])


def result(make, place, packed=False):
    dg.manual_seed(0)
    module = make().double()
    x = place(dg.randn(7, 3, 4, dtype=dg.float64)).detach().requires_grad_()
    if packed:
        given = rnn.pack_padded_sequence(x, [3, 2, 1, 3, 3, 2, 1], batch_first=True, enforce_sorted=False)
        out = rnn.pad_packed_sequence(module(given)[0], batch_first=True)[0]
    else:
        out = module(x)[0]
    return [v.detach().numpy() for v in (out, *dg.autograd.grad((out * out).sum(), [x, *module.parameters()]))]


@pytest.mark.parametrize("workers", [1, 3, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_every_placement_gives_the_local_result(workers, packed):
    def make():
        return dg.nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)

    expected = result(make, lambda x: x, packed)
    with dg.init(local_mode=True, num_workers=workers):
        for placement in (dg.Shard(0), dg.Shard(1), dg.Shard(2), dg.Replicate()):
            found = result(make, lambda x, p=placement: x.redistribute(p), packed)
            for mine, other in zip(found, expected):
                np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-11)


def test_sharded_batch_does_not_communicate_and_records_one_op_per_layer():
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1):
        module = dg.nn.LSTM(4, 5, 2, batch_first=True)
        x = dg.shard(dg.randn(8, 30, 4))
        dg.synchronize()
        before = dg.stats()
        with dg.no_grad():
            out = module(x)[0]
        recorded = dg.stats().nodes_recorded - before.nodes_recorded
        assert out.placement == dg.Shard(0)
        dg.synchronize()
        assert dg.stats().collectives == before.collectives
        assert recorded < 30


def test_padding_and_packing_of_lists():
    sequences = [np.arange(n, dtype=np.float64) + 1 for n in (2, 4, 1)]
    mine, other = [dg.tensor(s) for s in sequences], [torch.tensor(s) for s in sequences]
    theirs = torch.nn.utils.rnn
    for side in ("right", "left"):
        for first in (True, False):
            close(rnn.pad_sequence(mine, first, 7.0, side), theirs.pad_sequence(other, first, 7.0, side))
    packed, expected = rnn.pack_sequence(mine, False), theirs.pack_sequence(other, False)
    close(packed.data, expected.data)
    for ours_, theirs_ in zip(packed[1:], expected[1:]):
        assert ours_.tolist() == theirs_.tolist()
    assert [s.tolist() for s in rnn.unpack_sequence(packed)] == [s.tolist() for s in sequences]


@pytest.mark.parametrize("call", [
    lambda L: L.nn.LSTM(3, 4)(L.zeros(2, 2, 5)),
    lambda L: L.nn.LSTM(3, 4)(L.zeros(2, 2, 2, 3)),
    lambda L: L.nn.GRU(3, 4)(L.zeros(5, 2, 3), L.zeros(1, 3, 4)),
    lambda L: L.nn.GRU(3, 4)(L.zeros(5, 2, 3), L.zeros(1, 4)),
    lambda L: L.nn.LSTM(3, 4)(L.zeros(5, 2, 3), (L.zeros(1, 2, 4), L.zeros(1, 2, 3))),
    lambda L: L.nn.RNN(3, 4, proj_size=2),
    lambda L: L.nn.LSTM(3, 4, proj_size=4),
    lambda L: L.nn.LSTM(3, 4, dropout=2),
    lambda L: L.nn.LSTM(3, 0),
    lambda L: L.nn.LSTM(3, 4, bias=1),
    lambda L: L.nn.RNN(3, 4, nonlinearity="sin"),
    lambda L: L.nn.LSTMCell(3, 4)(L.zeros(1, 2, 3)),
    lambda L: L.nn.utils.rnn.pack_padded_sequence(L.zeros(3, 2, 1), [1, 2]),
    lambda L: L.nn.utils.rnn.pack_padded_sequence(L.zeros(3, 2, 1), [2, 0]),
])
def test_errors_are_torchs(call):
    with pytest.raises(Exception) as theirs:  # whatever torch raises
        call(torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(dg)
    assert str(ours.value)[:40] == str(theirs.value)[:40]
