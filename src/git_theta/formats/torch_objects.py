"""Find the tensors in the object that torch.save pickled: which storage each uses, and under which name.

Scope: what torch 0.2 to 2.13 and TorchScript's C++ pickler write: dense, quantised, sparse and nested tensors,
parameters, tensor subclasses, bare storages. Everything else, whatever its class, is a container whose items, members,
arguments and state are looked into. A call that has the name of a torch function but not its arguments is such a
container too.

Specification: torch/_utils.py and torch/_tensor.py (the `_rebuild_*` functions), torch/serialization.py
(`persistent_id`), torch/csrc/jit/serialization/pickler.cpp.

Work is bounded: a container is looked into once, under the first path that leads to it, so that shared objects do not
multiply and cycles end. Tensors are named each time they are met, so ties are seen. MAX_STEPS bounds the walk and
MAX_PATH_CHARACTERS what its names take.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from git_theta import names, tensor
from git_theta.errors import FormatError
from git_theta.formats.base import MAX_SPANS
from git_theta.formats.inert_objects import Global, Pairs, Persistent, Record

__all__ = ["ROOT_NAME", "Root", "Storage", "Use", "find_uses", "parse_storage"]

ROOT_NAME = "tensor"
"""The name of a tensor that was saved by itself, without a container and so without a key."""

MAX_STEPS = 5_000_000
MAX_PATH_CHARACTERS = 64 << 20
_NAME_ROOM = 32  # what may be added to a path to make a name of it

# torch dtype, and the prefix of the storage class of Python's and C++'s pickler, to our dtype.
_DTYPES = {
    "float64": ("Double", "F64"),
    "float32": ("Float", "F32"),
    "float16": ("Half", "F16"),
    "bfloat16": ("BFloat16", "BF16"),
    "complex128": ("ComplexDouble", "C128"),
    "complex64": ("ComplexFloat", "C64"),
    "complex32": ("ComplexHalf", "C32"),
    "int64": ("Long", "I64"),
    "int32": ("Int", "I32"),
    "int16": ("Short", "I16"),
    "int8": ("Char", "I8"),
    "uint64": ("UInt64", "U64"),
    "uint32": ("UInt32", "U32"),
    "uint16": ("UInt16", "U16"),
    "uint8": ("Byte", "U8"),
    "bool": ("Bool", "BOOL"),
    "quint8": ("QUInt8", "QU8"),
    "qint8": ("QInt8", "QI8"),
    "qint32": ("QInt32", "QI32"),
    "float8_e4m3fn": ("Float8_e4m3fn", "F8_E4M3"),
    "float8_e5m2": ("Float8_e5m2", "F8_E5M2"),
    "float8_e8m0fnu": ("Float8_e8m0fnu", "F8_E8M0"),
    "float8_e4m3fnuz": ("Float8_e4m3fnuz", "F8_E4M3FNUZ"),
    "float8_e5m2fnuz": ("Float8_e5m2fnuz", "F8_E5M2FNUZ"),
}
_DTYPE_OF_TENSOR: Mapping[str, str] = {name: dtype for name, (_, dtype) in _DTYPES.items()}
_DTYPE_OF_STORAGE: Mapping[str, str] = {
    **{f"{prefix}Storage": dtype for prefix, dtype in _DTYPES.values()},
    "UntypedStorage": "U8",
    "_UntypedStorage": "U8",
}
_SPARSE_PARTS = {
    "sparse_coo": ("indices", "values"),
    "sparse_csr": ("crow_indices", "col_indices", "values"),
    "sparse_bsr": ("crow_indices", "col_indices", "values"),
    "sparse_csc": ("ccol_indices", "row_indices", "values"),
    "sparse_bsc": ("ccol_indices", "row_indices", "values"),
}
_CHANNEL_PARTS = ("scheme", "scales", "zero_points", "axis")
_NESTED_PARTS = ("values", "sizes", "strides", "offsets")
_MODULE_PARTS = frozenset({"_modules", "_parameters", "_buffers"})
_NODES = frozenset({Record, Pairs, Persistent, list, tuple})


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that a pickle refers to: `numel` elements of `dtype`, which is "opaque" if we do not know it.

    `start` is where the view of a storage that torch < 0.4 could refer to begins, in elements.
    """

    key: str
    dtype: str
    numel: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Root:
    """A pickled object; `key` is the first of its tensors' names, `folder` goes before its storages' keys."""

    object: object
    key: str | None = None
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A tensor: elements of a storage. `offset` and `strides` count elements of `dtype`, from the storage's start."""

    name: str
    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def find_uses(roots: Iterable[Root]) -> list[Use]:
    """The tensors under each root, in the order in which they were pickled; names are unique.

    Raises FormatError where the objects are too many or their names too long.
    """
    walk = _Walk()
    for root in roots:
        walk.run(root)
    return walk.uses


