"""Processes that hold one rank of a group each, and carry out what a test sends them."""

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import traceback

import numpy as np

from distgrad.runtime.transport import Group

SETTINGS = {"session": "test", "secret": b"secret", "epoch": 1, "timeout": 20.0}
CHANNELS = ["memory", "network", "mixed"]


# What runs in the processes: commands are functions of a test's module, called with the process's state.


def worker(pipe):
    state = {}
    while True:
        command = pipe.recv()
        if command is None:
            return
        function, args = command
        try:
            answer = (True, function(state, *args))
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = (False, error)
        pipe.send(answer)


def make(state, rank, world_size, settings):
    state["before"] = open_files()
    state["group"] = Group(rank, world_size, **settings)
    return state["group"].address()


def connect(state, addresses):
    state["group"].connect(addresses)


def close(state):
    """Closes the group and returns how many descriptors that leaves open beyond those before it was made."""
    group = state.pop("group")
    group.close()
    group.close()
    return len(open_files() - state["before"])


def open_files():
    """Descriptors with what they are, without the one that lists them."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
        except FileNotFoundError:
            continue
    return found


def digest(result):
    parts = result if isinstance(result, list) else [result]
    text = [
        None if part is None else (str(part.dtype), part.shape, np.ascontiguousarray(part).tobytes()) for part in parts
    ]
    return hashlib.sha256(pickle.dumps(text)).hexdigest()


# The side of the tests


class Workers:
    """Processes that hold one rank each."""

    def __init__(self, count):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=worker, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def send(self, rank, function, *args):
        self.pipes[rank].send((function, args))

    def answer(self, rank, limit=40):
        assert self.pipes[rank].poll(limit), f"no answer from worker {rank}"
        good, value = self.pipes[rank].recv()
        if not good:
            raise value
        return value

    def all(self, function, *args, ranks=None):
        ranks = range(len(self.pipes)) if ranks is None else ranks
        for rank in ranks:
            self.send(rank, function, *args)
        return [self.answer(rank) for rank in ranks]

    def make(self, world_size=None, channel="memory", each=lambda rank: {}, **settings):
        """Makes a group of the first `world_size` processes and returns the addresses."""
        world_size = world_size or len(self.pipes)
        for rank in range(world_size):
            given = SETTINGS | {"node_id": "node", "force_network": channel == "network"} | settings | each(rank)
            if channel == "mixed":
                given["node_id"] = "first" if rank < 2 else "second"
            self.send(rank, make, rank, world_size, given)
        return [self.answer(rank) for rank in range(world_size)]

    def group(self, world_size=None, channel="memory", **settings):
        addresses = self.make(world_size, channel, **settings)
        self.all(connect, addresses, ranks=range(len(addresses)))

    def end(self):
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            with contextlib.suppress(BrokenPipeError):  # a test killed it
                pipe.send(None)
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
