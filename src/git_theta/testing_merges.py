"""The test kit of merge strategies; `git_theta.testing` is where plugins find it.

    class TestMine(MergeTests):
        merge = MINE
        symmetric = True

What the sides hold is made of hashes, so a kit's values are the same in every run and on every machine.
"""

# ruff: noqa: S101 - a kit is made of asserts

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from blake3 import blake3

from git_theta.errors import ConfigError, ConflictError
from git_theta.merges.arrays import KINDS, Backend, encode, torch_backend
from git_theta.merges.base import FLOAT, Merge, read_options
from git_theta.merges.running import RUN_ELEMENTS, Operand, Task, held, run
from git_theta.tensor import DTYPES, Tensor, nbytes

__all__ = ["MergeTests"]

_NONSENSE: Sequence[object] = ("", "nonsense", float("nan"), None, {}, "1" * 400)


class MergeTests:
    """What every merge strategy does. Subclasses set `merge`, and what it promises besides."""

    merge: Merge
    options: Mapping[str, object] = {}
    """What the strategy is tried with; its defaults, where this is empty."""
    one_sided = False
    """Whether an element that one side left as it was becomes the other side's, bit for bit."""
    symmetric = False
    """Whether ours and theirs may change places, bit for bit."""
    shapes: Sequence[tuple[int, ...]] = ((), (0,), (1,), (7,), (5, 3), (2, 3, 4), (40, 50))

    def files(self, shape: tuple[int, ...]) -> Mapping[str, Sequence[Tensor]]:
        """The further files' tensors for a parameter of this shape, by the names in `merge.files`."""
        return {}

    def test_it_says_what_it_is(self) -> None:
        name, summary, paper = self.merge.name, self.merge.summary, self.merge.paper
        assert name, "a strategy has a name"
        assert all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in name), name
        for line in (summary, *self.merge.files.values(), *(option.summary for option in self.merge.options)):
            assert line, f"{name} says nothing of something"
            assert line.isprintable(), line
        assert not paper or paper.startswith("https://"), paper
        assert self.merge.kinds <= {*KINDS.values()}

    def test_its_options_have_bounds_and_defaults_within_them(self) -> None:
        for option in self.merge.options:
            assert option.parse(option.default) == option.default, option
            assert option.allowed
            for wrong in _NONSENSE:
                with_it = {**self.options, option.name: wrong}
                assert self._refuses(with_it) or (wrong == "" and option.default == ()), (
                    f"{option.name} may be {wrong!r}"
                )
        assert self._refuses({"no-such-option": 1})

    def test_it_keeps_dtype_and_shape_and_is_the_same_each_time(self) -> None:
        for dtype in self._dtypes():
            for shape in self.shapes:
                made = self._merged(self._task(dtype, shape))
                assert len(made) == nbytes(dtype, shape), (dtype, shape)
                assert self._merged(self._task(dtype, shape)) == made, (dtype, shape)

    def test_threads_and_the_order_of_work_change_nothing(self) -> None:
        def merged(name: str) -> bytes:
            return self._merged(self._task(self._dtypes()[0], (40, 50), name=name))

        names = [f"layer.{index}" for index in range(6)]
        one_by_one = {name: merged(name) for name in names}
        with ThreadPoolExecutor(4) as pool:
            assert dict(zip(names[::-1], pool.map(merged, names[::-1]), strict=True)) == one_by_one

    def test_an_elementwise_strategy_does_not_depend_on_where_runs_end(self) -> None:
        if self.merge.elementwise:
            whole = self._merged(self._task(self._dtypes()[0], (40, 50)))
            for most in (1999, 100, 7):
                assert self._merged(self._task(self._dtypes()[0], (40, 50)), most_elements=most) == whole, most

    def test_an_unchanged_side_gives_the_other(self) -> None:
        if not self.one_sided:
            return
        for dtype in self._dtypes():
            task = self._task(dtype, (40, 50))
            base, ours, theirs = _contents(task)
            assert self._merged(_with(task, base, base, theirs)) == theirs, dtype
            assert self._merged(_with(task, base, ours, base)) == ours, dtype
            # And element by element: each side changes what the other one leaves.
            width = DTYPES[dtype].word
            half = len(base) // 2 // width * width
            mixed = self._merged(_with(task, base, ours[:half] + base[half:], base[:half] + theirs[half:]))
            assert mixed == ours[:half] + theirs[half:], dtype

    def test_the_sides_may_change_places(self) -> None:
        if not self.symmetric:
            return
        for dtype in self._dtypes():
            for shape in self.shapes:
                task, swapped = self._task(dtype, shape), self._task(dtype, shape, swapped=True)
                assert self._merged(swapped) == self._merged(task), (dtype, shape)

    def test_a_value_that_is_not_finite_is_refused_or_left_where_it_is(self) -> None:
        """`finite` says that the strategy is never asked; without it, what all sides have stays as it is."""
        if FLOAT not in self.merge.kinds:
            return
        task = self._task("F32", (40, 50))
        base, ours, theirs = _contents(task)
        for bits in (b"\0\0\xc0\x7f", b"\0\0\x80\xff"):
            broken = bits + base[4:]
            if self.merge.finite:
                for given in ((base, broken, theirs), (base, ours, broken)):
                    with _conflict():
                        self._merged(_with(task, *given))
            else:
                assert self._merged(_with(task, broken, broken, broken)) == broken

    def test_a_missing_base_and_foreign_dtypes_are_refused_in_one_line(self) -> None:
        task = self._task(self._dtypes()[0], (5, 3))
        orphan = Task(task.name, task.dtype, task.shape, task.sides, None, task.files)
        if self.merge.needs_base:
            with _conflict():
                self._merged(orphan)
        else:
            assert len(self._merged(orphan)) == nbytes(task.dtype, task.shape)
        for dtype, kind in KINDS.items():
            if kind not in self.merge.kinds:
                with _conflict():
                    self._merged(self._task(dtype, (5, 3)))

    def test_torch_gives_the_same_within_one_unit_in_the_last_place(self) -> None:
        if FLOAT not in self.merge.kinds or importlib.util.find_spec("torch") is None:
            return
        backend = torch_backend("cpu")
        for shape in self.shapes:
            expected = self._merged(self._task("F32", shape))
            made = self._merged(self._task("F32", shape), backend=backend)
            assert _apart(made, expected) <= 1, shape
            assert self._merged(self._task("F32", shape), backend=backend) == made, shape

    def _dtypes(self) -> list[str]:
        return [dtype for dtype, kind in KINDS.items() if kind in self.merge.kinds]

    def _task(self, dtype: str, shape: tuple[int, ...], name: str = "layer", *, swapped: bool = False) -> Task:
        """Sides that are different from the base, and from each other, in most elements; not the same for each name."""
        size = nbytes(dtype, shape)
        base, ours, theirs = (_value(dtype, size, f"{name} {side}") for side in ("base", "ours", "theirs"))
        if KINDS[dtype] != FLOAT and "three-way" in self.merge.name:
            theirs = base  # what both change is a conflict
        sides = [_operand(dtype, shape, data) for data in (ours, theirs)]
        files = {
            file: tuple(_operand(tensor.dtype, tensor.shape, tensor.data) for tensor in tensors)
            for file, tensors in self.files(shape).items()
        }
        if swapped:
            sides = sides[::-1]
            files = {file: operands[::-1] for file, operands in files.items()}
        return Task(name, dtype, shape, tuple(sides), _operand(dtype, shape, base), files)

    def _merged(self, task: Task, backend: Backend | None = None, most_elements: int = RUN_ELEMENTS) -> bytes:
        options = read_options(self.merge, self.options)
        return b"".join(run(self.merge, options, task, backend, most_elements=most_elements))

    def _refuses(self, options: Mapping[str, object]) -> bool:
        try:
            read_options(self.merge, options)
        except ConfigError as error:
            message = str(error)
        else:
            return False
        assert message.isprintable()
        assert self.merge.name in message
        return True