def parse_storage(persistent: Persistent, folder: str = "") -> Storage | None:
    """The storage that a persistent id stands for, its key within the folder; None if it stands for something else."""
    match persistent.id:
        case ("storage", Global(name=kind), str() as key, _, int() as numel, *view) if _in_range(numel):
            dtype = _DTYPE_OF_STORAGE.get(kind, tensor.OPAQUE)
        case _:
            return None
    match view:
        case [] | [None]:
            return Storage(folder + key, dtype, numel)
        case [(_, int() as start, int())] if _in_range(start):
            return Storage(folder + key, dtype, numel, start)
    return None


@dataclass(frozen=True, slots=True)
class _Path:
    """A path of keys as a name, `short` without nn.Module's bookkeeping keys; None before the first key."""

    short: str | None
    full: str | None


_ROOT = _Path(None, None)
_Node = tuple[object, _Path]
_NOTHING: Iterator[_Node] = iter(())


class _Walk:
    def __init__(self) -> None:
        self.uses: list[Use] = []
        self._names: dict[str, int] = {}
        self._seen: set[int] = set()
        self._made: list[Record] = []  # kept, because `_seen` holds ids of living objects
        self._characters = 0
        self._folder = ""

    def run(self, root: Root) -> None:
        self._folder = root.folder
        path = _ROOT if root.key is None else self._child(_ROOT, root.key)
        stack: list[Iterator[_Node]] = [iter([(root.object, path or _ROOT)])]
        steps = 0
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
                continue
            steps += 1
            if steps > MAX_STEPS:
                raise FormatError(f"torch: the pickled object has more than {MAX_STEPS} parts")
            stack.append(self._children(*item))

    def _child(self, path: _Path, key: object, hidden: bool = False) -> _Path | None:
        """The path one key further; None where the name would be too long."""
        if isinstance(key, str) and len(key) > tensor.MAX_NAME_LENGTH:
            return None
        text = names.join((_plain(key),))
        full = text if path.full is None else f"{path.full}/{text}"
        short = path.short if hidden else text if path.short is None else f"{path.short}/{text}"
        if len(full) > tensor.MAX_NAME_LENGTH - _NAME_ROOM:
            return None
        self._characters += len(full) + len(short or "")
        if self._characters > MAX_PATH_CHARACTERS:
            raise FormatError("torch: the names of the pickled object's parts are too long")
        return _Path(short, full)

    def _children(self, node: object, path: _Path) -> Iterator[_Node]:
        """What is to be looked into next; a tensor is noted instead."""
        if isinstance(node, Persistent):
            self._add_storage(node, path)
            return _NOTHING
        if isinstance(node, Record):
            children = self._rebuild(node, path)
            if children is not None:
                return children
        if not self._is_new(node):
            return _NOTHING
        if isinstance(node, Record):
            return self._record(node, path)
        if isinstance(node, Pairs):
            return self._keyed(node.pairs, path)
        return self._keyed(enumerate(node), path) if isinstance(node, (list, tuple)) else _NOTHING

    def _is_new(self, node: object) -> bool:
        """Whether this is the first time that the object is met."""
        if id(node) in self._seen:
            return False
        self._seen.add(id(node))
        return True

    def _keyed(
        self, pairs: Iterable[tuple[object, object]], path: _Path, hidden: frozenset[str] = frozenset()
    ) -> Iterator[_Node]:
        for key, value in pairs:
            if type(value) in _NODES and value:  # of the nodes, only an empty list or tuple is false
                below = self._child(path, key, isinstance(key, str) and key in hidden)
                if below is not None:
                    yield value, below

    def _record(self, record: Record, path: _Path) -> Iterator[_Node]:
        # Records may share their arguments, so that these count as an object of their own.
        if record.args and self._is_new(record.args):
            match record.callable, record.args:
                case Global(name="OrderedDict"), (list() as items,):  # as Python 2 pickles it, with a list of pairs
                    if self._is_new(items):
                        pairs = ((item[0], item[1]) for item in items if isinstance(item, list) and len(item) == 2)
                        yield from self._keyed(pairs, path)
                case _:
                    yield from self._keyed(enumerate(record.args), path)
        yield from self._keyed(record.pairs or (), path)
        yield from self._keyed(enumerate(record.members or ()), path)
        for state in record.states or ():
            yield from self._state(state, path)

    def _state(self, state: object, path: _Path) -> Iterator[_Node]:
        """What BUILD sets: attributes, or a pair of attributes and slots, or whatever `__setstate__` understands."""
        match state:
            case Pairs():
                parts: list[object] = [state]
            case (None | Pairs() as attributes, Pairs() as slots):
                parts = [attributes, slots]
            case _:
                if type(state) in _NODES:
                    yield state, path
                return
        for part in parts:
            if isinstance(part, Pairs) and self._is_new(part):
                yield from self._keyed(part.pairs, path, _MODULE_PARTS)

    def _rebuild(self, record: Record, path: _Path) -> Iterator[_Node] | None:
        """What a call of one of torch's functions leads to, any tensor noted; None if it is no such call."""
        function = record.callable
        if not isinstance(function, Global) or not function.name.startswith("_rebuild_"):
            return None
        match function.name, record.args:
            case "_rebuild_tensor" | "_rebuild_tensor_v2", (Persistent() as storage, offset, shape, strides, *_):
                return _NOTHING if self._add_tensor(path, storage, offset, shape, strides) else None
            case "_rebuild_tensor_v3", (Persistent() as storage, offset, shape, strides, _, _, Global(name=kind), *_):
                dtype = _DTYPE_OF_TENSOR.get(kind, tensor.OPAQUE)
                return _NOTHING if self._add_tensor(path, storage, offset, shape, strides, dtype=dtype) else None
            case "_rebuild_qtensor", (Persistent() as storage, offset, shape, strides, quantizer, *_):
                if not self._add_tensor(path, storage, offset, shape, strides):
                    return None
                channels = quantizer if isinstance(quantizer, tuple) and len(quantizer) == len(_CHANNEL_PARTS) else ()
                return self._keyed(zip(_CHANNEL_PARTS, channels, strict=False), path)
            case "_rebuild_parameter" | "_rebuild_device_tensor_from_cpu_tensor", (Record() as data, *_):
                return iter([(data, path)])
            case "_rebuild_parameter_with_state", (Record() as data, _, _, state):
                return chain([(data, path)], self._state(state, path))
            case "_rebuild_from_type" | "_rebuild_from_type_v2", (inner, _, tuple() as args, state):
                made = Record(inner, args)
                self._made.append(made)
                return chain([(made, path)], self._state(state, path))
            case "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor", (layout, tuple() as parts):
                return self._keyed(zip(_sparse_parts(layout), parts, strict=False), path)
            case "_rebuild_nested_tensor", parts:
                return self._keyed(zip(_NESTED_PARTS, parts, strict=False), path)
        return None

    def _add_tensor(self, path: _Path, persistent: Persistent, *geometry: object, dtype: str | None = None) -> bool:
        """Note a tensor of this offset, shape and strides; False if they are none."""
        offset, shape, strides = geometry
        storage = parse_storage(persistent, self._folder)
        dims, steps = _naturals(shape), _naturals(strides)
        if storage is None or dims is None or steps is None or len(dims) != len(steps):
            return False
        if not isinstance(offset, int) or not _in_range(offset):
            return False
        self._add(Use(self._name(path), storage, dtype or storage.dtype, offset, dims, steps))
        return True

    def _add_storage(self, persistent: Persistent, path: _Path) -> None:
        storage = parse_storage(persistent, self._folder)
        if storage is not None and not storage.start:  # the length of a view of a storage is not known here
            self._add(Use(self._name(path), storage, storage.dtype, 0, (storage.numel,), (1,)))

    def _add(self, use: Use) -> None:
        if len(self.uses) >= MAX_SPANS:
            raise FormatError(f"torch: there are more than {MAX_SPANS} tensors")
        self.uses.append(use)

    def _name(self, path: _Path) -> str:
        """The path's name; if it is taken, the one with all keys; if that is taken too, a numbered one."""
        short = path.short if path.short is not None else path.full if path.full is not None else ROOT_NAME
        full = path.full if path.full is not None else ROOT_NAME
        for name in (short, full):
            if name not in self._names:
                self._names[name] = 1
                return name
        self._names[full] += 1
        return f"{full}~{self._names[full]}"


