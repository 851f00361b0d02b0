"""The bytes between processes: frame headers, dtype codes, Arrow buffers, and the driver's packed arrays.

A frame is a fixed binary header followed by one flat Arrow buffer. dtype and shape are ours: Arrow's own tensors turn bool
into uint8 and refuse 0-d. Invariant: nothing is unpickled, and no length read from outside is trusted before it was
compared with what is expected or with the bytes that are there.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ml_dtypes
import numpy as np
import pyarrow as pa

from distgrad.errors import WireError
from distgrad.runtime.collectives import flat_bytes

ALIGNMENT = 64
"""Arrays start at multiples of this, so every dtype and every vector instruction may read them in place."""

VERSION = 1

_DTYPES: dict[int, np.dtype] = {
    1: np.dtype(np.bool_),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.uint8),
    7: np.dtype(np.uint16),
    8: np.dtype(np.uint32),
    9: np.dtype(np.uint64),
    10: np.dtype(np.float16),
    11: np.dtype(ml_dtypes.bfloat16),
    12: np.dtype(np.float32),
    13: np.dtype(np.float64),
    14: np.dtype(np.complex64),
    15: np.dtype(np.complex128),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def dtype_code(dtype: np.dtype) -> int:
    """Returns the number that stands for `dtype` on the wire; raises WireError for one that cannot be sent."""
    code = _CODES.get(dtype)
    if code is None or not dtype.isnative:
        allowed = ", ".join(str(known) for known in _CODES)
        raise WireError(
            f"wire: cannot send dtype {dtype!r}; allowed are {allowed} in native byte order: convert it first"
        )
    return code


def dtype_of(code: int) -> np.dtype:
    """Returns the dtype that a number on the wire stands for; raises WireError for an unknown one."""
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise WireError(f"wire: unknown dtype code {code}; allowed are 1 to {len(_DTYPES)}: do versions differ?")
    return dtype


def aligned(size: int) -> int:
    """Returns `size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


# Frame headers

HEADER = struct.Struct("<4sHHIIQQQQ16s")
"""magic, version, dtype code, source, destination, epoch, sequence, length, offset, token: 64 bytes."""

_MAGIC = b"dgFr"


@dataclass(frozen=True, slots=True)
class Identity:
    """What all frames of one group carry: a digest of session and secret, and the epoch."""

    token: bytes
    epoch: int

    @classmethod
    def of(cls, session: str, secret: bytes, epoch: int) -> Identity:
        """Returns the identity of a session; the token does not reveal the secret."""
        key = hashlib.sha256(secret).digest()
        return cls(hashlib.blake2b(session.encode(), digest_size=16, key=key, person=b"distgrad frame").digest(), epoch)

    def pack(
        self,
        target: memoryview | bytearray,
        position: int,
        *,
        source: int,
        destination: int,
        sequence: int,
        length: int,
        offset: int = 0,
        code: int = 0,
    ) -> None:
        """Writes a frame header of this group at `position` of `target`."""
        HEADER.pack_into(
            target,
            position,
            _MAGIC,
            VERSION,
            code,
            source,
            destination,
            self.epoch,
            sequence,
            length,
            offset,
            self.token,
        )

    def check(
        self,
        frame: memoryview | bytes | bytearray,
        position: int,
        *,
        source: int,
        destination: int,
        sequence: int,
        length: int,
        code: int = 0,
    ) -> int:
        """Returns the offset a frame header gives, or raises WireError naming what is not as it must be.

        `code`: the dtype code expected, 0 for any.
        """
        magic, version, dtype, sender, receiver, epoch, number, size, offset, token = HEADER.unpack_from(
            frame, position
        )
        what: str
        given: object
        allowed: object
        if magic != _MAGIC or version != VERSION:
            what, given, allowed = "format", (magic, version), (_MAGIC, VERSION)
        elif token != self.token:
            what, given, allowed = "session", "another session or secret", "this one's"
        elif epoch != self.epoch:
            what, given, allowed = "epoch", epoch, self.epoch
        elif (sender, receiver) != (source, destination):
            what, given, allowed = "ranks", (sender, receiver), (source, destination)
        elif number != sequence:
            what, given, allowed = "sequence number", number, sequence
        elif size != length:
            what, given, allowed = "length in bytes", size, length
        elif code and dtype != code:
            what, given, allowed = "dtype", dtype_of(dtype), dtype_of(code)
        else:
            return offset
        raise WireError(
            f"frame from rank {source} to rank {destination} refused: {what} is {given}, must be {allowed}; "
            "all ranks must run the same collectives of one session and epoch, in one order",
            source=source,
            field=what,
        )


# Arrow buffers


def view_of(buffer: pa.Buffer) -> np.ndarray:
    """Returns the bytes of an Arrow buffer as a flat read-only uint8 array, without copying."""
    view = np.frombuffer(buffer, np.uint8) if buffer.size else np.empty(0, np.uint8)
    view.flags.writeable = False
    return view


_SCHEMA = pa.schema([pa.field("bytes", pa.uint8(), nullable=False)])

MAX_PREFIX = 4096
"""Bound on the Arrow message header before a frame's bytes; that of one flat column is about 150 bytes."""


class _PartsSink:
    """A file for Arrow's writer that keeps the parts it is given apart."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[bytes | pa.Buffer] = []

    def write(self, part: bytes | pa.Buffer) -> int:
        self.parts.append(part)
        return len(part)

    def flush(self) -> None: ...

    def close(self) -> None: ...


@lru_cache(maxsize=4096)
def message_envelope(length: int) -> tuple[bytes, bytes]:
    """Returns what stands before and after `length` bytes to make them one Arrow IPC record-batch message.

    The message depends on the length alone, so Arrow writes it once around untouched memory of that length, and the frame's
    own memory is sent in its place without being copied.
    """
    untouched = pa.py_buffer(mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ))
    column = pa.Array.from_buffers(pa.uint8(), length, [None, untouched], null_count=0)
    sink = _PartsSink()
    with pa.ipc.new_stream(sink, _SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([column], schema=_SCHEMA))
        parts = list(sink.parts)
    body = next(i for i, part in enumerate(parts) if isinstance(part, pa.Buffer) and part.size == length)
    # The stream begins with the schema message, which both ends know; the batch is the second message.
    head = b"".join(bytes(part) for part in parts[:body])
    schema = _SCHEMA.serialize().size
    return head[schema:], b"".join(bytes(part) for part in parts[body + 1 :])


def open_message(message: pa.Buffer, length: int) -> np.ndarray:
    """Returns the `length` flat bytes of an Arrow IPC message in place; raises WireError if it holds anything else."""
    try:
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), _SCHEMA)
        batch.validate()
    except (pa.ArrowException, OSError, EOFError) as error:
        raise WireError(f"frame refused: not an Arrow record batch of one uint8 column ({error})") from error
    data = batch.column(0).buffers()[1]
    if batch.num_rows != length or data is None or data.size < length:
        raise WireError(f"frame refused: its Arrow message holds {batch.num_rows} bytes, its header says {length}")
    return view_of(data)[:length]


# Packed arrays: what the driver puts and fetches

_PACK_MAGIC = b"dgAr"
_PACK_HEAD = struct.Struct("<4sHHQ")
_PACK_ARRAY = struct.Struct("<HHIQQ")


def pack_arrays(arrays: Sequence[np.ndarray]) -> pa.Buffer:
    """Returns arrays of any shapes, layouts and dtypes as one Arrow buffer: a table of contents and aligned data.

    One copy is made. The buffer is bytes-like, and pickle protocol 5 passes it out of band.
    """
    entries: list[tuple[int, np.ndarray, int]] = []
    codes = [dtype_code(array.dtype) for array in arrays]
    contents = _PACK_HEAD.size + sum(_PACK_ARRAY.size + 8 * array.ndim for array in arrays)
    position = aligned(contents)
    for code, array in zip(codes, arrays, strict=True):
        entries.append((code, array, position))
        position = aligned(position + array.nbytes)
    buffer = pa.allocate_buffer(position)
    target = memoryview(buffer).cast("B")
    _PACK_HEAD.pack_into(target, 0, _PACK_MAGIC, VERSION, 0, len(arrays))
    at = _PACK_HEAD.size
    for code, array, start in entries:
        _PACK_ARRAY.pack_into(target, at, code, array.ndim, 0, start, array.nbytes)
        struct.pack_into(f"<{array.ndim}q", target, at + _PACK_ARRAY.size, *array.shape)
        at += _PACK_ARRAY.size + 8 * array.ndim
        write_array(np.frombuffer(target[start : start + array.nbytes], np.uint8), array)
    return buffer


def unpack_arrays(packed: pa.Buffer | bytes | memoryview) -> list[np.ndarray]:
    """Returns the arrays of `pack_arrays` as read-only views of `packed`; raises WireError if it does not fit itself."""
    buffer = packed if isinstance(packed, pa.Buffer) else pa.py_buffer(packed)
    data = memoryview(buffer).cast("B")
    if buffer.size < _PACK_HEAD.size or data[:4] != _PACK_MAGIC:
        raise WireError(f"packed arrays refused: {buffer.size} bytes without the head {_PACK_MAGIC!r}")
    _, version, _, count = _PACK_HEAD.unpack_from(data, 0)
    if version != VERSION:
        raise WireError(f"packed arrays refused: version {version}, must be {VERSION}; driver and workers must match")
    arrays = []
    at = _PACK_HEAD.size
    for number in range(count):
        if at + _PACK_ARRAY.size > buffer.size:
            raise WireError(f"packed arrays refused: {count} announced, cut short at number {number}")
        code, ndim, _, start, size = _PACK_ARRAY.unpack_from(data, at)
        at += _PACK_ARRAY.size
        if at + 8 * ndim > buffer.size:
            raise WireError(f"packed arrays refused: {count} announced, cut short at number {number}")
        shape = struct.unpack_from(f"<{ndim}q", data, at)
        at += 8 * ndim
        dtype = dtype_of(code)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size or start + size > buffer.size:
            raise WireError(
                f"packed arrays refused: array {number} of shape {shape}, {dtype} claims bytes {start} to {start + size} of "
                f"{buffer.size}"
            )
        arrays.append(view_of(buffer.slice(start, size)).view(dtype).reshape(shape))
    return arrays


def write_array(target: np.ndarray, array: np.ndarray) -> None:
    """Copies the elements of `array`, in C order, into flat uint8 memory of exactly its size, in one pass."""
    if not array.nbytes:
        return
    if array.flags.c_contiguous:
        np.copyto(target, flat_bytes(array))
        return
    np.copyto(target.view(array.dtype).reshape(array.shape), array)
