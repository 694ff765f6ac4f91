"""Read a pickle without running it: objects become inert records, and nothing is imported, called, hashed or compared.

Scope: protocols 0 to 5 as Python's `pickle` and torch's C++ pickler write them, several pickles in a row included. Out
of scope: out-of-band buffers (NEXT_BUFFER), which need bytes that are not in the file, and protocol-0 text that is not
ASCII where `pickletools` wants ASCII.

Specification: Python's Lib/pickletools.py, whose `genops` splits the stream into opcodes; Lib/pickle.py for what each
does. `pickle.Unpickler` is not used even with a stub `find_class`: the C one takes 4 GiB for a 15-byte pickle that puts
into memo slot 2**31, and hashes what the file says.

Limits: MAX_SIZE_BYTES of pickle and MAX_OPCODES opcodes. Each opcode adds at most one object and moves each object of
the stack at most once, so time and memory are linear in the size of the pickle; nothing recurses.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass

from git_theta.errors import FormatError
from git_theta.formats.inert_objects import Global, Literal, Pairs, Persistent, Record

__all__ = ["MAX_OPCODES", "MAX_SIZE_BYTES", "Pickle", "read"]

MAX_SIZE_BYTES = 64 << 20
MAX_OPCODES = 5_000_000
_HIGHEST_PROTOCOL = 5

# What genops raises for a broken stream: MemoryError and OverflowError for absurd lengths, AssertionError from its own
# checks, Warning for an invalid escape in a text opcode where warnings are errors.
_GENOPS_ERRORS = (ValueError, MemoryError, OverflowError, RecursionError, AssertionError, Warning)


@dataclass(frozen=True, slots=True, eq=False)
class Pickle:
    """A pickle's object, the persistent ids in the order in which they are loaded, where it begins, and its STOP ends.

    Numbers, strings, bytes, bool and None are themselves; lists and sets are lists, tuples and frozensets are tuples.
    `frames` are where the arguments of FRAME opcodes stand.
    """

    root: object
    persistent: list[Persistent]
    start: int
    end: int
    frames: tuple[int, ...] = ()


def read(data: bytes, start: int = 0, *, placed: bool = False) -> Pickle:
    """The pickle that begins at `start`; what follows it is not looked at.

    If `placed`, numbers, strings, bools and None are `Literal`s. Raises FormatError for anything that is not one whole
    well-formed pickle within the limits.
    """
    if len(data) - start > MAX_SIZE_BYTES:
        raise FormatError(f"a pickle of {len(data) - start} bytes is above the limit of {MAX_SIZE_BYTES}")
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine()
    count = 0
    frames = []
    try:
        for opcode, argument, position in pickletools.genops(stream):
            count += 1
            if count > MAX_OPCODES:
                raise FormatError(f"a pickle has more than {MAX_OPCODES} opcodes")
            if placed and opcode.name in _SCALARS:
                value = argument if opcode.arg is not None else _CONSTANTS[opcode.name]
                machine.stack.append(Literal(value, position or 0, stream.tell()))
            elif argument is None:
                _WITHOUT_ARGUMENT[opcode.name](machine)
            else:
                _WITH_ARGUMENT[opcode.name](machine, argument)
                if placed and opcode.name == "FRAME":
                    frames.append((position or 0) + 1)
    except _GENOPS_ERRORS as e:
        raise FormatError(f"pickle: opcode {count + 1}: {str(e)[:200] or type(e).__name__}") from e
    except (IndexError, KeyError) as e:  # the machine's own stack and memo
        raise FormatError(f"pickle: opcode {count}: it takes what the stack or the memo does not have") from e
    return Pickle(machine.stack[-1], machine.persistent, start, stream.tell(), tuple(frames))


class _Machine:
    """The pickle machine: a stack, the stacks below the marks, and the memo (a dict: a slot's number costs nothing)."""

    __slots__ = ("below", "memo", "persistent", "stack")

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.persistent: list[Persistent] = []

    def pop_mark(self) -> list[object]:
        """What was pushed since the last mark."""
        items = self.stack
        self.stack = self.below.pop()
        return items


def _push(machine: _Machine, argument: object) -> None:
    machine.stack.append(argument)


def _ignore(_: _Machine, __: object) -> None:
    """Do nothing: frames only help a reader of a stream."""


def _proto(_: _Machine, argument: object) -> None:
    if not isinstance(argument, int) or argument > _HIGHEST_PROTOCOL:
        raise FormatError(f"pickle: protocol {argument} is not known")


def _next_buffer(_: _Machine) -> None:
    raise FormatError("pickle: it needs a buffer that is not in the file")


def _stop(machine: _Machine) -> None:
    if not machine.stack:
        raise FormatError("pickle: it ends without an object")


def _constant(value: object) -> Callable[[_Machine], None]:
    """A handler that pushes an immutable value."""

    def push(machine: _Machine) -> None:
        machine.stack.append(value)

    return push


def _empty_list(machine: _Machine) -> None:
    machine.stack.append([])


def _empty_dict(machine: _Machine) -> None:
    machine.stack.append(Pairs([]))


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: _Machine) -> None:
    machine.pop_mark()


def _dup(machine: _Machine) -> None:
    _push_again(machine, machine.stack[-1])


