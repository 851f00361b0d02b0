"""Every collective on simulated ranks, against numpy, with uneven and empty shards."""

import ast
import itertools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from distgrad.errors import WireError
from distgrad.runtime import collectives, node_reduce, taking
from distgrad.runtime.collectives import Bucket, Counter, Exchange, Reduction, run_lockstep

WORLDS = [1, 2, 3, 5, 8]
DTYPES = [np.bool_, np.int8, np.int64, np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64]
REDUCTIONS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def name(value):
    return np.dtype(value).name if isinstance(value, type) else str(value)


def sample(rng, shape, dtype):
    if dtype is np.bool_:
        return np.asarray(rng.random(shape) < 0.3)
    if np.dtype(dtype).kind in "iu":
        return np.asarray(rng.integers(-9, 9, shape)).astype(dtype)
    values = np.asarray(rng.standard_normal(shape))
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def cuts(rng, rows, world_size):
    """Random offsets: uneven, often empty blocks."""
    return (0, *sorted(int(c) for c in rng.integers(0, rows + 1, world_size - 1)), rows)


def in_rank_order(reduce, arrays):
    """The definition: element by element, in rank order, halves in float32."""
    dtype = arrays[0].dtype
    if dtype == np.bool_:
        return (np.logical_or if reduce in ("sum", "max") else np.logical_and).reduce(arrays)
    half = dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
    # Flat: numpy rounds the complex product of 0-d arrays otherwise than that of arrays.
    total = np.atleast_1d(arrays[0].astype(np.float32) if half else arrays[0])
    for array in arrays[1:]:
        total = REDUCTIONS[reduce](total, np.atleast_1d(array.astype(total.dtype)))
    return total.astype(dtype).reshape(arrays[0].shape)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(params=["direct", "chunked", "chunked in blocks"])
def form(request, monkeypatch):
    """All forms of all_reduce, for any size."""
    monkeypatch.setattr(collectives, "DIRECT_BYTES", 1 << 40 if request.param == "direct" else -1)
    if request.param == "chunked in blocks":
        monkeypatch.setattr(collectives, "ROUND_BYTES", 100)
    return request.param


def first_exchange(generator):
    """The first round of a collective, after a transport has declined to reduce in its own way."""
    request = next(generator)
    return generator.send(False) if isinstance(request, Reduction) else request


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_all_reduce(form, world_size, dtype):
    rng = np.random.default_rng(world_size)
    shapes = [(), (0,), (7,), (3, 0, 2), (1,), (13, 5), (2, 3, 4)]
    ranks = [[sample(rng, shape, dtype) for shape in shapes] for _ in range(world_size)]
    for arrays in ranks[::2]:  # layouts may differ from rank to rank
        arrays[5] = np.asfortranarray(arrays[5])
    before = [[array.copy() for array in arrays] for arrays in ranks]
    for reduce in ("sum", "prod") if np.dtype(dtype).kind == "c" else REDUCTIONS:
        expected = [in_rank_order(reduce, list(group)) for group in zip(*ranks, strict=True)]
        counter = Counter()
        results = run_lockstep(
            [collectives.all_reduce(r, world_size, ranks[r], reduce) for r in range(world_size)], counter
        )
        for arrays in results:
            for got, want in zip(arrays, expected, strict=True):
                assert same_bits(got, want), (reduce, got, want)
        total = sum(array.nbytes for array in ranks[0])
        direct = form == "direct" or world_size == 2
        assert counter.bytes_sent == (world_size if direct else 2) * (world_size - 1) * total
        if form != "chunked in blocks":
            assert counter.rounds == (0 if world_size == 1 else 1 if direct else 2)
    for arrays, originals in zip(ranks, before, strict=True):
        assert all(same_bits(a, b) for a, b in zip(arrays, originals, strict=True))


