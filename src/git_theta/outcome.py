"""The outcome of a merge: what a plan decided is carried out, and a manifest of a whole checkpoint comes of it.

Only values that both sides changed are loaded. Each is merged and stored as an update by one thread, which decodes what
they build on once; a strategy that is elementwise takes a run of elements at a time. A value goes through memory up to
16 MiB, through a temporary file above; small ones, which share objects, come last and are stored together. Where there
is a conflict, ours is kept.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from git_theta import checkpoint, gaps, placement, plugins, recipe, value
from git_theta.arbiter import Arbiter
from git_theta.checkpoint import SMALL_BYTES, Intake, Origin
from git_theta.depot import Depot, spooled
from git_theta.errors import ConflictError, DataError, ManifestError, RepositoryError
from git_theta.layout import Layout
from git_theta.manifest import Manifest, Record, Step
from git_theta.merges import running
from git_theta.merges.arrays import KINDS, Backend, decode, encode
from git_theta.merges.base import FLOAT, Merge, Options
from git_theta.merges.running import Operand, Task
from git_theta.names import shown
from git_theta.placement import Skeletons
from git_theta.rebuild import naming
from git_theta.rules import SKELETON, Rules
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES, Tensor, View, nbytes
from git_theta.threeway import Action, Case, Decision, Plan
from git_theta.updates import floats
from git_theta.updates.average import AVERAGE
from git_theta.updates.stream import Stream
from git_theta.value import BUFFERED_BYTES, HeldValue, Shared, SourceValue

__all__ = ["Outcome", "Versions", "apply", "needed", "outlook", "readers"]

GROUP_BYTES = 16 * 2**20
_CHUNK_BYTES = 2 * 2**20
_UNKNOWN = "0" * 64

Runs = Iterator[bytes | memoryview]
_Kept = tuple[str, tuple[Step, ...]]
Files = Callable[[str, str], Tensor | None]
"""Gives the tensor that a further file, by its path, has for a parameter; None where it has none."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What is merged; `base` is None where there is no common ancestor. `others` are those of further branches."""

    base: Manifest | None
    ours: Manifest
    theirs: Manifest
    others: tuple[Manifest, ...] = ()

    @property
    def sides(self) -> tuple[Manifest, ...]:
        """All but the base, ours first."""
        return self.ours, self.theirs, *self.others

    def side(self, one: Decision, index: int) -> Record:
        """A side's record of a parameter that it has."""
        names = (one.ours, one.theirs, *[one.name] * len(self.others))
        return self.sides[index].parameters[names[index] or ""]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The merged checkpoint, and the decisions, in which conflicts that the values showed stand as such."""

    manifest: Manifest
    decisions: tuple[Decision, ...]

    @property
    def conflicts(self) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if one.action is Action.CONFLICT)


@dataclass(frozen=True, slots=True)
class _Work:
    """One merge on its way."""

    versions: Versions
    depot: Depot
    backend: Backend | None
    files: Files
    progress: Callable[[int], None]


def needed(plan: Plan, versions: Versions) -> dict[str, int]:
    """The objects (oid to size in bytes) that `apply` reads: those of the values to be merged, and of the layouts."""
    return {
        piece.oid: piece.size for _, record in _read(plan, versions) for step in record.store for piece in step.pieces
    }


def readers(plan: Plan, versions: Versions, oids: Collection[str]) -> str:
    """What `apply` reads some of the objects for, in a few words."""
    found = dict.fromkeys(
        what
        for what, record in _read(plan, versions)
        if any(piece.oid in oids for step in record.store for piece in step.pieces)
    )
    more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
    return f"{next(iter(found), 'the merge')}{more}"


def _read(plan: Plan, versions: Versions) -> Iterator[tuple[str, Record]]:
    """What `apply` reads, and what it is called."""
    known = [*([versions.base] if versions.base else []), *versions.sides]
    yield from (("the layout", manifest.layout) for manifest in known)
    for manifest, plain in zip(known, gaps.stripped(known), strict=True):
        rows = manifest.parameters.items()
        yield from (("the layout", record) for name, record in rows if name not in plain.parameters)
    for one in plan.merged:
        base, sides = _inputs(one, versions)
        for record in (*sides, *([base] if base else [])):
            yield f"parameter '{shown(one.name)}'", record


def _no_files(_path: str, _name: str) -> Tensor | None:
    return None


def apply(
    plan: Plan,
    versions: Versions,
    rules: Rules,
    depot: Depot,
    *,
    backend: Backend | None = None,
    files: Files = _no_files,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> Outcome:
    """The merged checkpoint, after storing what is new in it.

    `progress` is told of bytes merged, from several threads. Raises MissingObjectError, DamagedObjectError or
    ManifestError, naming the parameter, where a value that must be loaded cannot be, and SpaceError on a full disk.
    """
    work = _Work(versions, depot, backend, files, progress)
    merged, reasons = _merge_all(work, plan.merged)
    decisions = [
        _stopped(versions, one, reasons[one.name]) if one.action is Action.MERGE and one.name in reasons else one
        for one in plan.decisions
    ]
    records = {one.name: record for one in decisions if (record := _record(one, versions, merged)) is not None}
    return _placed(work, records, decisions, rules)


def outlook(
    plan: Plan,
    versions: Versions,
    rules: Rules,
    depot: Depot,
    has: Callable[[str, str], bool] = lambda path, name: False,
) -> tuple[Decision, ...]:
    """The decisions with the conflicts that will be, in parameters and in what is none.

    Nothing is stored, and no floats are loaded: what only they tell, such as a NaN, is not foreseen. `has` says whether
    a further file, by its path, has a parameter. Raises as `apply` does.
    """
    work = _Work(versions, depot, None, _no_files, lambda size_bytes: None)
    plan = replace(plan, decisions=tuple(_foreseen(work, one, has) for one in plan.decisions))
    made = {one.name: _made(versions, one) for one in plan.merged}
    records = {one.name: record for one in plan.decisions if (record := _record(one, versions, made)) is not None}
    skeletons = placement.read(versions.base, versions.sides, depot)
    rule = rules.find(SKELETON, None)
    arbiter = Arbiter(rules)
    try:
        skeletons.merged(records, arbiter.settle, lambda record: iter(()))
    except ConflictError as error:
        if rule is None or len(versions.sides) > 2:
            return (*plan.decisions, Decision(SKELETON, Action.CONFLICT, Case.SKELETON, reason=str(error)))
        return plan.decisions
    return (*plan.decisions, *arbiter.decisions)


def _foreseen(work: _Work, one: Decision, has: Callable[[str, str], bool]) -> Decision:
    """A decision, or the conflict that carrying it out will show."""
    if one.action is not Action.MERGE:
        return one
    strategy = plugins.merge(one.strategy)
    held = [(name, [has(path, one.name) for path in one.files.get(name, ())]) for name in strategy.files]
    try:
        with naming(f"parameter '{shown(one.name)}'"):
            for name, found in held:
                _check_further(name, sum(found), len(found))
            if KINDS[one.dtype] != FLOAT:
                deque(_merged(work, one), maxlen=0)
            elif one.files and not any(any(found) for _, found in held):
                next(_merged(work, one), b"")  # some strategies do without
    except ConflictError as error:
        return _stopped(work.versions, one, str(error))
    except DataError:  # what is not here tells nothing
        pass
    return one


def _stopped(versions: Versions, one: Decision, reason: str) -> Decision:
    """The conflict that a merge turned out to be."""
    return replace(one, action=Action.CONFLICT, reason=reason, views=_ours_views(one, versions))


def _made(versions: Versions, one: Decision, digest: str = _UNKNOWN, steps: tuple[Step, ...] = ()) -> Record:
    """The record of a merged value, or what is known of it beforehand."""
    like = versions.side(one, (one.sides or (0,))[0])
    return Record(one.dtype, one.shape, _size(one), digest, steps, like.strides, one.views)


def _inputs(one: Decision, versions: Versions) -> tuple[Record | None, list[Record]]:
    """The base's and the sides' records of a parameter to be merged; no base where the strategy has no use for one."""
    strategy = plugins.merge(one.strategy)
    base = versions.base.parameters[one.base] if versions.base is not None and one.base is not None else None
    used = strategy.needs_base or strategy.uses_base or one.case is Case.DTYPE
    return base if used else None, [versions.side(one, index) for index in one.sides or (0, 1)]


def _ours_views(one: Decision, versions: Versions) -> tuple[View, ...]:
    return versions.ours.parameters[one.ours].views if one.ours is not None else ()


def _record(one: Decision, versions: Versions, merged: Mapping[str, Record]) -> Record | None:
    """What the result has of a parameter; None for nothing."""
    if one.action is Action.DROP or (one.action is Action.CONFLICT and one.ours is None):
        return None
    if one.action is Action.MERGE:
        return merged[one.name]
    if one.action is Action.THEIRS:
        record = versions.side(one, one.sides[0] if one.sides else 1)
    elif one.action is Action.BASE and versions.base is not None:
        record = versions.base.parameters[one.base or ""]
    else:
        record = versions.ours.parameters[one.ours or ""]
    return replace(record, views=one.views)


def _merge_all(work: _Work, decisions: Sequence[Decision]) -> tuple[dict[str, Record], dict[str, str]]:
    """The records of merged values, and why others could not be merged, by their names in the result."""
    versions = work.versions
    known = [*([versions.base] if versions.base else []), *reversed(versions.sides)]
    small = [one for one in decisions if _size(one) < SMALL_BYTES]
    large = sorted((one for one in decisions if _size(one) >= SMALL_BYTES), key=_size, reverse=True)
    intake = Intake(work.depot, known)
    with ThreadPoolExecutor(work.depot.settings.thread_count) as pool, _cancelling(pool):
        kept = pool.map(lambda one: _keep_large(work, intake, one), large)
        made = {one.name: record for one, record in zip(large, kept, strict=True)}
    for group in _groups(small):
        made |= _keep_small(work, known, group)
    records = {name: record for name, record in made.items() if isinstance(record, Record)}
    work.depot.catalogue.vouch(records.values())
    return records, {name: reason for name, reason in made.items() if isinstance(reason, str)}


@contextmanager
def _cancelling(pool: ThreadPoolExecutor) -> Iterator[None]:
    try:
        yield
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _size(one: Decision) -> int:
    """Bytes of what a decision makes."""
    return nbytes(one.dtype, one.shape)


def _keep_large(work: _Work, intake: Intake, one: Decision) -> Record | str:
    """The record of a merged value, which is stored; why there is none."""
    closest = _closest(one, work.versions)
    with naming(f"parameter '{shown(one.name)}'"):
        kept = _keep_recipe(work, intake, one, closest) or _keep_value(work, intake, one, closest)
    work.progress(_size(one))
    return kept if isinstance(kept, str) else _made(work.versions, one, *kept)


def _keep_recipe(work: _Work, intake: Intake, one: Decision, closest: Record) -> _Kept | None:
    """The digest and the steps of a mean of two sides, stored as its recipe; None where it is none, or not finite."""
    _, sides = _inputs(one, work.versions)
    if one.strategy != AVERAGE.name or work.backend is not None or one.case is Case.DTYPE:
        return None
    steps = recipe.mean(sides, Options(one.options).shares(len(sides)), work.depot)
    if steps is None or not intake.holds(steps):
        return None
    known = _in_step(work, one, closest)
    streams = [
        _FiniteStream(side.dtype, side.shape, side.size, value.runs(side, work.depot.store, known)) for side in sides
    ]
    with work.depot.store.reader(steps[-1].pieces) as payload, suppress(ConflictError):
        digest = value.hashed(AVERAGE.decode(payload, sides[0].size, streams))
        for stream in streams:
            stream.finish()
        return digest, intake.find(_made(work.versions, one, digest)) or steps
    return None


class _FiniteStream(Stream):
    """A side of a mean; raises ConflictError, for nobody to see, where it has NaN or infinity.

    Of the mean itself it cannot be told: it is ours where it would be NaN.
    """

    def take(self, size: int) -> memoryview:
        taken = super().take(size)
        if not floats.are_finite(taken, self.dtype):
            raise ConflictError("it is not finite")
        return taken


def _keep_value(work: _Work, intake: Intake, one: Decision, closest: Record) -> _Kept | str:
    """The digest and the steps of a merged value, which is stored; why there is none."""
    size = _size(one)
    base = None
    with suppress(DataError, ManifestError, RepositoryError):  # whoever needs it says so
        base = value.shared(closest, work.depot.store)
    origin = Origin(one.name, closest, shared=base)
    base = base or _in_step(work, one, closest)
    try:
        if size <= BUFFERED_BYTES:
            data = value.filled(value.room(size), _merged(work, one, base))
            return intake.keep_large(HeldValue(data, one.dtype, one.shape), origin)
        with spooled(work.depot, _merged(work, one, base), (), size) as source:
            return intake.keep_large(SourceValue(source, 0, size, one.dtype, one.shape), origin)
    except ConflictError as error:
        return str(error)


def _in_step(work: _Work, one: Decision, closest: Record) -> Shared | None:
    """A value that is too large to be held, for what is merged of it; None where that is not read in step."""
    base, sides = _inputs(one, work.versions)
    if one.case is Case.DTYPE or not plugins.merge(one.strategy).elementwise:
        return None
    return value.side_by_side(closest, work.depot.store, [*sides, *([base] if base else [])])


def _keep_small(work: _Work, known: Sequence[Manifest], group: Sequence[Decision]) -> dict[str, Record | str]:
    """The records of small values by name, or why there are none."""

    def merge(one: Decision) -> bytes | str:
        try:
            with naming(f"parameter '{shown(one.name)}'"):
                return b"".join(_merged(work, one))
        except ConflictError as error:
            return str(error)

    with ThreadPoolExecutor(work.depot.settings.thread_count) as pool, _cancelling(pool):
        merged = list(pool.map(merge, group))
    good = [(one, made) for one, made in zip(group, merged, strict=True) if isinstance(made, bytes)]
    values = [SourceValue(BytesSource(made), 0, len(made), one.dtype, one.shape) for one, made in good]
    origins = [Origin(one.name, _closest(one, work.versions)) for one, _ in good]
    kept = checkpoint.keep(values, origins, work.depot, known)
    work.progress(sum(row.size for row in values))
    failed: dict[str, Record | str] = {
        one.name: made for one, made in zip(group, merged, strict=True) if isinstance(made, str)
    }
    return failed | {one.name: _made(work.versions, one, *row) for (one, _), row in zip(good, kept, strict=True)}


def _groups(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    """The decisions, so many together that their values take some MiB."""
    group: list[Decision] = []
    room = GROUP_BYTES
    for one in decisions:
        if group and _size(one) > room:
            yield group
            group, room = [], GROUP_BYTES
        group.append(one)
        room -= _size(one)
    if group:
        yield group


def _closest(one: Decision, versions: Versions) -> Record:
    """The version's value that the merged one is stored as an update of: the one that takes the fewest steps."""
    found = _inputs(one, versions)[1]
    if versions.base is not None and one.base is not None:
        found.insert(0, versions.base.parameters[one.base])
    alike = [record for record in found if (record.dtype, record.shape) == (one.dtype, one.shape)]
    return min(alike or found, key=lambda record: len(record.store))