def _value(dtype: str, size: int, seed: str) -> bytes:
    """Bytes of a dtype: numbers around 0 of the size of weights, small integers, or booleans."""
    import numpy as np

    raw = np.frombuffer(blake3(seed.encode()).digest(length=2 * (size // DTYPES[dtype].word)), "<u2")
    if KINDS[dtype] == FLOAT:
        return encode(((raw.astype("<f8") - 32767.5) / 2**20), dtype)
    return encode(raw % (2 if dtype == "BOOL" else 100), dtype)


def _operand(dtype: str, shape: tuple[int, ...], data: bytes) -> Operand:
    return held(dtype, shape, blake3(data).hexdigest(), data)


def _contents(task: Task) -> tuple[bytes, bytes, bytes]:
    """The bytes of base, ours and theirs of a new task, which are read by this."""
    base, ours, theirs = (
        bytes(operand.take(nbytes(task.dtype, task.shape))) for operand in (task.base, *task.sides) if operand
    )
    return base, ours, theirs


def _with(task: Task, base: bytes, ours: bytes, theirs: bytes) -> Task:
    """The task with other values; its files' tensors must not have been read."""
    made = [_operand(task.dtype, task.shape, data) for data in (base, ours, theirs)]
    return Task(task.name, task.dtype, task.shape, tuple(made[1:]), made[0], task.files)


def _apart(one: bytes, other: bytes) -> int:
    """How many float32 numbers lie at most between two elements of the same place."""
    import numpy as np

    words = [np.frombuffer(data, "<i4").astype("<i8") for data in (one, other)]
    left, right = (np.where(word < 0, -(2**31) - word, word) for word in words)
    return int(np.max(np.abs(left - right), initial=0))


@contextmanager
def _conflict() -> Iterator[None]:
    """Fails unless a ConflictError of one line comes out of it."""
    try:
        yield
    except ConflictError as error:
        message = str(error)
    else:
        raise AssertionError("no conflict where one was expected")
    assert message.isprintable()
