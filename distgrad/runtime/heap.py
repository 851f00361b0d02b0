"""How a worker's process gives its memory back: late, so that the next step finds it mapped.

Invariant: nothing here changes a value, only how long freed memory stays with the process.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # mallopt(3)
KEPT_BYTES = (1 << 31) - 1
_GROWTH_BYTES = 128 << 20  # of addresses: memory counts when it is written to


def keep_freed_memory() -> bool:
    """Makes malloc reuse freed memory of any size; gives False where the C library cannot be told (not glibc).

    By default each large array is mapped anew, and its first use costs a page fault every 4 KiB: a step of an array
    of 4 MB took 1.7 ms instead of 0.2. What is kept at the top of the heap is bounded by `KEPT_BYTES`. New threads
    share one heap; a thread of Ray's that has one of its own already, in pieces of 64 MiB, keeps these pieces because
    the heap would grow by more than one (glibc's heap_trim): a piece given back cost a step 5,600 page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, KEPT_BYTES), (_TOP_PAD, _GROWTH_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)


def give_back() -> None:
    """Gives freed memory back at once, also from between arrays that are in use; nothing where the C library cannot.

    Between steps within a limit of memory: what an earlier one left in pieces would stay beside what the next one takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
