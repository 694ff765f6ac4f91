"""The zip directory reader: archives of zipfile, and directories that lie."""

import io
import struct
import warnings
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats import archive
from git_theta.formats.archive import Entry
from git_theta.source import BytesSource
from git_theta.testing import CheckedSource

_LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_END = b"PK\x05\x06"


def _zip(
    entries: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"", wide: bool = False
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            with file.open(name, "w", force_zip64=wide) as entry:
                entry.write(data)
        file.comment = comment
    return buffer.getvalue()


def _read(data: bytes) -> list[Entry]:
    return archive.read(CheckedSource(data))


def _patch(data: bytes, signature: bytes, offset: int, value: bytes, occurrence: int = 0) -> bytes:
    """The archive with bytes overwritten `offset` behind a record's begin."""
    at = -1
    for _ in range(occurrence + 1):
        at = data.index(signature, at + 1)
    return data[: at + offset] + value + data[at + offset + len(value) :]


_TWO = _zip({"a": b"first", "b": b"second"})


def test_known_bytes() -> None:
    entries = _read(_TWO)
    assert entries == [
        Entry("a", 0, 31, 5, zlib.crc32(b"first"), 0, 0, 73),
        Entry("b", 0, 67, 6, zlib.crc32(b"second"), 0, 36, 120),
    ]


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64 entries"])
@pytest.mark.parametrize("comment", [b"", b"a comment", _END + b"x" * 40, b"x" * 65535])
def test_stored_entries_are_where_zipfile_reads_them(wide: bool, comment: bytes) -> None:
    content = {"x/data.pkl": b"pickle", "x/data/0": bytes(range(256)), "x/empty": b"", "grün-重": b"name"}
    data = _zip(content, comment=comment, wide=wide)
    found = {entry.name: data[entry.offset : entry.offset + entry.size] for entry in _read(data)}
    assert found == content


def test_zip64_end_record_is_believed() -> None:
    # More than 65,535 entries make zipfile write one; the classic end record then has no count.
    content = {str(index): b"" for index in range(65540)}
    assert [entry.name for entry in _read(_zip(content))] == list(content)


def test_deflated_entries_are_located_but_not_expanded() -> None:
    data = _zip({"bomb": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    (entry,) = _read(data)
    assert entry.method == zipfile.ZIP_DEFLATED
    assert 1_000 < entry.size < 100_000
    assert zlib.decompress(data[entry.offset : entry.offset + entry.size], wbits=-15) == bytes(50_000_000)


def test_an_archive_without_entries_is_read() -> None:
    assert _read(_zip({})) == []


def test_padding_in_the_local_header_is_skipped() -> None:
    # torch writes an extra field of its own to align the data; the central directory does not have it.
    extra = struct.pack("<2H", 0x4246, 20) + bytes(20)
    local = struct.pack("<4s5H3L2H", _LOCAL, 0, 0x808, 0, 0, 0, 0, 0, 0, 1, len(extra)) + b"a" + extra
    central = struct.pack("<4s6H3L5H2L", _CENTRAL, 0, 0, 0x808, 0, 0, 0, 7, 4, 4, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", _END, 0, 0, 1, 1, len(central), len(local) + 4, 0)
    assert _read(local + b"data" + central + end) == [Entry("a", 0, len(local), 4, 7, 0x808, 0, len(local) + 4)]


def _zip64_entry(extra: bytes) -> bytes:
    """An archive whose one entry has its sizes and offset in the zip64 extra field of the directory."""
    local = struct.pack("<4s5H3L2H", _LOCAL, 45, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    wide = 0xFFFFFFFF
    fields = (_CENTRAL, 45, 45, 0, 0, 0, 0, 7, wide, wide, 1, len(extra), 0, 0, 0, 0, wide)
    central = struct.pack("<4s6H3L5H2L", *fields) + b"a" + extra
    end = struct.pack("<4s4H2LH", _END, 0, 0, 1, 1, len(central), len(local) + 4, 0)
    return local + b"data" + central + end


_OTHER_FIELD = struct.pack("<2H", 0x4246, 3) + b"xyz"


def test_zip64_extra_field_is_believed() -> None:
    extra = _OTHER_FIELD + struct.pack("<2H3Q", 1, 24, 4, 4, 0)
    assert _read(_zip64_entry(extra)) == [Entry("a", 0, 31, 4, 7, 0, 0, 35)]


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"", id="none"),
        pytest.param(_OTHER_FIELD, id="another field only"),
        pytest.param(struct.pack("<2H2Q", 1, 16, 4, 4), id="no offset"),
        pytest.param(struct.pack("<2H3Q", 1, 25, 4, 4, 0), id="longer than the field"),
        pytest.param(struct.pack("<2H3Q", 1, 24, 4, 4, 2**63), id="offset behind the file"),
        pytest.param(struct.pack("<2H3Q", 1, 24, 2**64 - 1, 2**64 - 1, 0), id="size of 2**64 - 1"),
        pytest.param(struct.pack("<2H", 1, 0), id="empty field"),
        pytest.param(b"\1", id="one byte"),
    ],
)
def test_zip64_extra_field_that_lies_is_refused(extra: bytes) -> None:
    with pytest.raises(FormatError):
        _read(_zip64_entry(extra))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(_END, id="four bytes"),
        pytest.param(_TWO[:-1], id="last byte cut"),
        pytest.param(_TWO[: _TWO.index(_END)], id="end record cut"),
        pytest.param(_TWO + b"x", id="a byte behind"),
        pytest.param(_TWO[1:], id="first byte cut"),
        pytest.param(_patch(_TWO, _END, 4, b"\1\0"), id="second disk"),
        pytest.param(_patch(_TWO, _END, 6, b"\1\0"), id="directory on the second disk"),
        pytest.param(_patch(_TWO, _END, 8, b"\1\0"), id="entries on another disk"),
        pytest.param(_patch(_TWO, _END, 8, b"\3\0\3\0"), id="one entry too many"),
        pytest.param(_patch(_TWO, _END, 12, b"\xff\xff\xff\x7f"), id="huge directory"),
        pytest.param(_patch(_TWO, _END, 16, b"\xff\xff\xff\xff"), id="directory behind the file"),
        pytest.param(_patch(_TWO, _END, 16, b"\0\0\0\0"), id="directory at the wrong place"),
        pytest.param(_patch(_TWO, _CENTRAL, 0, b"PK\0\0"), id="no directory entry"),
        pytest.param(_patch(_TWO, _CENTRAL, 8, b"\1"), id="encrypted"),
        pytest.param(_patch(_TWO, _CENTRAL, 9, b"\x20"), id="masked directory"),
        pytest.param(_patch(_TWO, _CENTRAL, 28, b"\xff\xff"), id="name longer than the directory"),
        pytest.param(_patch(_TWO, _CENTRAL, 30, b"\xff\xff"), id="extra longer than the directory"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\4"), id="sizes of a stored entry differ"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\xff\xff\xff\x7f" * 2), id="size behind the file"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\xff\xff\xff\xff" * 2), id="zip64 size without its field"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\x07\0\0\0" * 2, 1), id="entry reaches into the directory"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\xff\xff\xff\x7f" * 2, 1), id="last entry ends behind the file"),
        pytest.param(_patch(_TWO, _CENTRAL, 20, b"\x09\0\0\0" * 2), id="entry overlaps the next"),
        pytest.param(_patch(_TWO, _CENTRAL, 42, b"\xff\xff\xff\x7f"), id="local header behind the file"),
        pytest.param(_patch(_TWO, _CENTRAL, 42, b"\x01"), id="local header at the wrong place"),
        pytest.param(_patch(_TWO, _CENTRAL, 46, b"c"), id="another name in the directory"),
        pytest.param(_patch(_TWO, _LOCAL, 30, b"c"), id="another name in the local header"),
        pytest.param(_patch(_TWO, _LOCAL, 0, b"PK\0\0"), id="no local header"),
        pytest.param(_patch(_TWO, _LOCAL, 26, b"\2"), id="another name length in the local header"),
        pytest.param(_patch(_TWO, _LOCAL, 28, b"\xff\xff"), id="local extra field behind the file"),
        pytest.param(
            _patch(_patch(_zip({"ä": b""}), _CENTRAL, 46, b"\xff\xff"), _LOCAL, 30, b"\xff\xff"), id="name no UTF-8"
        ),
    ],
)
def test_archive_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        _read(data)


