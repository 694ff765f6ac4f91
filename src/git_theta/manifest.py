"""The manifest: the text that Git stores in place of a checkpoint (docs/format.md, "Manifest").

Valid JSON in one canonical text, a line per parameter, so that equal content is equal text and `git log -p` reads well.
A manifest may come from anyone: `parse` checks every type, length and cross-reference before anything is made of it,
and nothing in one is ever a path, a commit or code.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta import jsontext
from git_theta.errors import FormatError, LaterVersionError, ManifestError
from git_theta.names import shown
from git_theta.tensor import DTYPES, MAX_NAME_LENGTH, MAX_SIZE_BYTES, OPAQUE, View, check_shape, is_dtype, nbytes

__all__ = [
    "MAX_MANIFEST_BYTES",
    "MAX_PARAMETERS",
    "MAX_PIECES",
    "MAX_VIEWS",
    "Manifest",
    "Piece",
    "Record",
    "Step",
    "check_objects",
    "format",
    "format_store",
    "has_conflict_markers",
    "is_too_long_to_hold",
    "is_word",
    "looks_like",
    "parse",
    "parse_store",
    "row_start",
    "starts_like",
]

VERSION = 1
ABOUT = "checkpoint kept by git-theta; to get it: pip install git-theta; git theta install; git theta pull"
MAGIC = b'{"git-theta": '
MAX_MANIFEST_BYTES = 64 * 2**20
_HELD_BYTES = 2**20
MAX_PARAMETERS = 1_000_000
MAX_STEPS = 16
MAX_PIECES = 65_536
MAX_VIEWS = 65_536

_USUAL_KEYS = frozenset({"dtype", "shape", "digest", "store"})
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_MARKER = re.compile(rb"^(<{7}|={7}|>{7}|\|{7})( |\r?$)", re.MULTILINE)
_OURS = re.compile(rb'"git-theta"\s*:\s*[0-9]|"digest"\s*:\s*"[0-9a-f]{64}"\s*,\s*"store"\s*:\s*\[')


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes at `offset` of the object `oid`, which is `size` bytes long."""

    oid: str
    size: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One update: its payload is the concatenation of `pieces`; it builds on the values of the steps `bases`.

    `dtype` and `shape` say what the step's value is where that is not what its record says.
    """

    update: str
    pieces: tuple[Piece, ...]
    bases: tuple[int, ...] = ()
    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Record:
    """A parameter: what its `size` bytes are (`digest` is their BLAKE3-256), and the steps that rebuild them."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    digest: str
    store: tuple[Step, ...]
    strides: tuple[int, ...] | None = None
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint: `size` bytes of `format`; `layout` is the record of its layout's bytes."""

    format: str
    size: int
    digest: str
    layout: Record
    parameters: Mapping[str, Record]

    def records(self) -> Iterator[Record]:
        """Every record, the layout's first."""
        yield self.layout
        yield from self.parameters.values()

    def objects(self) -> dict[str, int]:
        """The objects that rebuild the checkpoint: oid to size in bytes."""
        return {piece.oid: piece.size for record in self.records() for step in record.store for piece in step.pieces}


def starts_like(head: bytes | bytearray) -> bool:
    """Whether content that begins with `head` can be a manifest."""
    return head.startswith(MAGIC)


def looks_like(content: bytes | bytearray) -> bool:
    """Whether text has parts of a manifest, however spaced: one with conflict markers, one cut short, one patched.

    Binary content never does: a NUL byte is in no manifest, and in the first bytes of every checkpoint format.
    """
    return b"\0" not in content[:65536] and _OURS.search(content) is not None


def is_too_long_to_hold(head: bytearray) -> bool:
    """Whether content that begins so is not held in memory: what may be a manifest is, as far as one may be long."""
    if len(head) <= _HELD_BYTES:
        return False
    return len(head) > MAX_MANIFEST_BYTES or not (starts_like(head) or looks_like(head))


def has_conflict_markers(content: bytes) -> bool:
    """Whether a text holds what Git writes into a file that it could not merge."""
    return _MARKER.search(content) is not None


