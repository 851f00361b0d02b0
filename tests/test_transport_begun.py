"""Groups of real processes whose exchanges are begun and ended later: the same results, whoever is late."""

import time

import numpy as np
import pytest
from group_workers import CHANNELS, Workers, close, digest

from distgrad.engine.interpreter import Begin, End
from distgrad.runtime import collectives, slices


@pytest.fixture(scope="module")
def workers():
    """Three processes that live through the module; every test makes groups of its own in them."""
    pool = Workers(3)
    yield pool
    pool.end()


def begin_and_end(state, order, size, slow):
    """Begins reductions and a scatter of several dtypes, does others in between, and ends them in an order."""
    group = state["group"]
    rank, world_size = group.rank, group.world_size
    rng = np.random.default_rng(rank)
    cuts = [0, 2, 5, 9][: world_size + 1]
    cuts[-1] = 9
    made = [
        lambda: slices.reduce_scatter_all(rank, world_size, [rng.standard_normal((9, size)).astype(np.float32)], [cuts]),
        lambda: collectives.all_reduce(rank, world_size, [rng.standard_normal(size), rng.standard_normal(7)]),
        lambda: collectives.reduce_scatter(rank, world_size, rng.integers(0, 9, (9, 3)), 0, cuts),
        lambda: collectives.barrier(rank, world_size),
    ]
    tickets, results = [], []
    for number, make_one in enumerate(made):
        if group.rank == slow:
            time.sleep(0.02)
        tickets.append(group.carry_out(Begin(make_one())))
        if number == 1:  # not begun: its frames come after those of the two that were
            results.append(group.carry_out(collectives.all_reduce(rank, world_size, [np.full(size, rank, np.float32)])))
    results += [group.carry_out(End(tickets[number])) for number in order]
    results.append(group.carry_out(collectives.all_reduce(rank, world_size, [np.full(100_000, rank, np.float64)])))
    return [digest(result) for result in results], group.collectives, not group._network._arrived


@pytest.mark.parametrize(("world_size", "channel"), [(2, "memory"), (2, "network"), (3, "network"), (3, "mixed")])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
@pytest.mark.parametrize("size", [3, 70_001, 600_000])
def test_exchanges_that_are_begun_and_ended_later(workers, world_size, channel, order, size):
    """The results do not depend on when they end, nor on who is late; frames may be more than sockets hold."""
    found = []
    for ends, slow in (((0, 1, 2, 3), None), (order, 0), (order, world_size - 1)):
        workers.group(world_size, channel)
        answers = workers.all(begin_and_end, ends, size, slow, ranks=range(world_size))
        assert all(count == 6 and empty for _, count, empty in answers)
        found.append([sorted(zip((4, *ends, 5), digests)) for digests, _, _ in answers])
        assert workers.all(close, ranks=range(world_size)) == [0] * world_size
    for ranks in zip(*found, strict=True):
        assert ranks[0] == ranks[1] == ranks[2]


def begin_what_fails(state, where):
    """Begins an exchange whose own code fails, before or after its first round, and goes on afterwards."""
    group = state["group"]

    def fails():
        if where == "before":
            raise MemoryError("no room before")
        yield collectives.Exchange([None] * group.world_size, [0] * group.world_size)
        raise MemoryError("no room after")

    ticket = group.carry_out(Begin(fails()))
    try:
        group.carry_out(End(ticket))
    except MemoryError as error:
        told = str(error)
    return told, float(group.run(collectives.all_reduce(group.rank, group.world_size, [np.ones(3)]))[0][0])


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("where", ["before", "after"])
def test_an_error_of_its_own_is_told_at_the_end(workers, channel, where):
    workers.group(channel=channel)
    assert workers.all(begin_what_fails, where) == [(f"no room {where}", 3.0)] * 3
    assert workers.all(close) == [0] * 3