@pytest.mark.parametrize("world_size", WORLDS)
def test_all_reduce_in_place_and_into_out(form, world_size):
    rng = np.random.default_rng(0)
    ranks = [[sample(rng, (50,), np.float32), sample(rng, (3, 4), np.float32)] for _ in range(world_size)]
    expected = [in_rank_order("sum", list(group)) for group in zip(*ranks, strict=True)]
    strided = [[np.full((50, 2), -1, np.float32)[:, 0], np.empty((4, 3), np.float32).T] for _ in ranks]
    results = run_lockstep([collectives.all_reduce(r, world_size, ranks[r], out=strided[r]) for r in range(world_size)])
    for arrays, targets in zip(results, strided, strict=True):
        for got, target, want in zip(arrays, targets, expected, strict=True):
            assert got is target and same_bits(got, want)
    results = run_lockstep([collectives.all_reduce(r, world_size, ranks[r], out=ranks[r]) for r in range(world_size)])
    for arrays, own in zip(results, ranks, strict=True):
        for got, array, want in zip(arrays, own, expected, strict=True):
            assert got is array and same_bits(got, want)


def test_all_reduce_beyond_one_block(monkeypatch):
    """More elements per chunk than are reduced at a time, the default choice of form, in place."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16, np.int64):
        ranks = [[sample(rng, (150_001,), dtype), sample(rng, (77, 999), dtype)] for _ in range(3)]
        expected = [in_rank_order("sum", list(group)) for group in zip(*ranks, strict=True)]
        counter = Counter()
        run_lockstep([collectives.all_reduce(r, 3, ranks[r], out=ranks[r]) for r in range(3)], counter)
        assert counter.rounds == 2
        for arrays in ranks:
            assert all(same_bits(a, b) for a, b in zip(arrays, expected, strict=True))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=name)
def test_nan_wins(form, dtype):
    ranks = [np.array([np.nan, 1, 2, 3], dtype), np.array([0, np.nan, 5, 1], dtype), np.array([1, 1, np.nan, 2], dtype)]
    for reduce, last in (("max", 3), ("min", 1)):
        for (got,) in run_lockstep([collectives.all_reduce(r, 3, [ranks[r]], reduce) for r in range(3)]):
            assert np.isnan(got[:3].astype(float)).all() and float(got[3]) == last


def test_halves_accumulate_in_float32():
    """256 + 8 ones: float16 and bfloat16 alone would lose each one of them to rounding."""
    for dtype, big in ((np.float16, 2048), (ml_dtypes.bfloat16, 256)):
        values = [np.full(3, big, dtype)] + [np.ones(3, dtype)] * 8
        for (got,) in run_lockstep([collectives.all_reduce(r, 9, [values[r]]) for r in range(9)]):
            assert (got.astype(float) == big + 8).all()


@pytest.mark.parametrize("world_size", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [1_000, 20_000, 3_000_001])
def test_bytes_sent_per_rank(world_size, size):
    """No rank sends more than 2 (W - 1) / W of the bucket, but for what cannot be cut evenly."""
    sent = [0] * world_size

    def counted(rank):
        generator = collectives.all_reduce(rank, world_size, [np.ones(size, np.float32), np.ones(7, np.float32)])
        answer = None
        while True:
            try:
                request = generator.send(answer)
            except StopIteration as stop:
                return stop.value
            if isinstance(request, Reduction):
                answer = False
                continue
            sent[rank] += sum(map(collectives.payload_bytes, request.send))
            answer = yield request

    results = run_lockstep([counted(rank) for rank in range(world_size)])
    assert all((array == world_size).all() for arrays in results for array in arrays)
    rounds = -(-4 * (size + 7) // collectives.ROUND_BYTES)
    for count in sent:
        assert count <= 2 * (world_size - 1) / world_size * 4 * (size + 7) + rounds * 4 * world_size


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 1), (1, 3), (3, 3, 2), (1, 2, 1), (4, 1, 2, 3)], ids=str)
def test_all_reduce_by_nodes(monkeypatch, sizes, in_place):
    """The same bits as in rank order, for any nodes and blocks; each link between nodes carries a bucket once each way."""
    world_size = sum(sizes)
    ranks = iter(range(world_size))
    nodes = [[next(ranks) for _ in range(size)] for size in sizes]
    assert node_reduce.nodes_of([str(n) for n, node in enumerate(nodes) for _ in node]) == tuple(map(tuple, nodes))
    node_of = {rank: n for n, node in enumerate(nodes) for rank in node}
    for shapes, block in itertools.product([[(5,)], [(1000,)], [(7,), (0,), (43, 7), ()]], [64, 1000, 1 << 20]):
        monkeypatch.setattr(node_reduce, "block_bytes", lambda nbytes, count, size=block: size)
        rng = np.random.default_rng(0)
        given = [[sample(rng, shape, np.float32) for shape in shapes] for _ in range(world_size)]
        expected = [in_rank_order("sum", [arrays[i] for arrays in given]) for i in range(len(shapes))]
        total = sum(array.size for array in expected)
        results, generators, between = [], [], Counter()

        def watched(rank, generator, links=between):
            answer = None
            while True:
                try:
                    request = generator.send(answer)
                except StopIteration:
                    return
                links.bytes_sent += sum(
                    collectives.payload_bytes(payload) for to, payload in enumerate(request.send)
                    if node_of[to] != node_of[rank]
                )
                answer = yield request

        for rank, arrays in enumerate(given):
            out = arrays if in_place else [np.empty_like(array) for array in arrays]
            work = Reduction(Bucket(arrays), Bucket(out), np.add, np.dtype(np.float32), total, in_place)
            results.append(out)
            generators.append(watched(rank, node_reduce.all_reduce(rank, nodes, work)))
        counter = Counter()
        run_lockstep(generators, counter)
        for out in results:
            assert all(same_bits(a, b) for a, b in zip(out, expected, strict=True))
        assert counter.bytes_sent == 2 * (world_size - 1) * total * 4
        assert between.bytes_sent == 2 * (len(sizes) - 1) * total * 4


def test_when_nodes_are_a_gain():
    assert node_reduce.nodes_of(["a", "a", "a"]) is None  # shared memory
    assert node_reduce.nodes_of(["a", "b", "c"]) is None  # nothing to add up on a node
    assert node_reduce.nodes_of(["a", "b", "a"]) is None  # ranks not one after the other
    assert node_reduce.nodes_of(["b", "a", "a"]) == ((0,), (1, 2))

    def offer(dtype, ufunc=np.add, size=1 << 20):
        flat = Bucket([np.zeros(size, dtype)])
        return Reduction(flat, flat, ufunc, np.dtype(dtype), size, True)

    assert node_reduce.suits(offer(np.float32)) and node_reduce.suits(offer(np.complex64))
    assert not node_reduce.suits(offer(np.float32, size=1000))
    assert not node_reduce.suits(offer(np.float16))  # added in float32, rounded once
    assert not node_reduce.suits(offer(np.complex64, np.multiply))


def test_chunks_are_sent_as_views():
    arrays = [np.zeros(50_000), np.zeros((100, 300)), np.zeros(20_000)]
    request = first_exchange(collectives.all_reduce(0, 3, arrays))
    assert request.send[0] is None and request.expect[1:] == [33_333 * 8] * 2
    pieces = [[next(i for i, a in enumerate(arrays) if np.shares_memory(p, a)) for p in s] for s in request.send[1:]]
    assert pieces == [[0, 1], [1, 2]]


def test_all_reduce_refuses():
    one = np.ones(3)
    with pytest.raises(TypeError, match="a bucket has one dtype, got float64 and int64"):
        next(collectives.all_reduce(0, 2, [one, np.arange(3)]))
    with pytest.raises(ValueError, match="unknown reduction 'mean'"):
        next(collectives.all_reduce(0, 2, [one], "mean"))
    with pytest.raises(TypeError, match="complex"):
        next(collectives.all_reduce(0, 2, [one.astype(complex)], "max"))
    with pytest.raises(ValueError, match="out must match"):
        next(collectives.all_reduce(0, 2, [one], out=[np.ones(4)]))


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("dtype", [np.bool_, ml_dtypes.bfloat16, np.float32, np.int64], ids=name)
def test_reduce_scatter(world_size, dtype):
    rng = np.random.default_rng(world_size)
    for shape, axis in [((7,), 0), ((5, 6), 1), ((2, 3, 4), -2), ((0, 4), 0), ((4, 0), 0), ((1, 3), 0)]:
        ranks = [sample(rng, shape, dtype) for _ in range(world_size)]
        ranks[0] = np.asfortranarray(ranks[0])
        offsets = cuts(rng, shape[axis], world_size)
        for reduce in REDUCTIONS:
            results = run_lockstep(
                [collectives.reduce_scatter(r, world_size, ranks[r], axis, offsets, reduce) for r in range(world_size)]
            )
            whole = in_rank_order(reduce, ranks)
            for want, got in zip(np.split(whole, offsets[1:-1], axis), results, strict=True):
                assert same_bits(got, want)


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_all_gather(world_size, dtype):
    rng = np.random.default_rng(world_size)
    for shape, axis in [((7,), 0), ((5, 6), 1), ((2, 3, 4), -2), ((0, 4), 0), ((4, 0), 0), ((1, 3), 0)]:
        whole = sample(rng, shape, dtype)
        offsets = cuts(rng, shape[axis], world_size)
        blocks = np.split(whole, offsets[1:-1], axis)
        counter = Counter()
        results = run_lockstep(
            [collectives.all_gather(r, world_size, blocks[r], axis, offsets, shape) for r in range(world_size)], counter
        )
        assert all(same_bits(got, whole) for got in results)
        assert counter.bytes_sent == whole.nbytes * (world_size - 1)


@pytest.mark.parametrize("world_size", WORLDS)
def test_redistribute(world_size):
    rng = np.random.default_rng(world_size)
    for shape, dtype in itertools.product(
        [(7,), (5, 6), (1, 9), (4, 3, 5), (0, 3), (2, 0, 3)], [np.bool_, np.float32, ml_dtypes.bfloat16]
    ):
        whole = sample(rng, shape, dtype)
        for axis_from, axis_to in itertools.product(range(len(shape)), repeat=2):
            before, after = cuts(rng, shape[axis_from], world_size), cuts(rng, shape[axis_to], world_size)
            old = np.split(whole, before[1:-1], axis_from)
            counter = Counter()
            results = run_lockstep(
                [
                    collectives.redistribute(
                        r, world_size, old[r], shape, axis_from, before, axis_to - len(shape), after
                    )
                    for r in range(world_size)
                ],
                counter,
            )
            new = np.split(whole, after[1:-1], axis_to)
            assert all(same_bits(got, want) for got, want in zip(results, new, strict=True))
            # Only what changes its owner moves.
            number = np.arange(whole.size).reshape(shape)
            stays = sum(
                np.intersect1d(a, b).size
                for a, b in zip(
                    np.split(number, before[1:-1], axis_from), np.split(number, after[1:-1], axis_to), strict=True
                )
            )
            assert counter.bytes_sent == (whole.size - stays) * whole.itemsize


@pytest.mark.parametrize("world_size", WORLDS)
def test_take_rows(world_size):
    rng = np.random.default_rng(world_size)
    for rows, tail, taken in [(7, (), 12), (20, (3,), 9), (5, (2, 2), 0), (0, (3,), 0), (1, (4,), 6), (4, (0,), 5)]:
        whole = sample(rng, (rows, *tail), np.float32)
        offsets, out_offsets = cuts(rng, rows, world_size), cuts(rng, taken, world_size)
        index = rng.integers(0, max(rows, 1), taken)
        blocks = np.split(whole, offsets[1:-1])
        counter = Counter()
        results = run_lockstep(
            [taking.take_rows(r, world_size, blocks[r], offsets, index, out_offsets) for r in range(world_size)],
            counter,
        )
        for got, want in zip(results, np.split(whole[index], out_offsets[1:-1]), strict=True):
            assert same_bits(got, want)
        owner = np.searchsorted(offsets, index, side="right") - 1
        taker = np.searchsorted(out_offsets, np.arange(taken), side="right") - 1
        assert counter.bytes_sent == int((owner != taker).sum()) * whole[:1].nbytes


def test_take_rows_names_the_bad_index():
    block = np.zeros((3, 2))
    for bad in (6, -1):
        with pytest.raises(
            IndexError, match=f"index {bad} at position 1 is out of range for 6 rows; allowed are 0 to 5"
        ):
            next(taking.take_rows(0, 2, block, (0, 3, 6), np.array([0, bad]), (0, 1, 2)))
    with pytest.raises(IndexError, match="there are no rows"):
        next(taking.take_rows(0, 2, block[:0], (0, 0, 0), np.array([0]), (0, 1, 1)))


@pytest.mark.parametrize("world_size", WORLDS)
def test_broadcast_and_barrier(world_size):
    rng = np.random.default_rng(0)
    for dtype, shape in itertools.product(DTYPES, [(), (0, 2), (3, 4)]):
        root = world_size - 1
        array = np.asfortranarray(sample(rng, shape, dtype)) if shape else sample(rng, shape, dtype)
        results = run_lockstep(
            [
                collectives.broadcast(r, world_size, array if r == root else None, root, shape, dtype)
                for r in range(world_size)
            ]
        )
        assert all(same_bits(got, array) for got in results)
    counter = Counter()
    assert run_lockstep([collectives.barrier(r, world_size) for r in range(world_size)], counter) == [None] * world_size
    assert counter == Counter(1, 1, world_size * (world_size - 1))
    with pytest.raises(ValueError, match="root 0 must give"):
        next(collectives.broadcast(0, 2, None, 0, (3,), np.float32))


def test_offsets_and_blocks_are_checked():
    block = np.zeros((2, 3))
    for offsets in [(0, 2), (0, 3, 2), (1, 2, 4), (0, 2, 5)]:
        with pytest.raises(ValueError, match="do not cut 4 rows for 2 ranks"):
            next(collectives.all_gather(0, 2, block, 0, offsets, (4, 3)))
    with pytest.raises(ValueError, match=r"rank 0 holds a block of shape \(2, 3\), its offsets say \(1, 3\)"):
        next(collectives.all_gather(0, 2, block, 0, (0, 1, 4), (4, 3)))


def test_lockstep_hands_over_read_only_views():
    array = np.arange(6.0)

    def rank(own):
        frames = yield Exchange(
            [None if d == own else array for d in range(2)], [0 if s == own else 48 for s in range(2)]
        )
        frame = frames[1 - own]
        with pytest.raises(ValueError, match="read-only"):
            frame[0] = 1
        return np.shares_memory(frame, array)

    assert run_lockstep([rank(0), rank(1)]) == [True, True]
    assert array.flags.writeable


def test_lockstep_refuses_ranks_that_disagree():
    with pytest.raises(WireError, match="rank 1 of 2 sends 32 bytes to rank 0, which expects 24") as caught:
        run_lockstep([collectives.all_reduce(r, 2, [np.ones(3 + r)]) for r in range(2)])
    assert caught.value.ranks == [1, 0]
    with pytest.raises(WireError, match="sends float32 to rank 0, which expects int32"):
        run_lockstep([collectives.all_reduce(r, 2, [np.ones(3, [np.int32, np.float32][r])]) for r in range(2)])
    with pytest.raises(WireError, match=r"ranks \[2\] finished"):
        run_lockstep([collectives.barrier(0, 3), collectives.barrier(1, 3), iter_none()])


def iter_none():
    return
    yield


def test_no_transport_library_is_needed():
    """The module stays importable without Arrow and Ray."""
    tree = ast.parse(Path(collectives.__file__).read_text())
    names = {n.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    assert not names & {"ray", "pyarrow"}