def format(manifest: Manifest) -> bytes:
    """The canonical text of a manifest, ASCII; raises ManifestError where it would be longer than what is read."""
    head = {"git-theta": VERSION, "about": ABOUT}
    lines = [
        json.dumps(head)[:-1] + ",",
        f'"format": {json.dumps(manifest.format)}, "size": {manifest.size}, "digest": "{manifest.digest}",',
        f'"layout": {json.dumps(_format_layout(manifest.layout))},',
        '"parameters": {',
    ]
    names = sorted(manifest.parameters)
    rows = [f"{json.dumps(name)}: {json.dumps(_format_record(manifest.parameters[name]))}" for name in names]
    text = "\n".join([*lines, *([",\n".join(rows)] if rows else []), "}}", ""]).encode("ascii")
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"its manifest would have {len(text)} bytes, and at most {MAX_MANIFEST_BYTES} are read; chains of updates "
            "make it long, so store it whole: git -c theta.updates=dense add PATH"
        )
    return text


def row_start(name: str) -> bytes:
    """How the line of a parameter begins in the canonical text."""
    return f'{json.dumps(name)}: {{"dtype": '.encode("ascii")


def _format_layout(record: Record) -> dict[str, object]:
    return {"size": record.size, "digest": record.digest, "store": format_store(record.store)}


def _format_record(record: Record) -> dict[str, object]:
    row: dict[str, object] = {"dtype": record.dtype, "shape": record.shape}
    if record.dtype not in DTYPES:
        row["size"] = record.size
    if record.strides is not None:
        row["strides"] = record.strides
    row["digest"] = record.digest
    row["store"] = format_store(record.store)
    if record.views:
        row["views"] = [_format_view(view, record) for view in record.views]
    return row


def _format_view(view: View, record: Record) -> dict[str, object]:
    """A view with only what differs from its record; strides null stand for C order where the record has others."""
    row: dict[str, object] = {"name": view.name}
    if view.dtype != record.dtype:
        row["dtype"] = view.dtype
    if view.shape != record.shape:
        row["shape"] = view.shape
    if view.offset:
        row["offset"] = view.offset
    if view.strides != record.strides:
        row["strides"] = view.strides
    return row


def format_store(store: Sequence[Step]) -> list[list[object]]:
    """The steps as they stand in JSON."""
    return [_format_step(step, index) for index, step in enumerate(store)]


def _format_step(step: Step, index: int) -> list[object]:
    pieces = [
        [piece.oid, piece.size]
        if (piece.offset, piece.length) == (0, piece.size)
        else [piece.oid, piece.size, piece.offset, piece.length]
        for piece in step.pieces
    ]
    extras: dict[str, object] = {}
    if step.bases != _default_bases(index):
        extras["bases"] = step.bases
    if step.dtype is not None:
        extras["dtype"] = step.dtype
    if step.shape is not None:
        extras["shape"] = step.shape
    return [step.update, pieces, extras] if extras else [step.update, pieces]


def _default_bases(index: int) -> tuple[int, ...]:
    return (index - 1,) if index else ()


