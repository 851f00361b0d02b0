"""The libraries of linear algebra that this process has loaded, and a second copy of numpy's with other loops.

OpenBLAS chooses its loops by the instructions a processor has. Where that has AVX-512 it takes those written for Intel's
Skylake-X, also on AMD's Zen 4, which carries out 64 bytes in two halves. Large float32 products are faster there in the
loops for 32 bytes ("Haswell"), small ones in the others (measured on one core of an EPYC: 104 to 107 against 89 to 95
GF/s for 256 to 512 x 1024 x 1024; half the time for 16 x 1024 x 1024; 2.4 times the time for 100 x 3 x 1000).

Invariant: numpy's own library stays as it was. The copy has memory and settings of its own, uses one thread, and its
file has no name, so it ends with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_LIBRARIES = ("openblas", "mkl_rt", "libblis")
_PREFIX, _SUFFIX = "scipy_", "64_"  # of what numpy's wheels carry: sizes are 64 bits wide
_CHOSEN, _BETTER = b"SkylakeX", b"Haswell"
_FAMILY = 25  # AMD's Zen 3 and 4, of which the latter has AVX-512
_PROCESSORS = "/proc/cpuinfo"
_CHUNK = 64 << 20  # bytes copied at a time
_lock = threading.Lock()
_found: list[Product | None] = []


@dataclass(frozen=True, slots=True)
class Product:
    """Where a second copy's cblas_sgemm is, and how to ask numpy's library for its number of threads."""

    address: int
    threads: Callable[[], int]


def loaded() -> list[Any]:
    """Gives the libraries of linear algebra that are loaded from files with a name."""
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[-1].rstrip() for line in maps if any(name in line for name in _LIBRARIES)}
    return [ctypes.CDLL(path) for path in sorted(paths)]


def single_precision() -> Product | None:
    """Gives the copy whose loops suit large float32 products on this processor; None where numpy's are best."""
    if not _found:
        with _lock:
            if not _found:
                _found.append(_second())
    return _found[0]


def _second() -> Product | None:
    """Loads the copy, where numpy's library is OpenBLAS as its wheels carry it, and chose the loops that are slower."""
    if os.environ.get("OPENBLAS_CORETYPE") or not _is_zen4():
        return None
    for library in loaded():
        try:
            if _core(library) != _CHOSEN:
                continue
            copy = _copied(library._name)
            if _core(copy) != _BETTER:
                return None
            address = ctypes.cast(copy[f"{_PREFIX}cblas_sgemm{_SUFFIX}"], ctypes.c_void_p).value
            threads = library[f"{_PREFIX}openblas_get_num_threads{_SUFFIX}"]
        except (AttributeError, OSError) as error:  # another build of it, or no file that code may be loaded from
            logging.getLogger("distgrad").debug("no second copy of %s: %s", library._name, error)
            continue
        return None if address is None else Product(address, threads)
    return None


def _is_zen4() -> bool:
    fields: dict[str, str] = {}
    if not os.path.exists(_PROCESSORS):  # not Linux
        return False
    with open(_PROCESSORS) as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not name.strip():
                break  # one processor is enough
            fields[name.strip()] = value.strip()
    return (fields.get("vendor_id") == "AuthenticAMD" and fields.get("cpu family") == str(_FAMILY)
            and "avx512f" in fields.get("flags", "").split())


def _core(library: Any) -> bytes:
    """Gives the name of the processor whose loops an OpenBLAS uses."""
    name = library[f"{_PREFIX}openblas_get_corename{_SUFFIX}"]
    name.restype = ctypes.c_char_p
    return name()


def _copied(path: str) -> Any:
    """Loads a library once more, from a file without a name, with the better loops and one thread."""
    import tempfile  # here: importing distgrad stays quick

    try:
        descriptor = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o700)
    except OSError:  # a file system that has no such files
        descriptor = os.memfd_create("distgrad-openblas", os.MFD_CLOEXEC)
    try:
        with open(path, "rb") as source:
            while os.sendfile(descriptor, source.fileno(), None, _CHUNK):
                pass
        with _environment(OPENBLAS_CORETYPE=_BETTER.decode(), OPENBLAS_NUM_THREADS="1"):
            return ctypes.CDLL(f"/proc/self/fd/{descriptor}", mode=os.RTLD_NOW | os.RTLD_LOCAL)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets variables of the environment for a while: a library reads them when it is loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
