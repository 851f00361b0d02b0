"""Starting and ending a session: `init`, `shutdown`."""
from __future__ import annotations
__all__ = ["init", "shutdown", "is_initialized", "shard", "replicate", "stats", "explain"]
from distgrad import graph
from distgrad.runtime.coordinator import Coordinator
from distgrad.errors import SessionError

_current = [None]

def init(address=None, *, num_workers=None, local_mode=False, shard_threshold=1 << 20):
    if _current[0] is not None:
        raise SessionError("init: a session is running already")
    from distgrad.runtime.local import LocalGroup
    c = Coordinator(LocalGroup(num_workers or 2), shard_threshold=shard_threshold)
    _current[0] = c
    graph.set_session(c)
    return c

def shutdown():
    c = _current[0]
    if c is not None:
        _current[0] = None
        graph.set_session(None)
        c.close()

def is_initialized():
    return _current[0] is not None

def shard(x, dim=0):
    from distgrad.placement import Shard
    return x.redistribute(Shard(dim))

def replicate(x):
    from distgrad.placement import Replicate
    return x.redistribute(Replicate())

def stats():
    return _current[0].stats

def explain(t):
    return _current[0].explain(t._now())
