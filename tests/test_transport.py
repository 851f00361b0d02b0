"""Groups of real processes: every collective over every channel, and every way a wait can end."""

import itertools
import os
import pickle
import signal
import socket
import threading
import time
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from group_workers import CHANNELS, SETTINGS, Workers, close, connect, digest

from distgrad.errors import CollectiveTimeout, GroupAborted, WireError, WorkerLostError
from distgrad.runtime import collectives, slices, taking, tcp
from distgrad.runtime.collectives import Exchange, run_lockstep
from distgrad.runtime.shared_memory import process_start_time
from distgrad.runtime.transport import Group

# What runs in the worker processes: commands are functions of this module, called with the process's state.


def seconds_until(state, kind, call, *args):
    """Runs a command that must raise `kind`; returns the seconds it took and the error."""
    started = time.monotonic()
    try:
        call(state, *args)
    except kind as error:
        return time.monotonic() - started, error
    raise AssertionError(f"{call.__name__} did not raise {kind}")


def barrier(state, times=1):
    group = state["group"]
    for _ in range(times):
        group.run(collectives.barrier(group.rank, group.world_size))
    return group.collectives


def all_reduce(state, size):
    group = state["group"]
    array = np.full(size, float(group.rank + 1), np.float32)
    group.run(collectives.all_reduce(group.rank, group.world_size, [array], out=[array]))
    return float(array.min()), float(array.max()), group.bytes_sent


def abort_soon(state):
    threading.Timer(0.3, state["group"].abort, ["the driver said so"]).start()
    barrier(state)


def send_bytes(state, size):
    """Sends and expects another number of bytes than the other ranks think."""
    group = state["group"]
    others = [rank != group.rank for rank in range(group.world_size)]
    block = np.zeros(size, np.uint8)
    group.exchange(Exchange([block if other else None for other in others], [8 if other else 0 for other in others]))


def receive_allocates(state, size):
    """Returns the receive buffers' size after a frame was refused."""
    seconds_until(state, WireError, send_bytes, size)
    return max((connection.buffer.size for connection in state["group"]._network.peers.values()), default=0)


def battery(rank, world_size):
    """One collective of each kind, and more: (generator for this rank) by name; the same data on every rank."""
    rng = np.random.default_rng(7)

    def cuts(rows):
        return (0, *sorted(int(c) for c in rng.integers(0, rows + 1, world_size - 1)), rows)

    dtypes = [np.bool_, np.float16, ml_dtypes.bfloat16, np.float32, np.int64, np.complex128]
    for dtype, size in itertools.product(dtypes, [1, 100, 90_000]):
        arrays = [
            [np.asarray(rng.integers(0, 2, shape)).astype(dtype) for shape in ((), (size, 3), (0,), (size,))]
            for _ in range(world_size)
        ]
        yield collectives.all_reduce(rank, world_size, arrays[rank])
    for dtype, (shape, axis) in itertools.product(dtypes, [((11, 5), 0), ((3, 7, 2), 1), ((0, 3), 0), ((1, 400), 0)]):
        whole = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
        offsets, after, out = cuts(shape[axis]), cuts(shape[-1]), cuts(9)
        block = np.split(whole, offsets[1:-1], axis)[rank]
        yield collectives.all_gather(rank, world_size, block, axis, offsets, shape)
        reduce = "sum" if dtype is np.complex128 else "max"
        yield collectives.reduce_scatter(rank, world_size, whole, axis, offsets, reduce)
        yield collectives.redistribute(rank, world_size, block, shape, axis, offsets, -1, after)
        yield collectives.broadcast(rank, world_size, whole if rank == 1 else None, 1, shape, dtype)
        yield collectives.barrier(rank, world_size)
        if axis == 0 and shape[0]:
            index = rng.integers(0, shape[0], 9)
            yield taking.take_rows(rank, world_size, block, offsets, index, out)
    for dtype, rows in [*itertools.product(dtypes, [5]), (np.float32, 700_000)]:
        shapes, offsets = [(rows, 3), (4,), ()], [cuts(rows), cuts(4), None]
        arrays = [[np.asarray(rng.integers(0, 2, s)).astype(dtype) for s in shapes] for _ in range(world_size)]
        yield slices.reduce_scatter_all(rank, world_size, arrays[rank], offsets)
        wholes = [a.copy() for a in arrays[0][:2]]
        for array, cut in zip(wholes, offsets, strict=False):
            array[: cut[rank]] = array[cut[rank + 1] :] = 0
        yield slices.all_gather_all(rank, world_size, wholes, offsets[:2])


