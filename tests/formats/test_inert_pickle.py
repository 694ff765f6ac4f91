"""The inert pickle reader: it reads what pickle writes, runs nothing, and survives hostile streams."""

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats import inert_pickle
from git_theta.formats.inert_objects import Global, Pairs, Persistent, Record

_PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner) | st.tuples(inner, inner, inner)
    ),
    max_leaves=20,
)


def _thaw(value: object, protocol: int) -> object:
    """The Python value that inert objects stand for."""
    if isinstance(value, list):
        return [_thaw(item, protocol) for item in value]
    if isinstance(value, tuple):
        return tuple(_thaw(item, protocol) for item in value)
    if isinstance(value, Pairs):
        return {_thaw(key, protocol): _thaw(item, protocol) for key, item in value.pairs}
    if isinstance(value, Record) and protocol < 3:  # bytes are a call of _codecs.encode, or of bytes if empty
        return str(value.args[0]).encode("latin-1") if value.args else b""
    return value


@pytest.mark.parametrize("protocol", _PROTOCOLS)
@given(value=_VALUES)
def test_it_reads_what_pickle_writes(protocol: int, value: object) -> None:
    data = pickle.dumps(value, protocol)
    result = inert_pickle.read(data)
    assert result.end == len(data)
    assert _thaw(result.root, protocol) == value


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_objects_of_any_class_become_records(protocol: int) -> None:
    value = [Fraction(1, 3), collections.OrderedDict(a=1), {1, 2}, frozenset({3}), Path("x"), Ellipsis, 1j]
    root = inert_pickle.read(pickle.dumps(value, protocol)).root
    assert isinstance(root, list)
    assert len(root) == len(value)
    fraction = root[0]
    assert isinstance(fraction, Record)
    assert isinstance(fraction.callable, Global)
    assert (fraction.callable.module, fraction.callable.name) == ("fractions", "Fraction")


class Node:
    """An object with a state that leads back to it."""

    def __init__(self) -> None:
        self.me = self
        self.all: list[object] = [self]


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_cycles_are_kept(protocol: int) -> None:
    loop: list[object] = []
    loop.append(loop)
    node = Node()
    root = inert_pickle.read(pickle.dumps([loop, node], protocol)).root
    assert isinstance(root, list)
    assert root[0][0] is root[0]
    record = root[1]
    assert isinstance(record, Record)
    assert record.states is not None
    (state,) = record.states
    assert isinstance(state, Pairs)
    attributes = dict(state.pairs)
    assert attributes["me"] is record
    assert attributes["all"] == [record]


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_persistent_ids_are_kept_in_order(protocol: int) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> str | None:
            return obj.name if isinstance(obj, io.FileIO) and isinstance(obj.name, str) else None

    buffer = io.BytesIO()
    with io.FileIO(os.devnull) as one:
        Pickler(buffer, protocol).dump({"a": one, "b": [one]})
    result = inert_pickle.read(buffer.getvalue())
    assert [persistent.id for persistent in result.persistent] == [os.devnull] * 2


def test_several_pickles_in_a_row() -> None:
    data = pickle.dumps([1], 2) + pickle.dumps("two", 4) + b"rest"
    first = inert_pickle.read(data)
    second = inert_pickle.read(data, first.end)
    assert (first.root, second.root) == ([1], "two")
    assert data[second.end :] == b"rest"