def _push_again(machine: _Machine, item: object) -> None:
    if isinstance(item, Literal):
        item.shared = True
    machine.stack.append(item)


def _list(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(items)


def _tuple(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(tuple(items))


def _tuple1(machine: _Machine) -> None:
    machine.stack[-1] = (machine.stack[-1],)


def _tuple2(machine: _Machine) -> None:
    last = machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], last)


def _tuple3(machine: _Machine) -> None:
    last = machine.stack.pop()
    middle = machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], middle, last)


def _dict(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(Pairs(_paired(items)))


def _paired(items: list[object]) -> list[tuple[object, object]]:
    if len(items) % 2:
        raise FormatError("pickle: a key of a dict has no value")
    return list(zip(items[::2], items[1::2], strict=True))


def _set_item(machine: _Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _set(machine.stack[-1], [(key, value)])


def _set_items(machine: _Machine) -> None:
    items = machine.pop_mark()
    _set(machine.stack[-1], _paired(items))


def _set(target: object, pairs: list[tuple[object, object]]) -> None:
    if isinstance(target, Pairs):
        target.pairs.extend(pairs)
    elif isinstance(target, Record):
        target.pairs = target.pairs or []
        target.pairs.extend(pairs)
    else:
        raise FormatError("pickle: items are set on an object that has none")


def _append(machine: _Machine) -> None:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])


def _appends(machine: _Machine) -> None:
    items = machine.pop_mark()
    _extend(machine.stack[-1], items)


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Record):
        target.members = target.members or []
        target.members.extend(items)
    else:
        raise FormatError("pickle: members are added to an object that has none")


def _get(machine: _Machine, argument: object) -> None:
    _push_again(machine, machine.memo[_slot(argument)])


def _put(machine: _Machine, argument: object) -> None:
    machine.memo[_slot(argument)] = machine.stack[-1]


def _slot(argument: object) -> int:
    if not isinstance(argument, int) or argument < 0:
        raise FormatError("pickle: a memo slot is no natural number")
    return argument


def _memoize(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _global(machine: _Machine, argument: object) -> None:
    machine.stack.append(_named(argument))


def _named(argument: object) -> Global:
    module, _, name = str(argument).partition(" ")  # genops joins the two lines with a space
    return Global(module, name)


def _stack_global(machine: _Machine) -> None:
    name, module = (
        item.value if isinstance(item, Literal) else item for item in (machine.stack.pop(), machine.stack.pop())
    )
    if not isinstance(module, str) or not isinstance(name, str):
        raise FormatError("pickle: a global's name is no string")
    machine.stack.append(Global(module, name))


def _extension(machine: _Machine, argument: object) -> None:
    # The extension registry is the reader's, so a code's meaning is not in the file.
    machine.stack.append(Global("copyreg", f"extension {argument}"))


def _persistent(machine: _Machine, argument: object) -> None:
    persistent = Persistent(argument)
    machine.persistent.append(persistent)
    machine.stack.append(persistent)


def _binary_persistent(machine: _Machine) -> None:
    _persistent(machine, machine.stack.pop())


def _reduce(machine: _Machine) -> None:
    args = _arguments(machine.stack.pop())
    machine.stack[-1] = Record(machine.stack[-1], args)


def _arguments(args: object) -> tuple[object, ...]:
    if not isinstance(args, tuple):
        raise FormatError("pickle: the arguments of a call are no tuple")
    return args


def _new_object_ex(machine: _Machine) -> None:
    keywords = machine.stack.pop()
    args = _arguments(machine.stack.pop())
    machine.stack[-1] = Record(machine.stack[-1], args, states=[keywords])


def _object(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(Record(items[0], tuple(items[1:])))


def _instance(machine: _Machine, argument: object) -> None:
    items = machine.pop_mark()
    machine.stack.append(Record(_named(argument), tuple(items)))


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if not isinstance(target, Record):
        raise FormatError("pickle: a state is given to an object that has none")
    target.states = target.states or []
    target.states.append(state)


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SCALARS = frozenset(word for word in _LITERALS.split() if "BYTE" not in word) | _CONSTANTS.keys()
# The opcodes that have an argument in the stream, and those that have none.
_WITH_ARGUMENT: dict[str, Callable[[_Machine, object], None]] = {
    **dict.fromkeys(_LITERALS.split(), _push),
    "PROTO": _proto,
    "FRAME": _ignore,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    "GLOBAL": _global,
    "INST": _instance,
    "PERSID": _persistent,
}
_WITHOUT_ARGUMENT: dict[str, Callable[[_Machine], None]] = {
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_LIST": _empty_list,
    "APPEND": _append,
    "APPENDS": _appends,
    "LIST": _list,
    "EMPTY_TUPLE": _constant(()),
    "TUPLE": _tuple,
    "TUPLE1": _tuple1,
    "TUPLE2": _tuple2,
    "TUPLE3": _tuple3,
    "EMPTY_DICT": _empty_dict,
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "EMPTY_SET": _empty_list,
    "ADDITEMS": _appends,
    "FROZENSET": _tuple,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _dup,
    "MEMOIZE": _memoize,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_ex,
    "OBJ": _object,
    "BUILD": _build,
    "BINPERSID": _binary_persistent,
    "NEXT_BUFFER": _next_buffer,
    "READONLY_BUFFER": _next_buffer,
    "STOP": _stop,
}