def run_battery(state):
    group = state["group"]
    digests = [digest(group.run(generator)) for generator in battery(group.rank, group.world_size)]
    return digests, group.bytes_sent, group.collectives


# The side of the tests


@pytest.fixture(scope="module")
def workers():
    """Three processes that live through the module; every test makes groups of its own in them."""
    pool = Workers(3)
    yield pool
    pool.end()


@pytest.fixture
def mortals():
    """Three processes that a test may kill."""
    pool = Workers(3)
    yield pool
    pool.end()


@pytest.mark.parametrize(
    ("world_size", "channel"), [(2, "memory"), (3, "memory"), (2, "network"), (3, "network"), (3, "mixed")]
)
def test_same_bits_as_in_lockstep(workers, world_size, channel):
    generators = [battery(rank, world_size) for rank in range(world_size)]
    expected, counter = [], collectives.Counter()
    for step in zip(*generators, strict=True):
        expected.append([digest(result) for result in run_lockstep(step, counter)])
    shared_before = set(os.listdir("/dev/shm"))
    workers.group(world_size, channel)
    answers = workers.all(run_battery, ranks=range(world_size))
    for rank, (digests, _, count) in enumerate(answers):
        assert digests == [results[rank] for results in expected]
        assert count == counter.collectives
    assert sum(sent for _, sent, _ in answers) == counter.bytes_sent
    assert set(os.listdir("/dev/shm")) <= shared_before
    assert workers.all(close, ranks=range(world_size)) == [0] * world_size


@pytest.mark.parametrize("channel", CHANNELS)
def test_large_frames_both_ways_and_growing(workers, channel):
    workers.group(channel=channel)
    sent = 0
    for size in (1, 20_000, 3_000_000, 10, 5_000_001, 5_000_001):
        sent_before = sent
        answers = workers.all(all_reduce, size)
        assert [answer[:2] for answer in answers] == [(6.0, 6.0)] * 3
        sent = sum(answer[2] for answer in answers)
        direct = 2 * size * 4 <= collectives.DIRECT_BYTES
        assert sent - sent_before == (6 if direct else 4) * size * 4
    assert workers.all(close) == [0] * 3


def long_bucket(rank):
    """Arrays that together are longer than the ring of a rank, with small ones in between."""
    rng = np.random.default_rng(rank)
    shapes = [(1_500_003,), (5,), (1000, 1501), (), (70_001,)]
    return [np.asarray(rng.standard_normal(shape)).astype(np.float32) for shape in shapes]


def reduce_long_bucket(state, slow):
    """Reduces it into new arrays and then in place; returns digests and the bytes sent by both."""
    group = state["group"]
    sent = group.bytes_sent
    arrays = long_bucket(group.rank)
    originals = digest(arrays)
    results = []
    for out in (None, arrays):
        if group.rank == slow:
            time.sleep(0.05)
        results.append(digest(group.run(collectives.all_reduce(group.rank, group.world_size, arrays, out=out))))
        if out is None:
            assert digest(arrays) == originals
    return results, group.bytes_sent - sent