def parse(text: bytes) -> Manifest:
    """The manifest that this text holds.

    Any JSON text of the value is read, not only the canonical one. Raises ManifestError, in one line, where it is not
    JSON, is of a later version, lacks or has keys that version 1 does not know, or contradicts itself.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"it is {len(text)} bytes, and a manifest has at most {MAX_MANIFEST_BYTES}")
    try:
        root = jsontext.parse(text)
    except ValueError as error:
        raise ManifestError(f"it is not JSON: {error}") from error
    if not isinstance(root, dict) or "git-theta" not in root:
        raise ManifestError("it has no key 'git-theta'")
    version = root["git-theta"]
    if type(version) is not int or version != VERSION:
        later = type(version) is int and version > VERSION
        raise (LaterVersionError if later else ManifestError)(
            f"it is of version {_got(version)}, and this git-theta reads {VERSION}; update git-theta"
        )
    _expect_keys(root, "it", "about", "format", "size", "digest", "layout", "parameters", "git-theta")
    if type(root["about"]) is not str:
        raise ManifestError("it has an 'about' that is no text")
    layout = _parse_layout(root["layout"])
    parameters = root["parameters"]
    if type(parameters) is not dict or len(parameters) > MAX_PARAMETERS:
        raise ManifestError(f"it has no 'parameters', or more than {MAX_PARAMETERS}")
    try:
        records = {name: _parse_record(name, row) for name, row in parameters.items()}
    except FormatError as error:
        raise ManifestError(str(error)) from error
    check_objects([layout, *records.values()])
    return Manifest(
        _word(root["format"], "its format"),
        _size(root["size"], "its size"),
        _hex(root["digest"], "its digest"),
        layout,
        records,
    )


def _expect_keys(row: Mapping[str, object], where: str, *required: str, optional: Sequence[str] = ()) -> None:
    if not row.keys() >= set(required):
        raise ManifestError(f"{where} lacks {sorted(set(required) - row.keys())}")
    unknown = row.keys() - {*required, *optional}
    if unknown:
        raise ManifestError(f"{where} has {shown(str(min(unknown))[:40])!r}, unknown to version {VERSION}")


def _parse_layout(row: object) -> Record:
    if type(row) is not dict:
        raise ManifestError("its layout is no object")
    _expect_keys(row, "its layout", "size", "digest", "store")
    size = _size(row["size"], "the size of its layout")
    store = parse_store(row["store"], "its layout")
    return Record(OPAQUE, (size,), size, _hex(row["digest"], "the digest of its layout"), store)


def _parse_record(name: str, row: object) -> Record:
    where = f"parameter '{shown(name[:80])}'"
    if type(row) is not dict or len(name) > MAX_NAME_LENGTH:
        raise ManifestError(f"{where} is no object, or its name is above {MAX_NAME_LENGTH} characters")
    if row.keys() != _USUAL_KEYS:  # what follows is done for each of perhaps 20,000 parameters
        _expect_keys(row, where, *_USUAL_KEYS, optional=("size", "strides", "views"))
    dtype, shape = _dtype(row["dtype"], where), _shape(row["shape"], where)
    if "size" not in row and dtype not in DTYPES:
        raise ManifestError(f"{where} is of dtype {_got(dtype)}, which this git-theta does not know, and has no size")
    if "size" in row:
        size = _size(row["size"], "the size of ", where)
        check_shape(dtype, shape, size)
    else:
        size = nbytes(dtype, shape)
    strides = _strides(row["strides"], shape, where) if "strides" in row else None
    store = parse_store(row["store"], where)
    record = Record(dtype, shape, size, _hex(row["digest"], "the digest of ", where), store, strides)
    if "views" not in row:
        return record
    if type(row["views"]) is not list or not 0 < len(row["views"]) <= MAX_VIEWS:
        raise ManifestError(f"{where} has views that are no list of 1 to {MAX_VIEWS}")
    views = tuple(_parse_view(view, record, where) for view in row["views"])
    return replace(record, views=views)


def _parse_view(row: object, record: Record, where: str) -> View:
    if type(row) is not dict or type(row.get("name")) is not str or len(row["name"]) > MAX_NAME_LENGTH:
        raise ManifestError(f"{where} has a view without a name")
    _expect_keys(row, f"a view of {where}", "name", optional=("dtype", "shape", "offset", "strides"))
    dtype = _dtype(row["dtype"], where) if "dtype" in row else record.dtype
    shape = _shape(row["shape"], where) if "shape" in row else record.shape
    offset = _size(row["offset"], "a view's offset in ", where) if "offset" in row else 0
    strides = record.strides
    if "strides" in row:
        strides = None if row["strides"] is None else _strides(row["strides"], shape, where)
    return View(row["name"], dtype, shape, offset, strides)


def parse_store(rows: object, where: str) -> tuple[Step, ...]:
    """The steps that JSON holds; raises ManifestError that begins with `where`."""
    if type(rows) is not list or not 0 < len(rows) <= MAX_STEPS:
        raise ManifestError(f"{where} is stored in no list of 1 to {MAX_STEPS} updates")
    return tuple([_parse_step(row, index, where) for index, row in enumerate(rows)])


def _parse_step(row: object, index: int, where: str) -> Step:
    if type(row) is not list or len(row) not in (2, 3) or type(row[1]) is not list or len(row[1]) > MAX_PIECES:
        raise ManifestError(f"{where} has an update that is not [name, pieces] or [name, pieces, more]")
    update = _word(row[0], "an update of ", where)
    pieces = tuple([_parse_piece(piece, where) for piece in row[1]])
    if len(row) == 2:
        return Step(update, pieces, _default_bases(index))
    extras = row[2]
    if type(extras) is not dict:
        raise ManifestError(f"{where} has an update whose third item is no object")
    _expect_keys(extras, f"update '{update}' of {where}", optional=("bases", "dtype", "shape"))
    bases = _shape(extras["bases"], where) if "bases" in extras else _default_bases(index)
    if any(base >= index for base in bases):
        raise ManifestError(f"{where} has an update that builds on one that does not come before it")
    dtype = _dtype(extras["dtype"], where) if "dtype" in extras else None
    shape = _shape(extras["shape"], where) if "shape" in extras else None
    return Step(update, pieces, bases, dtype, shape)


def _parse_piece(row: object, where: str) -> Piece:
    if type(row) is not list or len(row) not in (2, 4):
        raise ManifestError(f"{where} has a piece that is not [oid, size] or [oid, size, offset, length]")
    oid, size = _hex(row[0], "an oid of ", where), _size(row[1], "an object's size in ", where)
    if len(row) == 2:
        return Piece(oid, size, 0, size)
    offset, length = _size(row[2], "an offset in ", where), _size(row[3], "a length in ", where)
    if offset > size or length > size - offset:
        raise ManifestError(f"{where} has a piece at {offset}+{length} of an object of {size} bytes")
    return Piece(oid, size, offset, length)


def check_objects(records: Sequence[Record]) -> None:
    """Raise ManifestError where an object has one size here and another one there."""
    sizes: dict[str, int] = {}
    for record in records:
        for step in record.store:
            for piece in step.pieces:
                if sizes.setdefault(piece.oid, piece.size) != piece.size:
                    raise ManifestError(f"it gives object {piece.oid} two sizes")


def _hex(value: object, what: str, where: str = "") -> str:
    if type(value) is not str or not _HEX.match(value):
        raise ManifestError(f"{what}{where} is not 64 lower-case hex characters: {_got(value)}")
    return value


def is_word(value: object) -> bool:
    """Whether a format or an update may have this name."""
    return type(value) is str and _WORD.match(value) is not None


def _word(value: object, what: str, where: str = "") -> str:
    if type(value) is not str or not is_word(value):
        raise ManifestError(f"{what}{where} is not a lower-case word of at most 32 characters: {_got(value)}")
    return value


def _size(value: object, what: str, where: str = "") -> int:
    if type(value) is not int or not 0 <= value <= MAX_SIZE_BYTES:
        raise ManifestError(f"{what}{where} is not a whole number from 0 to {MAX_SIZE_BYTES}: {_got(value)}")
    return value


def _dtype(value: object, where: str) -> str:
    if type(value) is not str or not is_dtype(value):
        raise ManifestError(f"{where} has a dtype that is no word: {_got(value)}")
    return value


def _shape(value: object, where: str) -> tuple[int, ...]:
    if type(value) is not list or len(value) > 64:
        raise ManifestError(f"{where} has a shape or bases that are no list of at most 64 numbers")
    return tuple([_size(dim, "a dimension of ", where) for dim in value])


def _strides(value: object, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if type(value) is not list or len(value) != len(shape):
        raise ManifestError(f"{where} has strides that do not fit its shape")
    return tuple([_size(stride, "a stride of ", where) for stride in value])


def _got(value: object) -> str:
    return shown(repr(value)[:60])
