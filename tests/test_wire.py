"""Headers, dtype codes, Arrow messages and packed arrays: what is written is read, and anything else is refused."""

import io
import pickle
import struct

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from distgrad.errors import WireError
from distgrad.runtime import wire

DTYPES = [
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
    np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128,
]  # fmt: skip


def sample(shape, dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 100, size=shape)
    return np.asarray(values).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_dtype_has_a_code(dtype):
    assert wire.dtype_of(wire.dtype_code(np.dtype(dtype))) == np.dtype(dtype)


def test_dtypes_without_a_code_are_refused():
    for dtype in (np.dtype(object), np.dtype("U3"), np.dtype(">f4"), np.dtype("datetime64[s]")):
        with pytest.raises(WireError, match="cannot send dtype"):
            wire.dtype_code(dtype)
    with pytest.raises(WireError, match="unknown dtype code 99"):
        wire.dtype_of(99)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_packed_arrays_come_back(dtype):
    arrays = [
        sample((), dtype),
        sample((0, 3), dtype),
        sample((5,), dtype),
        sample((3, 4, 5), dtype),
        sample((6, 4), dtype).T,
        sample((9,), dtype)[::2],
        sample((4, 4), dtype)[::-1, 1:3],
    ]
    packed = wire.pack_arrays(arrays)
    for form in (packed, bytes(packed), memoryview(packed), pickle.loads(pickle.dumps(packed, 5))):
        back = wire.unpack_arrays(form)
        assert [a.shape for a in back] == [a.shape for a in arrays]
        for got, given in zip(back, arrays, strict=True):
            assert got.dtype == given.dtype and not got.flags.writeable
            assert got.tobytes() == given.tobytes()


def test_unpacking_copies_nothing():
    packed = wire.pack_arrays([np.arange(1000.0), np.arange(7)])
    whole = np.frombuffer(packed, np.uint8)
    for array in wire.unpack_arrays(packed):
        assert np.shares_memory(array, whole)
        assert (array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) % wire.ALIGNMENT == 0


def test_packed_arrays_that_do_not_fit_themselves_are_refused():
    good = bytes(wire.pack_arrays([np.arange(6.0).reshape(2, 3)]))
    assert wire.unpack_arrays(bytes(wire.pack_arrays([]))) == []
    with pytest.raises(WireError, match="without the head"):
        wire.unpack_arrays(b"")
    with pytest.raises(WireError, match="without the head"):
        wire.unpack_arrays(pickle.dumps([1, 2, 3]))
    with pytest.raises(WireError, match="claims bytes"):
        wire.unpack_arrays(good[:-64])
    with pytest.raises(WireError, match="cut short"):
        wire.unpack_arrays(good[:20])
    head = struct.calcsize("<4sHHQ")
    for position, value, message in [
        (8, 2**60, "cut short|unknown dtype"),  # number of arrays
        (head + 8, 2**63, "claims bytes"),  # start
        (head + 16, 2**62, "claims bytes"),  # length
        (head + 24, 2**61, "claims bytes"),  # first dimension
        (head + 24, 2**64 - 2, "claims bytes"),  # first dimension, negative
    ]:
        bad = bytearray(good)
        struct.pack_into("<Q", bad, position, value)
        with pytest.raises(WireError, match=message):
            wire.unpack_arrays(bytes(bad))


def test_a_header_is_refused_by_every_field():
    ours = wire.Identity.of("session", b"secret", 3)
    frame = bytearray(wire.HEADER.size)
    expected = {"source": 1, "destination": 2, "sequence": 9, "length": 40, "code": 12}
    ours.pack(frame, 0, **expected, offset=128)
    assert ours.check(frame, 0, **expected) == 128
    assert ours.check(frame, 0, **expected | {"code": 0}) == 128
    for name, value, message in [
        ("source", 0, "ranks is"),
        ("destination", 0, "ranks is"),
        ("sequence", 10, "sequence number is 9, must be 10"),
        ("length", 41, "length in bytes is 40, must be 41"),
        ("code", 13, "dtype is float32, must be float64"),
    ]:
        with pytest.raises(WireError, match=message) as caught:
            ours.check(frame, 0, **expected | {name: value})
        assert pickle.loads(pickle.dumps(caught.value)).source == caught.value.source
    for other, message in [
        (wire.Identity.of("session", b"secret", 4), "epoch is 3, must be 4"),
        (wire.Identity.of("session", b"another", 3), "session is"),
        (wire.Identity.of("other", b"secret", 3), "session is"),
    ]:
        with pytest.raises(WireError, match=message):
            other.check(frame, 0, **expected)
    with pytest.raises(WireError, match="format is"):
        ours.check(bytes(wire.HEADER.size), 0, **expected)
    assert b"secret" not in bytes(frame)


@pytest.mark.parametrize("length", [1, 7, 8, 63, 64, 4096, 100_003])
def test_frames_are_arrow_messages(length):
    data = np.random.default_rng(length).integers(0, 256, length).astype(np.uint8).tobytes()
    before, after = wire.message_envelope(length)
    message = before + data + after
    assert len(before) <= wire.MAX_PREFIX and (len(data) + len(after)) % 8 == 0
    assert wire.open_message(pa.py_buffer(message), length).tobytes() == data
    # The oracle is Arrow's own reader of a stream: schema, batch, end.
    schema = pa.schema([pa.field("bytes", pa.uint8(), nullable=False)])
    stream = schema.serialize().to_pybytes() + message
    table = pa.ipc.open_stream(io.BytesIO(stream)).read_all()
    assert table.column("bytes").to_numpy().tobytes() == data


def test_other_messages_are_refused():
    before, after = wire.message_envelope(16)
    with pytest.raises(WireError, match="holds 16 bytes, its header says 24"):
        wire.open_message(pa.py_buffer(before + bytes(16) + after), 24)
    with pytest.raises(WireError, match="not an Arrow record batch"):
        wire.open_message(pa.py_buffer(bytes(200)), 16)
    other = pa.record_batch({"a": pa.array([1, 2], pa.int64()), "b": pa.array(["x", None])})
    with pytest.raises(WireError):
        wire.open_message(other.serialize(), 16)