@pytest.mark.parametrize(
    ("world_size", "channel"), [(2, "memory"), (3, "memory"), (2, "network"), (3, "network"), (3, "mixed")]
)
def test_a_bucket_longer_than_the_ring(workers, channel, world_size):
    expected = [sum(arrays[1:], arrays[0]) for arrays in zip(*map(long_bucket, range(world_size)), strict=True)]
    wanted = digest([np.asarray(array) for array in expected])
    size = sum(array.nbytes for array in expected)
    workers.group(world_size, channel)
    for slow in range(world_size):
        answers = workers.all(reduce_long_bucket, slow, ranks=range(world_size))
        assert [results for results, _ in answers] == [[wanted, wanted]] * world_size
        share = 2 * (world_size - 1) / world_size
        assert sum(sent for _, sent in answers) <= 2 * world_size * (share * size + 40 * world_size)
        if channel == "mixed":  # by nodes: of a node of two ranks, each sends half of all twice, and its own parts to the other
            share = 1.5
        for _, sent in answers:
            assert sent <= 2 * (share * size + 40 * world_size)
    assert workers.all(close, ranks=range(world_size)) == [0] * world_size


def reduce_endlessly(state):
    group = state["group"]
    array = np.zeros(4_000_000, np.float32)
    while True:
        group.run(collectives.all_reduce(group.rank, group.world_size, [array], out=[array]))


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_peer_killed_within_a_bucket_is_a_lost_worker(mortals, channel):
    shared_before = set(os.listdir("/dev/shm"))
    mortals.group(channel=channel)
    for rank in (0, 1, 2):
        mortals.send(rank, seconds_until, WorkerLostError, reduce_endlessly)
    time.sleep(0.5)
    os.kill(mortals.processes[1].pid, signal.SIGKILL)
    for rank in (0, 2):
        _, error = mortals.answer(rank, limit=5)
        assert error.missing == [1] or error.missing == [2 - rank]  # over the network, the other one may give up first
    assert mortals.all(close, ranks=[0, 2]) == [0, 0]
    assert set(os.listdir("/dev/shm")) <= shared_before


def test_a_world_of_one():
    group = Group(0, 1, node_id="node", **SETTINGS)
    group.connect([group.address()])
    (result,) = group.run(collectives.all_reduce(0, 1, [np.arange(3)]))
    assert result.tolist() == [0, 1, 2] and (group.collectives, group.bytes_sent) == (1, 0)
    group.close()
    group.close()
    with pytest.raises(GroupAborted, match="closed"):
        group.run(collectives.barrier(0, 1))


def test_addresses_pickle_and_hold_no_secret(workers):
    addresses = workers.make(2)
    assert pickle.loads(pickle.dumps(addresses)) == addresses
    assert b"secret" not in pickle.dumps(addresses)
    workers.all(close, ranks=range(2))


@pytest.mark.parametrize("channel", ["memory", "network"])
@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [("secret", b"guess", "secret"), ("session", "other", "session"), ("epoch", 2, "epoch")],
)
def test_another_session_is_refused(workers, channel, setting, value, message):
    """The caller (the higher rank) is told; over shared memory both sides see it."""
    addresses = workers.make(2, channel, each=lambda rank: {setting: value} if rank == 1 else {}, timeout=1.0)
    workers.send(0, seconds_until, (CollectiveTimeout, WireError), connect, addresses)
    workers.send(1, seconds_until, WireError, connect, addresses)
    seconds, error = workers.answer(1)
    assert message in str(error) and seconds < 1
    _, error = workers.answer(0)
    assert isinstance(error, WireError) or error.missing == [1]
    assert workers.all(close, ranks=range(2)) == [0, 0]