def _plain(key: object) -> object:
    """The key, or something short in its place if it is an object that could be of any length."""
    return tuple(_atom(part) for part in key) if isinstance(key, tuple) and len(key) <= 8 else _atom(key)


def _atom(key: object) -> object:
    if isinstance(key, (str, bytes)):
        return key[: tensor.MAX_NAME_LENGTH]
    if isinstance(key, Global):
        return f"{key.module[: tensor.MAX_NAME_LENGTH]}.{key.name[: tensor.MAX_NAME_LENGTH]}"
    if isinstance(key, int):
        return key if key.bit_length() <= tensor.MAX_NAME_LENGTH else "int"
    return key if key is None or isinstance(key, float) else type(key).__name__


def _naturals(value: object) -> tuple[int, ...] | None:
    """A shape or strides: a tuple of a bounded number of natural numbers, or torch.Size of one; else None."""
    match value:
        case Record(callable=Global(name="Size"), args=(inner,)):
            value = inner
    if not isinstance(value, (list, tuple)) or len(value) > tensor.MAX_RANK:
        return None
    return tuple(value) if all(type(number) is int and _in_range(number) for number in value) else None


def _in_range(number: int) -> bool:
    return 0 <= number <= tensor.MAX_SIZE_BYTES


def _sparse_parts(layout: object) -> tuple[object, ...]:
    """The keys of a sparse tensor's parts; numbers for a layout that we do not know."""
    match layout:
        case Record(args=(str() as text,)) | Global(name=text):
            return _SPARSE_PARTS.get(text.rpartition(".")[2], (0, 1, 2))
    return (0, 1, 2)