def test_two_entries_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as file:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns about just this
        file.writestr("a", b"1")
        file.writestr("a", b"2")
    with pytest.raises(FormatError, match="one name"):
        _read(buffer.getvalue())


def test_entries_that_share_their_bytes_are_refused() -> None:
    # A directory with many entries for one local header is how a zip bomb of 42 kB expands to petabytes.
    central = _TWO[_TWO.index(_CENTRAL) : _TWO.index(_END)][:47]
    start = _TWO.index(_CENTRAL)
    end = struct.pack("<4s4H2LH", _END, 0, 0, 2, 2, 2 * len(central), start, 0)
    with pytest.raises(FormatError):
        _read(_TWO[:start] + central * 2 + end)


def test_too_many_entries_are_refused_before_they_are_read() -> None:
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**9, 10**9, 64, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 64, 1)
    end = struct.pack("<4s4H2LH", _END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with pytest.raises(FormatError, match="limits"):
        _read(bytes(64) + end64 + locator + end)


def _zip64(**changes: object) -> bytes:
    """_TWO with a zip64 end record, whose fields are changed."""
    start, end = _TWO.index(_CENTRAL), _TWO.index(_END)
    fields: dict[str, object] = {
        "signature": b"PK\x06\x06",
        "size": 44,
        "made by": 45,
        "needed": 45,
        "disk": 0,
        "first disk": 0,
        "here": 2,
        "count": 2,
        "directory size": end - start,
        "directory offset": start,
    }
    record = struct.pack("<4sQ2H2L4Q", *(fields | changes).values())
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    return (
        _TWO[:end] + record + locator + struct.pack("<4s4H2LH", _END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )


def test_zip64_end_record_of_a_small_archive_is_read() -> None:
    assert _read(_zip64()) == _read(_TWO)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"signature": b"PK\0\0"}, id="no record"),
        pytest.param({"directory size": 2**63}, id="directory size"),
        pytest.param({"directory size": 1}, id="directory too small for its entries"),
        pytest.param({"directory offset": 2**63}, id="directory offset"),
        pytest.param({"directory offset": 2**64 - 1}, id="directory offset that wraps round"),
        pytest.param({"directory offset": 0}, id="directory at the wrong place"),
        pytest.param({"disk": 1}, id="second disk"),
        pytest.param({"first disk": 1}, id="directory on the second disk"),
        pytest.param({"here": 1}, id="entries on another disk"),
        pytest.param({"here": 3, "count": 3}, id="one entry too many"),
    ],
)
def test_zip64_end_record_that_lies_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        _read(_zip64(**changes))


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1, 1000], ids=["2**63", "2**64-1", "behind the file"])
def test_zip64_locator_that_lies_is_refused(offset: int) -> None:
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset, 1)
    end = struct.pack("<4s4H2LH", _END, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(FormatError, match="zip64"):
        _read(bytes(64) + locator + end)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_arbitrary_directories_are_refused_or_read(directory: bytes, before: bytes) -> None:
    end = struct.pack("<4s4H2LH", _END, 0, 0, 1, 1, len(directory), len(before), 0)
    for data in (directory, before + directory + end, _LOCAL + before + _CENTRAL + directory + end):
        _read_or_refuse(data)


@given(st.integers(0, len(_TWO) - 1), st.binary(min_size=1, max_size=4))
def test_changed_archives_are_refused_or_read_in_bounds(at: int, value: bytes) -> None:
    _read_or_refuse(_TWO[:at] + value + _TWO[at + len(value) :])


def _read_or_refuse(data: bytes) -> None:
    try:
        entries = _read(data)
    except FormatError:
        return
    end = 0
    for entry in entries:
        assert end <= entry.offset <= len(data) - entry.size
        end = entry.offset + entry.size


def test_it_takes_sources_that_are_not_in_memory() -> None:
    assert archive.read(BytesSource(_TWO)) == _read(_TWO)


@pytest.mark.parametrize("kind", ["zip", "zip64 entries", "descriptor", "no signature", "zeros in the header"])
def test_checksums_are_mended_wherever_they_stand(kind: str) -> None:
    """Bytes of entry "b" are changed; those of "a" and its checksums stay."""
    old = _described(signed=kind == "descriptor", zeros=kind == "zeros in the header")
    if kind.startswith("zip"):
        old = _zip({"a": b"first", "b": b"second"}, wide=kind != "zip")
    made = old.replace(b"second", b"changed"[:6])
    at = made.index(b"change")
    for place, data in archive.mended(CheckedSource(made), [(at + 1, 2)]):
        made = made[:place] + data + made[place + len(data) :]
    wanted, before = (zlib.crc32(content).to_bytes(4, "little") for content in (b"change", b"second"))
    assert before not in made
    assert made == old.replace(b"second", b"change").replace(before, wanted)
    with zipfile.ZipFile(io.BytesIO(made)) as file:
        assert file.testzip() is None
    assert list(archive.mended(CheckedSource(made), [(at + 6, 2), (0, 4)])) == []


def _described(*, signed: bool, zeros: bool) -> bytes:
    """An archive whose checksum of "b" stands behind the entry."""
    crcs = {name: zlib.crc32(content) for name, content in (("a", b"first"), ("b", b"second"))}
    made, central = b"", b""
    for name, content in (("a", b"first"), ("b", b"second")):
        crc, size, flags = crcs[name], len(content), 8 if name == "b" else 0
        shown = 0 if zeros and flags else crc
        local = struct.pack("<4s5H3L2H", _LOCAL, 0, flags, 0, 0, 0, shown, size, size, 1, 0) + name.encode() + content
        descriptor = struct.pack("<3L", crc, size, size) if flags else b""
        fields = (0, 0, flags, 0, 0, 0, crc, size, size, 1, 0, 0, 0, 0, 0, len(made))
        central += struct.pack("<4s6H3L5H2L", _CENTRAL, *fields) + name.encode()
        made += local + (b"PK\x07\x08" if signed and flags else b"") + descriptor
    return made + central + struct.pack("<4s4H2LH", _END, 0, 0, 2, 2, len(central), len(made), 0)


def _row(offset: int, extra: bytes) -> tuple[BytesSource, Entry]:
    """An entry's row of a directory, as if its local header lay at `offset`."""
    row = struct.pack("<4s6H3L5H2L", _CENTRAL, 0, 0, 0, 0, 0, 0, 7, 4, 4, 1, len(extra), 0, 0, 0, 0, min(offset, _WIDE))
    return BytesSource(row + b"a" + extra), Entry("a", 0, offset + 31, 4, 7, 0, offset, 0)


_WIDE = 0xFFFFFFFF


def test_an_entry_beyond_4_gib_is_moved_in_its_extra_field() -> None:
    extra = struct.pack("<2H2x", 0x4246, 2) + struct.pack("<2HQ", 1, 8, 5 << 30)
    source, entry = _row(5 << 30, extra)
    moved = archive.directory_row(source, entry, 6 << 30, {})
    assert moved == source.read(0, source.size).replace(struct.pack("<Q", 5 << 30), struct.pack("<Q", 6 << 30))


@pytest.mark.parametrize(
    ("offset", "extra", "place"),
    [(100, b"", _WIDE), (5 << 30, b"", 6 << 30), (5 << 30, struct.pack("<2HL", 1, 4, 9), 6 << 30)],
    ids=["over the limit", "no extra field", "a short extra field"],
)
def test_a_row_that_cannot_say_where_its_entry_lies(offset: int, extra: bytes, place: int) -> None:
    with pytest.raises(FormatError, match=r"4 GiB|zip64"):
        archive.directory_row(*_row(offset, extra), place, {})


@pytest.mark.parametrize("count", [3, 70_000], ids=["zip", "zip64"])
def test_a_directory_is_moved_with_its_end(count: int) -> None:
    data = _zip({str(index): b"" for index in range(count)}, comment=b"end")
    source = BytesSource(data)
    entries = archive.read(source)
    before = entries[0].central
    rows = {entry.central: archive.directory_row(source, entry, entry.local, {}) for entry in entries}
    assert data[:before] + archive.moved_directory(source, rows, before) == data
    moved = data[:before] + bytes(100) + archive.moved_directory(source, rows, before + 100)
    assert zipfile.ZipFile(io.BytesIO(moved)).testzip() is None
    assert [entry.name for entry in _read(moved)] == [entry.name for entry in entries]


def test_a_zip64_end_record_within_the_directory_is_not_moved() -> None:
    data = _zip({str(index): b"" for index in range(70_000)})
    end = data.rindex(b"PK\x06\x06")
    record = data[end : end + 56]
    before = _read(data)[0].central
    # The directory goes on behind the record, so that its end lies behind it.
    locator, last = data[end + 56 : end + 76], data[end + 76 :]
    lying = bytearray(record)
    struct.pack_into("<Q", lying, 40, end + 56 - before)
    made = data[:end] + bytes(lying) + locator + last
    with pytest.raises(FormatError, match="lies before"):
        archive.moved_directory(BytesSource(made), {}, before + 1)