def _show(value: object) -> object:
    """An inert object as plain values, for comparison."""
    if isinstance(value, Global):
        return f"{value.module}:{value.name}"
    if isinstance(value, Persistent):
        return ("id", _show(value.id))
    if isinstance(value, Pairs):
        return [("pair", _show(key), _show(item)) for key, item in value.pairs]
    if isinstance(value, Record):
        parts = [_show(part) for part in (value.states, value.pairs, value.members) if part is not None]
        return ("call", _show(value.callable), _show(value.args), *parts)
    if isinstance(value, (list, tuple)):
        return type(value)(_show(item) for item in value)
    return value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"I12\n.", 12, id="INT"),
        pytest.param(b"I01\n.", True, id="INT bool"),
        pytest.param(b"L12L\n.", 12, id="LONG"),
        pytest.param(b"\x8a\x02\x00\x01.", 256, id="LONG1"),
        pytest.param(b"\x8b\x02\0\0\0\x00\x01.", 256, id="LONG4"),
        pytest.param(b"F1.5\n.", 1.5, id="FLOAT"),
        pytest.param(b"S'a\\n'\n.", "a\n", id="STRING"),
        pytest.param(b"T\x02\0\0\0a\xff.", "a\xff", id="BINSTRING"),
        pytest.param(b"U\x01\xe9.", "\xe9", id="SHORT_BINSTRING"),
        pytest.param(b"Va\\u00e9\n.", "a\xe9", id="UNICODE"),
        pytest.param(b"X\x03\0\0\0\xed\xa0\x80.", "\ud800", id="BINUNICODE surrogate"),
        pytest.param(b"\x8d" + struct.pack("<Q", 1) + b"a.", "a", id="BINUNICODE8"),
        pytest.param(b"\x8e" + struct.pack("<Q", 1) + b"a.", b"a", id="BINBYTES8"),
        pytest.param(b"\x96" + struct.pack("<Q", 1) + b"a.", bytearray(b"a"), id="BYTEARRAY8"),
        pytest.param(b"(K\x01K\x02l.", [1, 2], id="LIST"),
        pytest.param(b"(K\x01K\x02d.", [("pair", 1, 2)], id="DICT"),
        pytest.param(b"}K\x01K\x02s.", [("pair", 1, 2)], id="SETITEM"),
        pytest.param(b"}(K\x01K\x02K\x01K\x03u.", [("pair", 1, 2), ("pair", 1, 3)], id="SETITEMS key twice"),
        pytest.param(b"}(]K\x02u.", [("pair", [], 2)], id="SETITEMS key that has no hash"),
        pytest.param(b"\x8f(K\x01\x90.", [1], id="ADDITEMS"),
        pytest.param(b"(K\x01\x91.", (1,), id="FROZENSET"),
        pytest.param(b"K\x01K\x02K\x030.", 2, id="POP"),
        pytest.param(b"K\x01(K\x021.", 1, id="POP_MARK"),
        pytest.param(b"K\x01(0.", 1, id="POP of a mark"),
        pytest.param(b"K\x012\x86.", (1, 1), id="DUP"),
        pytest.param(b"K\x01p99999999999\n0g99999999999\n.", 1, id="PUT and GET"),
        pytest.param(b"K\x01\x940h\0.", 1, id="MEMOIZE and BINGET"),
        pytest.param(b"cos\nsystem\n.", "os:system", id="GLOBAL"),
        pytest.param(b"\x8c\x02os\x8c\x06system\x93.", "os:system", id="STACK_GLOBAL"),
        pytest.param(b"\x82\x07.", "copyreg:extension 7", id="EXT1"),
        pytest.param(b"\x83\x07\x01.", "copyreg:extension 263", id="EXT2"),
        pytest.param(b"\x84\x07\0\0\0.", "copyreg:extension 7", id="EXT4"),
        pytest.param(b"ca\nb\n(K\x01tR.", ("call", "a:b", (1,)), id="REDUCE"),
        pytest.param(b"ca\nb\n)\x81.", ("call", "a:b", ()), id="NEWOBJ"),
        pytest.param(b"ca\nb\n)}\x92.", ("call", "a:b", (), [[]]), id="NEWOBJ_EX"),
        pytest.param(b"(K\x01ia\nb\n.", ("call", "a:b", (1,)), id="INST"),
        pytest.param(b"(ca\nb\nK\x01o.", ("call", "a:b", (1,)), id="OBJ"),
        pytest.param(b"ca\nb\n)R}b.", ("call", "a:b", (), [[]]), id="BUILD"),
        pytest.param(b"ca\nb\n)RK\x01K\x02s.", ("call", "a:b", (), [(1, 2)]), id="SETITEM of a record"),
        pytest.param(b"ca\nb\n)RK\x01a.", ("call", "a:b", (), [1]), id="APPEND to a record"),
        pytest.param(b"Pid\n.", ("id", "id"), id="PERSID"),
        pytest.param(b"K\x01Q.", ("id", 1), id="BINPERSID"),
        pytest.param(b"\x80\x05\x95\x02\0\0\0\0\0\0\0N.", None, id="FRAME"),
        pytest.param(b"K\x01K\x02.", 2, id="objects left on the stack"),
    ],
)
def test_opcode(data: bytes, expected: object) -> None:
    shown = _show(inert_pickle.read(data).root)
    assert shown == expected
    assert type(shown) is type(expected)


