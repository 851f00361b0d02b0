"""Attention and transformer layers against torch, and on every placement. Invariant: torch is the only oracle."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")

L, S, N, E = 3, 5, 2, 8


def to_dg(tensor):
    return dg.from_numpy(tensor.detach().numpy().copy())


def close(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-8, atol=1e-10)


def flags(*shape):
    generator = torch.Generator().manual_seed(4)
    mask = torch.rand(*shape, generator=generator) < 0.3
    mask[..., 0] = False
    return mask


CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(L).double()
NUMBERS = torch.linspace(-1, 1, N * 2 * L * S, dtype=torch.float64).reshape(N * 2, L, S)
SELF, CROSS, FIRST = [(L, N, E)], [(L, N, E), (S, N, E), (S, N, E)], [(N, L, E), (N, S, E), (N, S, E)]
ATTENTION = [
    ("8, 2", SELF, {}),
    ("8, 2", CROSS, {"average_attn_weights": False}),
    ("8, 2, bias=False, kdim=3, vdim=4", [(L, N, E), (S, N, 3), (S, N, 4)], {}),
    ("8, 2, batch_first=True", FIRST, {"key_padding_mask": flags(N, S)}),
    ("8, 2, add_bias_kv=True, add_zero_attn=True", CROSS, {"key_padding_mask": flags(N, S), "attn_mask": flags(L, S)}),
    ("8, 2, add_bias_kv=True", CROSS, {"attn_mask": NUMBERS}),
    ("8, 2", [(L, E), (S, E), (S, E)], {"attn_mask": NUMBERS[0]}),
    ("8, 2", SELF, {"attn_mask": CAUSAL, "is_causal": True}),
]
LAYERS = [
    ("TransformerEncoderLayer(8, 2, 16, 0.0)", SELF, {}),
    ("TransformerEncoderLayer(8, 2, 16, 0.0, 'gelu', norm_first=True, batch_first=True, bias=False)", [(N, L, E)],
     {"src_mask": CAUSAL, "src_key_padding_mask": flags(N, L)}),
    ("TransformerDecoderLayer(8, 2, 16, 0.0, norm_first=True, batch_first=True)", FIRST[:2],
     {"tgt_mask": CAUSAL, "memory_key_padding_mask": flags(N, S)}),
    ("TransformerDecoderLayer(8, 2, 16, 0.0)", CROSS[:2], {"tgt_mask": CAUSAL, "tgt_is_causal": True}),
    ("Transformer(8, 2, 2, 2, 16, 0.0)", [(S, N, E), (L, N, E)],
     {"tgt_mask": CAUSAL, "src_key_padding_mask": flags(N, S)}),
    ("Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)", [(N, S, E), (N, L, E)], {"tgt_mask": CAUSAL}),
]
CASES = [(f"MultiheadAttention({arguments})", shapes, {**options, "need_weights": need})
         for arguments, shapes, options in ATTENTION for need in (True, False)] + LAYERS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("expression", "shapes", "options"), CASES)
def test_layer_matches_torch(expression, shapes, options):
    torch.manual_seed(0)
    theirs = eval("nn." + expression, {"nn": torch.nn}).double()
    ours = eval("nn." + expression, {"nn": dg.nn}).double()
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: to_dg(value) for name, value in theirs.state_dict().items()})
    xs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    ys = [to_dg(x).requires_grad_() for x in xs]
    repeat = 3 if expression.startswith("Multihead") and len(shapes) == 1 else 1
    expected = theirs(*xs * repeat, **options)
    found = ours(*ys * repeat, **{k: to_dg(v) if hasattr(v, "numpy") else v for k, v in options.items()})
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = found if isinstance(found, tuple) else (found,)
    their_loss, our_loss = 0, 0
    for mine, other in zip(found, expected):
        assert (mine is None) == (other is None)
        if other is not None:
            close(mine, other)
            weights = torch.randn_like(other)
            their_loss, our_loss = their_loss + (other * weights).sum(), our_loss + (mine * to_dg(weights)).sum()
    their_gradients = torch.autograd.grad(their_loss, [*xs, *theirs.parameters()])
    for mine, other in zip(dg.autograd.grad(our_loss, [*ys, *ours.parameters()]), their_gradients):
        close(mine, other)


def test_initial_values_have_torchs_spread():
    torch.manual_seed(0)
    dg.manual_seed(0)
    theirs, ours = torch.nn.MultiheadAttention(64, 4, kdim=32), dg.nn.MultiheadAttention(64, 4, kdim=32)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters()):
        spread = other.detach().numpy().std()
        assert mine.detach().numpy().std() == pytest.approx(spread, rel=0.1), name


@pytest.mark.parametrize("workers", [1, 3])
def test_every_placement_gives_the_local_result(workers):
    def result(place):
        dg.manual_seed(0)
        module = dg.nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True).double()
        x = place(dg.randn(7, 3, 4, dtype=dg.float64)).detach().requires_grad_()
        out = module(x, src_mask=dg.nn.Transformer.generate_square_subsequent_mask(3))
        gradients = dg.autograd.grad((out * out).sum(), [x, *module.parameters()])
        return [value.detach().numpy() for value in (out, *gradients)]

    expected = result(lambda x: x)
    with dg.init(local_mode=True, num_workers=workers):
        for placement in (dg.Shard(0), dg.Shard(1), dg.Shard(2)):
            for mine, other in zip(result(lambda x, p=placement: x.redistribute(p)), expected):
                np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-11)


def test_sharded_batch_does_not_communicate():
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1):
        module = dg.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        x = dg.shard(dg.randn(8, 3, 4))
        dg.synchronize()
        before = dg.stats().collectives
        with dg.no_grad():
            out = module(x)
        dg.synchronize()
        assert out.placement == dg.Shard(0)
        assert dg.stats().collectives == before


@pytest.mark.parametrize("call", [
    lambda T: T.nn.MultiheadAttention(8, 3),
    lambda T: T.nn.MultiheadAttention(0, 3),
    lambda T: T.nn.MultiheadAttention(8, 2)(*[T.zeros(3, 2, 4)] * 3),
    lambda T: T.nn.MultiheadAttention(8, 2)(*[T.zeros(1, 3, 2, 8)] * 3),
    lambda T: T.nn.MultiheadAttention(8, 2)(T.zeros(3, 2, 8), T.zeros(3, 8), T.zeros(3, 8)),
    lambda T: T.nn.MultiheadAttention(8, 2)(*[T.zeros(3, 2, 8)] * 3, attn_mask=T.zeros(2, 3)),
    lambda T: T.nn.MultiheadAttention(8, 2)(*[T.zeros(3, 2, 8)] * 3, is_causal=True),
    lambda T: T.nn.TransformerEncoderLayer(8, 2, activation="sin"),
    lambda T: T.nn.Transformer(8, 2)(T.zeros(3, 2, 8), T.zeros(3, 1, 8)),
])
def test_errors_are_torchs(call):
    with pytest.raises(Exception) as theirs:  # whatever torch raises
        call(torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(dg)
    assert str(ours.value)[:40] == str(theirs.value)[:40]