def _merged(work: _Work, one: Decision, known: Shared | None = None) -> Runs:
    """The bytes of a merged value; raises ConflictError where there is none. What was given before is then no use.

    `known`: a value that others build on, in memory.
    """
    base, sides = _inputs(one, work.versions)
    if one.case is Case.DTYPE and base is not None:
        for changed, other in (sides, sides[::-1]):
            if changed.dtype != base.dtype and _is_cast(work, base, changed):
                yield from _converted(work, other, changed.dtype)
                return
    strategy = plugins.merge(one.strategy)
    if not (strategy.needs_base or strategy.uses_base):
        base = None
    streams = [(record, _stream(work, record, known)) for record in (*sides, *([base] if base else []))]
    # Where one side added rows, those that all have are merged, and its new ones follow.
    shared = min((record.shape for record in sides), key=lambda shape: shape[:1])
    operands = [Operand(record.dtype, shared, record.digest, stream.take) for record, stream in streams]
    task = Task(
        one.name,
        one.dtype,
        shared,
        tuple(operands[: len(sides)]),
        operands[-1] if base else None,
        _further(work, strategy, one),
    )
    yield from running.run(strategy, Options(one.options), task, work.backend)
    for record, stream in streams:
        if record.shape == one.shape != shared:
            left = _size(one) - nbytes(one.dtype, shared)
            for start in range(0, left, _CHUNK_BYTES):
                data = stream.take(min(_CHUNK_BYTES, left - start))
                yield data if record.dtype == one.dtype else _cast(data, record.dtype, one.dtype)
        stream.finish()


