"""From the same seed everything random equals PyTorch's CPU results, without a session and on any number of workers.

Bit for bit where only the words of the stream and exact arithmetic decide; to a few roundings where a logarithm, cosine
or exponential takes part, which PyTorch's own builds round differently too. After each result comes another draw, so a
wrong number of words shows as well.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")

SHAPES = [(0,), (1,), (15,), (16,), (17,), (100,), (7, 5), (3, 1, 11), (40_001,)]
FLOATS = ["float32", "float64", "float16", "bfloat16"]
Draw = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    with dg.random.fork_rng(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def array(value: Any) -> np.ndarray:
    value = value.detach()
    return (value.float() if str(value.dtype).endswith("bfloat16") else value).numpy()


def seeded(T: Any, seed: int, draw: Draw) -> list[np.ndarray]:
    T.manual_seed(seed)
    made = draw(T)
    return [array(value) for value in ([made] if hasattr(made, "detach") else list(made))]


def assert_same(draw: Draw, seed: int = 5, exact: bool = False) -> None:
    for mine, other in zip(seeded(dg, seed, draw), seeded(torch, seed, draw), strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        if exact or mine.dtype.kind not in "fc":
            np.testing.assert_array_equal(mine, other)
        else:
            single = mine.dtype in (np.float32, np.complex64)
            np.testing.assert_allclose(mine, other, rtol=2e-6 if single else 2e-3 if mine.dtype == np.float16 else 1e-13,
                                       atol=1e-6 if single else 1e-14)


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32 + 1, 2**64 - 1, -3])
def test_seeds(seed: int) -> None:
    assert_same(lambda T: (T.rand(20), T.randint(100, (9,)), T.randperm(30)), seed, exact=True)
    assert_same(lambda T: (T.randn(20), T.randn(3), T.rand(2)), seed)


def test_a_new_generator_starts_as_torchs() -> None:
    assert dg.Generator().initial_seed() == torch.Generator().initial_seed()
    assert dg.rand(5, generator=dg.Generator()).tolist() == torch.rand(5, generator=torch.Generator()).tolist()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128"])
def test_uniform_and_normal(shape: tuple[int, ...], dtype: str) -> None:
    assert_same(lambda T: (T.rand(shape, dtype=getattr(T, dtype)), T.rand(3)), exact=True)
    assert_same(lambda T: (T.randn(shape, dtype=getattr(T, dtype)), T.rand(3)))
    if not dtype.startswith("complex"):
        for low, high in ((-0.37, 1.31), (0, 3), (1, 5), (-1e-3, 1e-3), (2, 2)):
            assert_same(lambda T, low=low, high=high: (
                T.empty(shape, dtype=getattr(T, dtype)).uniform_(low, high), T.rand(3)), exact=True)
    assert_same(lambda T: (T.empty(shape, dtype=getattr(T, dtype)).normal_(1, 0.3), T.rand(3)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_fillers(shape: tuple[int, ...], dtype: str) -> None:
    def fill(name: str, *args: Any) -> Draw:
        return lambda T: (getattr(T.empty(shape, dtype=getattr(T, dtype)), name)(*args), T.rand(3))

    for name, *args in (("bernoulli_", 0.3), ("random_",), ("random_", 9), ("random_", -5, 20), ("random_", 3, None)):
        assert_same(fill(name, *args), exact=True)
    for name, *args in (("exponential_", 2.5), ("cauchy_", 1, 2), ("geometric_", 0.3), ("log_normal_", 0.1, 0.5)):
        assert_same(fill(name, *args))


def test_cached_normal_numbers_carry_over_between_calls() -> None:
    def draw(T: Any) -> Iterator[Any]:
        for size in (1, 1, 3, 0, 2, 20, 1, 5, 16, 15):
            yield T.randn(size)
            yield T.randn(size, dtype=T.float64)
            yield T.empty(size).log_normal_()
        yield T.randn(3, dtype=T.complex64)
        yield T.rand(2)
        T.manual_seed(1)
        yield T.randn(1)
        T.manual_seed(1)  # forgets the cached number
        yield T.randn(3)
        state = T.get_rng_state()
        yield T.randn(4)
        T.set_rng_state(state)
        yield T.randn(4)
        with T.random.fork_rng():
            yield T.randn(3)
        yield T.randn(3)

    assert_same(draw)


@pytest.mark.parametrize("low, high", [
    (0, 10), (-5, 7), (0, 64), (3, 2**27), (0, 2**28 - 1), (0, 2**28), (-1, 2**28 + 1), (-5, 2**40), (0, 2**63 - 1),
    (-(2**63), 2**63 - 1),
])
def test_whole_numbers(low: int, high: int) -> None:
    assert_same(lambda T: (T.randint(low, high, (33,)), T.rand(3)), exact=True)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64"])
def test_whole_numbers_of_every_dtype(dtype: str) -> None:
    def draw(T: Any) -> Iterator[Any]:
        kind = getattr(T, dtype)
        yield T.empty(50, dtype=kind).random_()
        yield T.empty(50, dtype=kind).random_(0, None)
        yield T.empty(50, dtype=kind).random_(2)
        yield T.randint(0, 2, (50,), dtype=kind)
        yield T.empty(50, dtype=kind).bernoulli_(0.4)
        if dtype.startswith("int"):
            yield T.empty(50, dtype=kind).random_(-7, None)
        yield T.rand(3)

    assert_same(draw, exact=True)


@pytest.mark.parametrize("n", [0, 1, 2, 100, 513, 60_000])
def test_permutations(n: int) -> None:
    assert_same(lambda T: (T.randperm(n), T.rand(3)), exact=True)


def probabilities(T: Any, dtype: str = "float32") -> Any:
    return ((T.arange(35.0) + 1).reshape(7, 5) / 40).to(getattr(T, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_tensors_of_parameters(dtype: str) -> None:
    def draw(T: Any) -> Iterator[Any]:
        p = probabilities(T, dtype)
        yield T.bernoulli(p)
        yield T.bernoulli(p.t())
        yield T.bernoulli(p, 0.4)
        yield T.empty(7, 5).bernoulli_(p)
        yield T.multinomial(p, 1)
        yield T.multinomial(p, 3)
        yield T.multinomial(p[2], 40, replacement=True)
        yield T.multinomial(p, 40, replacement=True)
        yield T.rand(3)

    assert_same(draw, exact=True)
    assert_same(lambda T: (T.normal(probabilities(T, dtype), probabilities(T, dtype)), T.normal(2.0, T.ones(3)),
                           T.normal(T.ones(3), 2.0), T.normal(1.0, 2.0, (4, 5)), T.rand(3)))


def test_transposed_tensors_are_filled_in_the_order_of_memory() -> None:
    def draw(T: Any) -> Iterator[Any]:
        x = T.ones(2, 3, 5)
        for view in (x.transpose(0, 1), x.permute(2, 0, 1), x[:, 1:], x[:, :, ::2]):
            yield T.rand_like(view)
            yield T.randint_like(view, 10)
            yield T.rand_like(view).uniform_(2, 3)
            yield T.nn.functional.dropout(view, 0.4)
            yield T.nn.functional.alpha_dropout(view, 0.4, training=True)

    def normals(T: Any) -> Iterator[Any]:
        yield T.randn_like(T.ones(5, 4).t())
        yield T.ones(5, 4).t().normal_()
        yield T.ones(5, 6)[:, :4].normal_(1, 2)
        yield T.rand(2)

    assert_same(draw, exact=True)
    assert_same(normals)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout(dtype: str) -> None:
    def draw(T: Any) -> Iterator[Any]:
        F = T.nn.functional
        x = (T.arange(7 * 24, dtype=getattr(T, dtype)) / 8 - 3).reshape(7, 4, 3, 2)
        for p in (0.0, 0.1, 0.5, 1.0):
            yield F.dropout(x, p)
            yield F.dropout(x, p, training=False)
            yield F.dropout1d(x[..., 0], p)
            yield F.dropout2d(x, p)
            yield F.dropout3d(x[..., None], p)
        leaf = x.clone().requires_grad_()
        F.dropout(leaf, 0.3).sum().backward()
        yield leaf.grad
        yield T.rand(3)

    assert_same(draw, exact=True)
    assert_same(lambda T: (T.nn.functional.alpha_dropout(T.ones(9, 4), 0.3, training=True),
                           T.nn.functional.feature_alpha_dropout(T.ones(9, 4, 2), 0.3, training=True),
                           T.nn.functional.gumbel_softmax(probabilities(T)), T.rand(3)))


def initial_values(T: Any) -> Iterator[Any]:
    init = T.nn.init
    for name in ("uniform_", "normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_",
                 "trunc_normal_", "orthogonal_"):
        yield getattr(init, name)(T.empty(6, 9))
        yield getattr(init, name)(T.empty(5, 2, 2))
    yield init.sparse_(T.empty(9, 4), 0.3)
    yield init.trunc_normal_(T.empty(50), std=0.02)
    yield init.trunc_normal_(T.empty(50), 3.0, 1.0, -1.0, 2.5)
    yield init.trunc_normal_(T.empty(50), 0.0, 1.0, 3.0, 4.0)
    yield T.rand(3)


def test_initial_values() -> None:
    assert_same(initial_values)


MODULES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Linear", (3, 5), {}), ("Linear", (3, 5), {"bias": False}), ("Bilinear", (3, 4, 5), {}),
    ("Conv1d", (4, 6, 3), {}), ("Conv2d", (4, 6, 3), {"groups": 2}), ("Conv3d", (4, 6, 3), {}),
    ("ConvTranspose1d", (4, 6, 3), {}), ("ConvTranspose2d", (4, 6, 3), {}), ("ConvTranspose3d", (4, 6, 3), {}),
    ("Embedding", (7, 3), {"padding_idx": 2}), ("RNN", (3, 5, 2), {}),
    ("LSTM", (3, 5, 2), {"bidirectional": True, "proj_size": 2}), ("GRU", (3, 5, 2), {}), ("RNNCell", (3, 5), {}),
    ("LSTMCell", (3, 5), {}), ("GRUCell", (3, 5), {}), ("MultiheadAttention", (8, 2), {"add_bias_kv": True}),
    ("MultiheadAttention", (8, 2), {"kdim": 5, "vdim": 6}), ("TransformerEncoderLayer", (8, 2, 16), {}),
    ("TransformerDecoderLayer", (8, 2, 16), {}), ("Transformer", (8, 2, 1, 1, 16), {}), ("BatchNorm2d", (3,), {}),
    ("PReLU", (3,), {}),
]


@pytest.mark.parametrize("name, args, options", MODULES)
def test_modules_start_with_torchs_parameters(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    assert_same(lambda T: [*getattr(T.nn, name)(*args, **options).state_dict().values(), T.rand(3)])


def test_a_transformer_drops_what_torchs_drops() -> None:
    def run(T: Any) -> Iterator[Any]:
        x = T.linspace(-1, 1, 80).reshape(2, 5, 8)
        for batch_first in (False, True):
            layer = T.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=batch_first)
            yield layer(x)
        yield T.rand(2)

    for mine, other in zip(seeded(dg, 3, run), seeded(torch, 3, run), strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)


def recurrent(T: Any) -> Iterator[Any]:
    x = T.arange(56.0).reshape(7, 2, 4) / 28 - 1
    for kind in ("RNN", "LSTM", "GRU"):
        for batch_first in (False, True):
            yield getattr(T.nn, kind)(4, 5, 3, dropout=0.3, batch_first=batch_first)(x)[0]
        packed = T.nn.utils.rnn.pack_padded_sequence(x, T.tensor([4, 7]), enforce_sorted=False)
        yield getattr(T.nn, kind)(4, 5, 2, dropout=0.3, bidirectional=True)(packed)[0].data
    yield T.rand(2)


def test_dropout_between_recurrent_layers() -> None:
    for mine, other in zip(seeded(dg, 3, recurrent), seeded(torch, 3, recurrent), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


def batches(T: Any) -> Iterator[Any]:
    data = T.utils.data
    x = T.arange(23.0)
    rows = data.TensorDataset(x, x * 2)
    own = T.Generator().manual_seed(3)
    for generator in (None, own):
        for _ in range(2):
            for batch in data.DataLoader(rows, batch_size=5, shuffle=True, generator=generator):
                yield batch[0]
                yield T.rand(2)
        for batch in data.DataLoader(rows, batch_size=10, generator=generator):
            yield batch[1]
        for part in data.random_split(rows, [0.5, 0.3, 0.2], generator=generator or T.default_generator):
            yield T.tensor(list(part.indices))
        for sampler in (
            data.RandomSampler(rows, True, 40, generator), data.RandomSampler(rows, False, 60, generator),
            data.RandomSampler(rows, False, 46, generator), data.SubsetRandomSampler([3, 1, 4, 5, 9], generator),
            data.WeightedRandomSampler([0.1, 0.5, 2, 3, 0], 10, generator=generator),
            data.WeightedRandomSampler([0.1, 0.5, 2, 3, 0], 3, False, generator=generator),
        ):
            yield T.tensor(list(sampler))
    train, _ = data.random_split(rows, [0.8, 0.2])
    for batch in data.DataLoader(train, batch_size=4, shuffle=True, drop_last=True):
        yield batch[1]
    for item in data.DataLoader(range(9), batch_size=None, shuffle=True):
        yield T.tensor(item)
    yield T.rand(2, generator=own)
    yield T.rand(2)


def test_loaders_take_the_same_rows() -> None:
    assert_same(batches, exact=True)


def samples(T: Any) -> Iterator[Any]:
    D = T.distributions
    loc = T.tensor([[0.3, 1.2, 2.0], [0.7, 0.1, 3.0]])
    scale, p = loc + 0.5, T.tensor([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    for law in (
        D.Bernoulli(p), D.Categorical(p), D.Cauchy(loc, scale), D.Exponential(scale), D.Geometric(p),
        D.Gumbel(loc, scale), D.HalfCauchy(scale), D.HalfNormal(scale), D.Independent(D.Normal(loc, scale), 1),
        D.Laplace(loc, scale), D.LogNormal(loc, scale), D.MixtureSameFamily(D.Categorical(p), D.Normal(loc, scale)),
        D.Multinomial(10, p), D.MultivariateNormal(loc, scale_tril=T.eye(3) * 2), D.Normal(loc, scale),
        D.OneHotCategorical(p), D.RelaxedBernoulli(T.tensor(0.5), p), D.RelaxedOneHotCategorical(T.tensor(0.5), p),
        D.TransformedDistribution(D.Normal(loc, scale), [D.SigmoidTransform()]), D.Uniform(loc, loc + scale),
    ):
        for shape in ((), (4,), (2, 5)):
            yield law.sample(shape)
            if law.has_rsample:
                yield law.rsample(shape)
    yield T.rand(2)


def test_distributions() -> None:
    for mine, other in zip(seeded(dg, 3, samples), seeded(torch, 3, samples), strict=True):
        np.testing.assert_allclose(mine, other, rtol=5e-6, atol=5e-6)


def everything(T: Any) -> Iterator[Any]:
    x, p = T.arange(35.0).reshape(7, 5), probabilities(T)
    F = T.nn.functional
    for size in ((7, 5), (7, 3), (3,), (17,), (70, 3), (0, 4)):
        yield T.rand(size)
        yield T.randn(size)
        yield T.randn(size, dtype=T.float64)
        yield T.randn(size, dtype=T.float16)
        yield T.randint(-5, 1000, size)
        yield T.empty(size).exponential_()
        yield T.empty(size).log_normal_()
        yield F.dropout(T.ones(size), 0.4)
    yield T.randperm(1000)
    yield T.normal(x, p)
    yield T.bernoulli(p)
    yield T.multinomial(p, 2)
    yield T.rand_like(x.t())
    yield T.randn(9, 4, dtype=T.complex64)
    yield F.dropout2d(T.ones(7, 3, 2, 2), 0.5)
    yield from initial_values(T)
    yield from batches(T)
    yield T.nn.Linear(5, 3)(F.dropout(x, 0.1))


@pytest.mark.parametrize("threshold", [0, 1 << 30])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_any_number_of_workers(workers: int, threshold: int) -> None:
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=threshold):
        assert_same(everything)


def train(T: Any, steps: int = 12) -> list[float]:
    T.manual_seed(0)
    data = T.utils.data
    x = T.randn(60, 8)
    y = (x[:, :3].sum(1) > 0).long()
    model = T.nn.Sequential(T.nn.Linear(8, 16), T.nn.ReLU(), T.nn.Dropout(0.2), T.nn.Linear(16, 2))
    optimizer = T.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, labels in data.DataLoader(data.TensorDataset(x, y), batch_size=16, shuffle=True):
            loss = T.nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_training_script_gives_torchs_losses(workers: int) -> None:
    session = dg.init(local_mode=True, num_workers=workers, shard_threshold=0) if workers else contextlib.nullcontext()
    with session:
        found = train(dg)
    np.testing.assert_allclose(found, train(torch), rtol=2e-5)


def test_drawing_reads_nothing_back_and_sends_nothing() -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        dg.synchronize()
        before = dg.stats().driver_bytes
        made = [dg.rand(50, 4), dg.randn(50, 4), dg.randperm(50), dg.nn.init.trunc_normal_(dg.empty(50, 4), std=0.02)]
        dg.synchronize()
        assert dg.stats().driver_bytes == before
        assert made[0].placement == dg.Shard(0)