def test_the_greeting_needs_the_secret_not_only_its_digest():
    """A stranger who copied a hello is refused, and does not disturb the ranks that belong together."""
    groups = [Group(rank, 2, node_id=str(rank), **SETTINGS) for rank in range(2)]
    addresses = [group.address() for group in groups]
    with (
        socket.create_connection((addresses[0].host, addresses[0].port)) as stranger,
        socket.create_connection((addresses[0].host, addresses[0].port)),
    ):
        token = groups[1]._network.identity.token
        hello = tcp._HELLO.pack(tcp._MAGIC, tcp._VERSION, 0, 1, 0, SETTINGS["epoch"], token, bytes(32))
        stranger.sendall(hello)
        thread = threading.Thread(target=groups[0].connect, args=[addresses])
        thread.start()
        reply = b""
        while len(reply) < tcp._REPLY.size:
            reply += stranger.recv(tcp._REPLY.size)
        assert reply[0] == 0
        stranger.sendall(bytes(32))
        assert stranger.recv(1) == b""
        groups[1].connect(addresses)
        thread.join(10)
    threads = [threading.Thread(target=group.run, args=[collectives.barrier(group.rank, 2)]) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [group.collectives for group in groups] == [1, 1]
    for group in groups:
        group.close()


@pytest.mark.parametrize("channel", ["memory", "network"])
def test_a_frame_of_the_wrong_size_is_refused_before_allocation(workers, channel):
    workers.group(2, channel)
    answers = workers.all(seconds_until, WireError, send_bytes, 5_000_000, ranks=range(2))
    for rank, (_, error) in enumerate(answers):
        assert f"from rank {1 - rank}" in str(error) and "length in bytes is 5000000, must be 8" in str(error)
    failed = workers.all(seconds_until, GroupAborted, barrier, ranks=range(2))
    assert all("failed earlier" in str(error) and "new epoch" in str(error) for _, error in failed)
    workers.all(close, ranks=range(2))
    workers.group(2, channel)
    assert workers.all(receive_allocates, 5_000_000, ranks=range(2)) == [0, 0]
    workers.all(close, ranks=range(2))


@pytest.mark.parametrize("channel", ["memory", "network"])
def test_ranks_out_of_step_are_refused(workers, channel):
    """Rank 1 does a smaller collective than rank 0."""
    workers.group(2, channel)
    workers.send(0, seconds_until, WireError, all_reduce, 100)
    workers.send(1, seconds_until, WireError, barrier)
    for rank in range(2):
        assert "length in bytes" in str(workers.answer(rank)[1])
    workers.all(close, ranks=range(2))


def broadcast_often(state, times, slow):
    """Rank 0 only sends, so nothing but flow control keeps it from overwriting what a slow reader still reads."""
    group = state["group"]
    wrong = 0
    for number in range(times):
        array = np.full(30_000, number) if group.rank == 0 else None
        if group.rank == slow and number % 7 == 0:
            time.sleep(0.003)
        received = group.run(collectives.broadcast(group.rank, group.world_size, array, 0, (30_000,), np.int64))
        wrong += int((received != number).any())
    return wrong


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_fast_sender_waits_for_slow_readers(workers, channel):
    workers.group(channel=channel)
    assert workers.all(broadcast_often, 200, 2) == [0, 0, 0]
    workers.all(close)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_timeout_names_who_is_missing(workers, channel):
    workers.group(channel=channel, timeout=0.5)
    workers.all(barrier)
    late = 2 if channel != "mixed" else 1
    present = [rank for rank in range(3) if rank != late]
    for rank in present:
        workers.send(rank, seconds_until, CollectiveTimeout, barrier)
    for rank in present:
        seconds, error = workers.answer(rank)
        assert 0.4 < seconds < 1.5 and error.missing == [late] and 0.4 < error.seconds < 1.5
        assert f"ranks [{late}] of 3 did not arrive at rank {rank}" in str(error)
        assert "init(timeout=...)" in str(error) and "DISTGRAD_TIMEOUT" in str(error)
    workers.all(close)


def test_connect_times_out_too(workers):
    addresses = workers.make(3, "network", timeout=0.3)
    workers.send(0, seconds_until, CollectiveTimeout, connect, addresses)
    workers.send(1, seconds_until, CollectiveTimeout, connect, addresses)
    assert workers.answer(0)[1].missing == [2]
    assert workers.answer(1)[1].missing == [2]
    assert workers.all(close) == [0, 0, 0]


@pytest.mark.parametrize("channel", ["memory", "network"])
def test_abort_from_another_thread(workers, channel):
    workers.group(2, channel)
    workers.send(0, seconds_until, GroupAborted, abort_soon)
    seconds, error = workers.answer(0)
    assert seconds < 1 and "the driver said so" in str(error) and error.missing == [1]
    assert "the driver said so" in str(workers.all(seconds_until, GroupAborted, barrier, ranks=[0])[0][1])
    workers.all(close, ranks=range(2))


@pytest.mark.parametrize("channel", ["memory", "network"])
def test_a_closed_peer_is_a_lost_worker(workers, channel):
    workers.group(2, channel)
    workers.all(barrier, ranks=range(2))
    workers.send(0, seconds_until, WorkerLostError, barrier)
    time.sleep(0.2)
    workers.all(close, ranks=[1])
    seconds, error = workers.answer(0)
    assert seconds < 2 and error.missing == [1]
    assert workers.all(close, ranks=[0]) == [0]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_killed_peer_is_a_lost_worker(mortals, channel):
    """Within 2 s, by every survivor, and nothing is left of the dead process's memory."""
    shared_before = set(os.listdir("/dev/shm"))
    mortals.group(channel=channel)
    mortals.all(all_reduce, 1_000_000)
    for rank in (1, 2):
        mortals.send(rank, seconds_until, WorkerLostError, barrier, 3)
    time.sleep(0.2)
    killed = time.monotonic()
    os.kill(mortals.processes[0].pid, signal.SIGKILL)
    for rank in (1, 2):
        _, error = mortals.answer(rank)
        assert error.missing == [0] and "rank 0" in str(error)
    assert time.monotonic() - killed < 2
    assert mortals.all(close, ranks=[1, 2]) == [0, 0]
    assert set(os.listdir("/dev/shm")) <= shared_before


def test_a_stopped_peer_is_a_timeout(mortals):
    mortals.group(2, timeout=0.5)
    os.kill(mortals.processes[1].pid, signal.SIGSTOP)
    try:
        (answer,) = mortals.all(seconds_until, CollectiveTimeout, barrier, ranks=[0])
        assert answer[1].missing == [1]
    finally:
        os.kill(mortals.processes[1].pid, signal.SIGCONT)
    mortals.all(close, ranks=[0, 1])


def test_a_peer_that_is_gone_before_connect(mortals):
    """Neither a dead process nor a later one with its number is mistaken for the peer."""
    for channel in ("memory", "network"):
        addresses = mortals.make(2, channel)
        if channel == "memory":
            earlier = replace(addresses[0].memory, start_time=addresses[0].memory.start_time - 1)
            wrong = [replace(addresses[0], memory=earlier), addresses[1]]
            (answer,) = mortals.all(seconds_until, WorkerLostError, connect, wrong, ranks=[1])
            assert answer[1].missing == [0]
            mortals.all(close, ranks=[0, 1])
        else:
            os.kill(mortals.processes[0].pid, signal.SIGKILL)
            mortals.processes[0].join()
            (answer,) = mortals.all(seconds_until, WorkerLostError, connect, addresses, ranks=[1])
            assert answer[1].missing == [0]
            mortals.all(close, ranks=[1])


def test_process_start_time():
    assert process_start_time(os.getpid()) == process_start_time(os.getpid()) > 0
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert process_start_time(child) is None  # a zombie: ended, not reaped
    os.waitpid(child, 0)
    assert process_start_time(child) is None


def test_requests_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="rank 2 is not in a world of 2"):
        Group(2, 2, node_id="node", **SETTINGS)
    group = Group(0, 2, node_id="node", **SETTINGS)
    with pytest.raises(ValueError, match="ranks 0 to 1 in order"):
        group.connect([group.address()])
    with pytest.raises(ValueError, match="one entry per rank"):
        group.exchange(Exchange([None], [0]))
    with pytest.raises(ValueError, match="cannot send to itself"):
        group.exchange(Exchange([None, None], [4, 0]))
    group.close()


def test_errors_pickle():
    error = CollectiveTimeout("late", missing=[1, 2], seconds=3.5)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.missing, again.seconds) == (CollectiveTimeout, "late", [1, 2], 3.5)