def _stream(work: _Work, record: Record, known: Shared | None = None) -> Stream:
    return Stream(record.dtype, record.shape, record.size, value.runs(record, work.depot.store, known))


def _further(work: _Work, strategy: Merge, one: Decision) -> dict[str, tuple[Operand, ...]]:
    """The parameter's tensors of the files that the strategy reads; those of a file in which it is not are left out."""
    found: dict[str, tuple[Operand, ...]] = {}
    for name in strategy.files:
        tensors = [work.files(path, one.name) for path in one.files.get(name, ())]
        given = [tensor for tensor in tensors if tensor is not None]
        _check_further(name, len(given), len(tensors))
        if given:
            strides = work.versions.side(one, (one.sides or (0,))[0]).strides
            if strides is not None and not strategy.elementwise:
                raise ConflictError(
                    f"its elements do not stand in C order, as '{one.strategy}' needs them; take a side"
                )
            found[name] = tuple(
                running.held(tensor.dtype, tensor.shape, "", _in_order(tensor, one.shape, strides)) for tensor in given
            )
    return found


def _check_further(name: str, count: int, files: int) -> None:
    """Raise ConflictError where some of the further files of a name have a parameter, and others do not."""
    if 0 < count < files:
        raise ConflictError(f"only some of its '{name}' files have it; make the files again, or take a side")