def test_every_opcode_is_known() -> None:
    handled = inert_pickle._WITH_ARGUMENT.keys() | inert_pickle._WITHOUT_ARGUMENT.keys()
    assert handled == {opcode.name for opcode in pickletools.opcodes}
    for opcode in pickletools.opcodes:
        assert (opcode.name in inert_pickle._WITH_ARGUMENT) == (opcode.arg is not None)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"K\x01", id="no STOP"),
        pytest.param(b".", id="STOP without an object"),
        pytest.param(b"(.", id="STOP behind a mark"),
        pytest.param(b"\xff.", id="unknown opcode"),
        pytest.param(b"\x80\x06N.", id="protocol 6"),
        pytest.param(b"0.", id="POP of nothing"),
        pytest.param(b"1.", id="POP_MARK without a mark"),
        pytest.param(b"2.", id="DUP of nothing"),
        pytest.param(b"t.", id="TUPLE without a mark"),
        pytest.param(b"\x87.", id="TUPLE3 of nothing"),
        pytest.param(b"K\x01\x86.", id="TUPLE2 of one"),
        pytest.param(b"h\0.", id="GET of an empty slot"),
        pytest.param(b"K\x01p-1\n.", id="PUT in a negative slot"),
        pytest.param(b"K\x01px\n.", id="PUT in no slot"),
        pytest.param(b"q\0.", id="PUT of nothing"),
        pytest.param(b"\x94.", id="MEMOIZE of nothing"),
        pytest.param(b"}(K\x01u.", id="key without a value"),
        pytest.param(b"(K\x01d.", id="DICT of one"),
        pytest.param(b"(K\x01K\x02u.", id="SETITEMS of nothing"),
        pytest.param(b"K\x01K\x02K\x03s.", id="SETITEM of a number"),
        pytest.param(b"K\x01K\x02a.", id="APPEND to a number"),
        pytest.param(b"K\x01}b.", id="BUILD of a number"),
        pytest.param(b"ca\nb\n]R.", id="REDUCE with a list"),
        pytest.param(b"K\x01K\x02\x93.", id="STACK_GLOBAL of numbers"),
        pytest.param(b"(o.", id="OBJ of nothing"),
        pytest.param(b"Q.", id="BINPERSID of nothing"),
        pytest.param(b"\x97.", id="NEXT_BUFFER"),
        pytest.param(b"I1", id="INT cut"),
        pytest.param(b"Ix\n.", id="INT of no digits"),
        pytest.param(b"I" + b"9" * 10_000 + b"\n.", id="INT of 10,000 digits"),
        pytest.param(b"Fx\n.", id="FLOAT of no digits"),
        pytest.param(b"Sx\n.", id="STRING without quotes"),
        pytest.param(b"S'\\x'\n.", id="STRING with half an escape"),
        pytest.param(b"S'\\d'\n.", id="STRING with an unknown escape, which warns"),
        pytest.param(b"S'\xff'\n.", id="STRING that is not ASCII"),
        pytest.param(b"V\\ud8\n.", id="UNICODE with half an escape"),
        pytest.param(b"X\x01\0\0\0\xff.", id="BINUNICODE that is no UTF-8"),
        pytest.param(b"T\xff\xff\xff\xff.", id="BINSTRING of -1 bytes"),
        pytest.param(b"\x8b\xff\xff\xff\xff.", id="LONG4 of -1 bytes"),
        pytest.param(b"B\xff\xff\xff\x7f.", id="BINBYTES of 2 GiB"),
        pytest.param(b"\x8e" + b"\xff" * 8 + b".", id="BINBYTES8 of 2**64 - 1"),
        pytest.param(b"\x8d" + b"\xff" * 7 + b"\x7f.", id="BINUNICODE8 of 2**63 - 1"),
        pytest.param(b"\x96" + b"\xff" * 7 + b"\x7f.", id="BYTEARRAY8 of 2**63 - 1"),
    ],
)
def test_malformed_stream_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        inert_pickle.read(data)