def _in_order(tensor: Tensor, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bytes:
    """A tensor's elements as those of a parameter with these strides stand in its file."""
    if strides is None or tensor.shape != shape:
        return tensor.data
    import numpy as np

    axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    elements = np.frombuffer(tensor.data, f"V{DTYPES[tensor.dtype].word}").reshape(shape)
    ordered: bytes = elements.transpose(axes).tobytes()
    return ordered


def _is_cast(work: _Work, base: Record, changed: Record) -> bool:
    """Whether a value is the base's, converted to its dtype."""
    with suppress(ConflictError):  # what goes beyond the dtype was not only converted
        return value.hashed(_converted(work, base, changed.dtype)) == changed.digest
    return False


def _converted(work: _Work, record: Record, dtype: str) -> Runs:
    if record.dtype == dtype:
        yield from value.runs(record, work.depot.store)
        return
    stream = _stream(work, record)
    word = DTYPES[record.dtype].word
    count = record.size // word
    step = _CHUNK_BYTES // 8
    for start in range(0, count, step):
        yield _cast(stream.take(min(step, count - start) * word), record.dtype, dtype)
    stream.finish()


def _cast(data: memoryview, dtype: str, to: str) -> bytes:
    """The numbers in another dtype; raises ConflictError where one goes beyond what it can hold."""
    array = decode(data, dtype, wide=dtype == "F64")
    made = encode(array, to)
    running.check_result(made, to, [array])
    return made


def _whole(versions: Versions, side: str) -> Manifest | None:
    """All of a side: of files of two formats, who takes what one says beside its parameters takes that file."""
    return {"ours": versions.ours, "theirs": versions.theirs, "base": versions.base}.get(side)


def _placed(work: _Work, records: dict[str, Record], decisions: list[Decision], rules: Rules) -> Outcome:
    """The records as a checkpoint, in whose file the skeleton is merged as well."""
    versions = work.versions
    skeletons = placement.read(versions.base, versions.sides, work.depot)
    rule = rules.find(SKELETON, None)
    arbiter = Arbiter(rules)
    try:
        layout = skeletons.merged(records, arbiter.settle)
        decisions = [*decisions, *arbiter.decisions]
    except ConflictError as error:
        for chosen in [rule.strategy] if rule is not None and not versions.others else []:
            with suppress(ConflictError):
                layout = skeletons.chosen(chosen, records)
                return Outcome(placement.store(layout, records, versions.sides, work.depot), tuple(decisions))
            if versions.ours.format != versions.theirs.format and (side := _whole(versions, chosen)) is not None:
                return Outcome(side, tuple(one for one in decisions if one.action is not Action.CONFLICT))
            with suppress(ConflictError):
                layout, records, decisions = _fitted(skeletons, chosen, records, decisions)
                return Outcome(placement.store(layout, records, versions.sides, work.depot), tuple(decisions))
        conflict = Decision(SKELETON, Action.CONFLICT, Case.SKELETON, reason=str(error))
        try:
            layout = skeletons.chosen("ours", records)
        except ConflictError:
            try:
                layout, records, decisions = _fitted(skeletons, "ours", records, decisions)
                conflict = replace(conflict, reason=f"{error}; the merge has the parameters that ours has")
            except ConflictError:
                reason = f"{error}; nothing of the file is merged"
                return Outcome(versions.ours, (*decisions, replace(conflict, reason=reason)))
        decisions = [*decisions, conflict]
    return Outcome(placement.store(layout, records, versions.sides, work.depot), tuple(decisions))


def _fitted(
    skeletons: Skeletons, chosen: str, records: Mapping[str, Record], decisions: Sequence[Decision]
) -> tuple[Layout, dict[str, Record], list[Decision]]:
    """The file of a side with the merged values that have room in it, and its own for the rest; what is decided then.

    So the sides of a format that cannot add parameters are settled by the one whose parameters are taken. Raises
    ConflictError where there is no such side, or it cannot be done.
    """
    side = skeletons.version(chosen).manifest.parameters
    fitted = {
        name: records[name] if name in records and _is_alike(records[name], own) else own for name, own in side.items()
    }
    layout = skeletons.chosen(chosen, fitted)
    decided = []
    for one in decisions:
        if one.name not in fitted:
            decided.append(replace(one, action=Action.DROP))
        elif fitted[one.name] is not records.get(one.name):
            decided.append(replace(one, action=Action(chosen)))
        else:
            decided.append(one)
    return layout, fitted, decided


def _is_alike(one: Record, other: Record) -> bool:
    """Whether two values take the same room in a file."""
    return all(getattr(one, name) == getattr(other, name) for name in ("dtype", "shape", "size", "strides", "views"))