_SAMPLE = pickle.dumps({"a": [Fraction(1, 2), (1, 2.5, "x")], "b": collections.OrderedDict(c={1})}, 2)


@pytest.mark.parametrize("size", range(len(_SAMPLE)))
def test_cut_stream_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        inert_pickle.read(_SAMPLE[:size])


def _refuse_or_read(data: bytes) -> None:
    try:
        inert_pickle.read(data)
    except FormatError:
        return


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read(data: bytes) -> None:
    _refuse_or_read(data)
    _refuse_or_read(data + b".")


@given(
    st.lists(st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]) | st.binary(max_size=9))
)
def test_arbitrary_opcodes_are_refused_or_read(codes: list[bytes]) -> None:
    _refuse_or_read(b"".join(codes) + b"N.")


@given(st.integers(0, len(_SAMPLE) - 1), st.binary(min_size=1, max_size=4), st.sampled_from(_PROTOCOLS))
def test_changed_streams_are_refused_or_read(at: int, value: bytes, protocol: int) -> None:
    data = pickle.dumps(pickle.loads(_SAMPLE), protocol)
    _refuse_or_read(data[:at] + value + data[at + len(value) :])


class Runs:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_nothing_is_executed(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    data = pickle.dumps(Runs(f"{sys.executable} -c \"open({str(marker)!r}, 'w')\""), protocol)
    root = inert_pickle.read(data).root
    assert isinstance(root, Record)
    assert isinstance(root.callable, Global)
    assert root.callable.name == "system"
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the pickle must be one that would have run"


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from git_theta.formats import inert_pickle;"
        "inert_pickle.read(b'cantigravity\\nfly\\n)R.'); inert_pickle.read(b'(ithis\\ns\\n.');"
        "assert not {'antigravity', 'this', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\x04N" + b"r\xff\xff\xff\xff" + b".", id="memo slot 2**32 - 1"),
        pytest.param(b"Np" + b"9" * 4000 + b"\n.", id="memo slot of 4,000 digits"),
        pytest.param(b"K\x01" + b"2\x86" * 100_000 + b".", id="tuples of tuples"),
        pytest.param(b"]" + b"(" * 100_000 + b"0" * 100_000 + b".", id="marks"),
        pytest.param(b"]" * 100_000 + b"a" * 99_999 + b".", id="nested lists"),
        pytest.param(b"}" * 50_000 + b".", id="dicts"),
        pytest.param(b"K\x01" + b"\x85" * 100_000 + b".", id="nested tuples"),
        pytest.param(b"ca\nb\n" + b")R" * 100_000 + b".", id="nested calls"),
        pytest.param(
            b"ca\nb\n(" + b"N" * 10_000 + b"tq\0" + b"0ca\nb\nh\0}\x92" * 10_000 + b".", id="calls with long arguments"
        ),
    ],
)
def test_bomb_takes_little_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        inert_pickle.read(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 20


def test_too_many_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 1000)
    inert_pickle.read(b"N" * 999 + b".")
    with pytest.raises(FormatError, match="opcodes"):
        inert_pickle.read(b"N" * 1000 + b".")


def test_too_long_a_pickle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_SIZE_BYTES", 1000)
    inert_pickle.read(b"N" * 999 + b".")
    with pytest.raises(FormatError, match="limit"):
        inert_pickle.read(b"N" * 1000 + b".")
