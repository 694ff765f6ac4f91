"""Updates that a user supplies: what they make of a base, bit for bit and on every machine, and what is refused."""

import itertools
import math
import struct
import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.errors import DamagedObjectError, InputError
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES, Tensor
from git_theta.testing import UpdateExample, UpdateTests
from git_theta.updates.base import Supplied, Supplier
from git_theta.updates.dense import DENSE
from git_theta.updates.floats import FLOATS
from git_theta.updates.ia3 import IA3
from git_theta.updates.low_rank import DETECTED, LOW_RANK
from git_theta.updates.sparse import SPARSE
from git_theta.updates.stream import Stream
from git_theta.value import SourceValue
from tests import independent_reader
from tests.checkpoints import noise

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def tensor(value: torch.Tensor) -> Tensor:
    names = {dtype: name for name, dtype in TORCH.items()} | {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}
    data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return Tensor(names[value.dtype], tuple(value.shape), data)


def normal(*shape: int, dtype: str = "F32", seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(shape, generator=generator) * 0.05).to(TORCH[dtype])


def stream(value: Tensor) -> Stream:
    return Stream(value.dtype, value.shape, len(value.data), iter([value.data] if value.data else []))


def apply(update: Supplier, tensors: Mapping[str, Tensor], base: Tensor) -> bytes:
    return b"".join(update.supplied(tensors, base.dtype, base.shape).apply(stream(base)))


def encode(update: Supplied, value: Tensor, base: Tensor) -> bytes:
    runs = update.encode(
        SourceValue(BytesSource(value.data), 0, len(value.data), value.dtype, value.shape), [stream(base)]
    )
    assert runs is not None
    return b"".join(runs)


def decode(update: Supplied, payload: bytes, size: int, base: Tensor) -> bytes:
    return b"".join(update.decode(BytesSource(payload), size, [stream(base)]))


BASE = normal(300, 200)
FACTORS = {"R": tensor(normal(300, 4)), "C": tensor(normal(4, 200)), "scaling": tensor(torch.tensor(2.0))}
SCALES = {"ia3": tensor(normal(300, 1))}


class TestLowRank(UpdateTests):
    update = LOW_RANK.supplied(FACTORS, "F32", (300, 200))

    def examples(self) -> Sequence[UpdateExample]:
        merged = tensor(BASE + normal(300, 4) @ normal(4, 200) * 2)
        other = Tensor("F32", (300, 200), merged.data[:1000] + noise(1000) + merged.data[2000:])
        return [UpdateExample(merged, (tensor(BASE),)), UpdateExample(other, (tensor(BASE),))]


class TestIa3(UpdateTests):
    update = IA3.supplied(SCALES, "F32", (300, 200))

    def examples(self) -> Sequence[UpdateExample]:
        return [UpdateExample(tensor(BASE * normal(300, 1)), (tensor(BASE),))]


@pytest.mark.parametrize("scaling", [2.0, 0.3, 16 / math.sqrt(8)])
@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize(("dtype", "factor"), [("F32", "F32"), ("BF16", "F32"), ("F16", "F32"), ("F64", "F64")])
def test_a_low_rank_update_is_what_torch_makes_of_it(dtype: str, factor: str, rank: int, scaling: float) -> None:
    """As `merge_and_unload` of PEFT: the product, the scaling, one sum rounded to the dtype of the base.

    BLAS may round sums otherwise than we do: a few elements in a million are then next to ours.
    """
    base, left, right = normal(96, 160, dtype=dtype), normal(96, rank, dtype=factor), normal(rank, 160, dtype=factor)
    expected = base.clone()
    expected += left @ right * scaling
    given = {"R": tensor(left), "C": tensor(right), "scaling": tensor(torch.tensor(scaling, dtype=torch.float64))}
    made = torch.frombuffer(bytearray(apply(LOW_RANK, given, tensor(base))), dtype=TORCH[dtype]).view(96, 160)
    assert (made != expected).float().mean() < (0.02 if rank > 8 else 1e-3)
    assert torch.allclose(made.double(), expected.double(), rtol=2**-7 if dtype == "BF16" else 2**-10, atol=1e-6)


def test_a_product_is_rounded_to_the_dtype_of_a_short_adapter() -> None:
    base, left, right = (normal(*shape, dtype="BF16") for shape in ((40, 60), (40, 8), (8, 60)))
    expected = base.clone()
    expected += (left.float() @ right.float() * 0.5).to(torch.bfloat16)
    given = {"R": left, "C": right, "scaling": torch.tensor(0.5), "rounded": torch.tensor(0.0, dtype=torch.bfloat16)}
    assert apply(LOW_RANK, {key: tensor(value) for key, value in given.items()}, tensor(base)) == tensor(expected).data


def test_a_transposed_product_is_added_transposed() -> None:
    base, left, right = normal(50, 30), normal(30, 4), normal(4, 50)
    given = {"R": tensor(left), "C": tensor(right), "transposed": tensor(torch.tensor([1], dtype=torch.uint8))}
    assert apply(LOW_RANK, given, tensor(base)) == tensor(base + (left @ right).T).data


def test_a_kernel_is_taken_as_a_matrix_of_its_first_dimension() -> None:
    base, left, right = normal(8, 4, 3, 3), normal(8, 2), normal(2, 36)
    made = apply(LOW_RANK, {"R": tensor(left), "C": tensor(right)}, tensor(base))
    assert made == tensor(base + (left @ right).view(8, 4, 3, 3)).data


@pytest.mark.parametrize("shape", [(300, 1), (200,), (1, 200), (300, 200), (1,), ()])
def test_multipliers_broadcast(shape: tuple[int, ...]) -> None:
    scale = normal(*shape)
    assert apply(IA3, {"ia3": tensor(scale)}, tensor(BASE)) == tensor(BASE * scale).data


@pytest.mark.parametrize("shape", [(5, 1, 1, 1), (1, 4, 1, 1), (5, 1, 3, 1), (3, 2), (4, 1, 1)])
def test_multipliers_broadcast_along_any_axes(shape: tuple[int, ...]) -> None:
    base, scale = normal(5, 4, 3, 2, dtype="BF16"), normal(*shape)
    assert apply(IA3, {"ia3": tensor(scale)}, tensor(base)) == tensor((base * scale).to(torch.bfloat16)).data


def test_elements_take_the_place_of_others() -> None:
    base = torch.arange(24.0).view(4, 6)
    expected = base.clone()
    expected.view(-1)[[3, 17]] = torch.tensor([-1.0, -2.0])
    flat = {"indices": tensor(torch.tensor([17, 3])), "values": tensor(torch.tensor([-2.0, -1.0]))}
    pairs = {"indices": tensor(torch.tensor([[2, 5], [0, 3]])), "values": tensor(torch.tensor([-2.0, -1.0]))}
    assert apply(SPARSE, flat, tensor(base)) == apply(SPARSE, pairs, tensor(base)) == tensor(expected).data


def test_rows_take_the_place_of_others() -> None:
    base = normal(100, 6)
    expected, rows = base.clone(), torch.tensor([99, 0, 41], dtype=torch.int32)
    expected[rows.long()] = normal(3, 6)
    assert (
        apply(SPARSE, {"indices": tensor(rows), "values": tensor(normal(3, 6))}, tensor(base)) == tensor(expected).data
    )


def test_large_values_are_made_run_by_run() -> None:
    """Runs end inside of rows and between them; the factors of one are taken across several."""
    base, left, right = normal(700, 1500), normal(700, 3), normal(3, 1500)
    given = {"R": tensor(left), "C": tensor(right)}
    value = Tensor("F32", (700, 1500), apply(LOW_RANK, given, tensor(base)))
    assert np.allclose(np.frombuffer(value.data, "<f4"), (base + left @ right).numpy().reshape(-1), atol=1e-7)
    payload = encode(LOW_RANK.supplied(given, "F32", (700, 1500)), value, tensor(base))
    assert len(payload) < len(left.view(-1)) * 4 + len(right.view(-1)) * 4 + 1000
    assert decode(LOW_RANK, payload, len(value.data), tensor(base)) == value.data
    wide = normal(2, 800_000)
    made = apply(LOW_RANK, {"R": tensor(normal(2, 1)), "C": tensor(normal(1, 800_000))}, tensor(wide))
    assert np.allclose(
        np.frombuffer(made, "<f4"), (wide + normal(2, 1) @ normal(1, 800_000)).numpy().reshape(-1), atol=1e-7
    )
    scaled = apply(IA3, {"ia3": tensor(normal(1500))}, tensor(base))
    assert scaled == tensor(base * normal(1500)).data


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_specification_is_enough(data: st.DataObject) -> None:
    """Any bits in the base (NaNs, infinities, subnormals), any finite factors, any value at all."""
    dtype, factor = data.draw(st.sampled_from(FLOATS)), data.draw(st.sampled_from(FLOATS))
    rows, rank, columns = (data.draw(st.integers(1, 4)) for _ in range(3))
    word = DTYPES[dtype].word

    def bits(count: int, of: str) -> bytes:
        tops = st.sampled_from(["0000", "0080", "0100", "807f", "c07f", "ffff", "7f7f", "007c", "00fc", "803f", "00bf"])
        width = DTYPES[of].word
        each = st.one_of(
            st.binary(min_size=width, max_size=width),
            tops.map(lambda top: bytes.fromhex(top).rjust(width, b"\1")[-width:]),
        )
        return b"".join(data.draw(st.lists(each, min_size=count, max_size=count)))

    def plain(*shape: int) -> Tensor:
        floats = st.floats(-100, 100, width=16)
        numbers = data.draw(st.lists(floats, min_size=math.prod(shape), max_size=math.prod(shape)))
        return tensor(torch.tensor(numbers, dtype=torch.float64).view(shape).to(TORCH[factor]))

    base = Tensor(dtype, (rows, columns), bits(rows * columns, dtype))
    value = Tensor(dtype, (rows, columns), data.draw(st.sampled_from([base.data, bits(rows * columns, dtype)])))
    given = {"R": plain(rows, rank), "C": plain(rank, columns), "scaling": tensor(torch.tensor(0.7))}
    if data.draw(st.booleans()):
        given["rounded"] = tensor(torch.tensor(0.0, dtype=TORCH[data.draw(st.sampled_from(FLOATS))]))
    for update, tensors in ((LOW_RANK, given), (IA3, {"ia3": plain(rows, 1)})):
        assert isinstance(update, Supplier)
        supplied = update.supplied(tensors, dtype, base.shape)
        for wanted in (value.data, b"".join(supplied.apply(stream(base)))):
            payload = encode(supplied, Tensor(dtype, base.shape, wanted), base)
            assert decode(supplied, payload, len(wanted), base) == wanted
            assert independent_reader.UPDATES[supplied.name](payload, rows * columns * word, base.data) == wanted


def test_what_is_decoded_depends_on_no_threads_and_no_library() -> None:
    """The products that numpy and torch make, with any number of threads, differ; what we make does not."""
    left, right, base = normal(256, 48), normal(48, 256), normal(256, 256)
    update = LOW_RANK.supplied({"R": tensor(left), "C": tensor(right)}, "F32", (256, 256))
    made = {b"".join(update.apply(stream(tensor(base))))}
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for product in (left @ right, torch.from_numpy(left.numpy() @ right.numpy())):
                value = tensor(base + product)
                payload = encode(update, value, tensor(base))
                assert decode(LOW_RANK, payload, len(value.data), tensor(base)) == value.data
            made.add(b"".join(update.apply(stream(tensor(base)))))
    finally:
        torch.set_num_threads(threads)
    assert len(made) == 1


def test_factors_are_found_in_a_difference() -> None:
    merged = BASE + normal(300, 4) @ normal(4, 200)
    payload = encode(DETECTED, tensor(merged), tensor(BASE))
    assert len(payload) < BASE.numel() * 4 / 8
    assert decode(LOW_RANK, payload, BASE.numel() * 4, tensor(BASE)) == tensor(merged).data
    assert (
        DETECTED.encode(
            SourceValue(BytesSource(tensor(BASE + normal(300, 200)).data), 0, BASE.numel() * 4, "F32", (300, 200)),
            [stream(tensor(BASE))],
        )
        is None
    )


REFUSED: Sequence[tuple[Supplier, Mapping[str, torch.Tensor], str, tuple[int, ...], str]] = [
    (LOW_RANK, {"R": normal(3, 2)}, "F32", (3, 5), "'C' is missing"),
    (LOW_RANK, {"R": normal(3, 2), "C": normal(2, 5), "D": normal(1)}, "F32", (3, 5), "'D' is supplied"),
    (LOW_RANK, {"R": normal(3, 2), "C": normal(3, 5)}, "F32", (3, 5), "not the same rank"),
    (LOW_RANK, {"R": normal(3, 2), "C": normal(2, 4)}, "F32", (3, 5), r"R and C make \[3, 4\]"),
    (LOW_RANK, {"R": normal(3), "C": normal(2, 5)}, "F32", (3, 5), "must be a matrix"),
    (LOW_RANK, {"R": normal(3, 2), "C": normal(2, 5)}, "I8", (3, 5), "dtype I8"),
    (LOW_RANK, {"R": torch.zeros(3, 2, dtype=torch.int32), "C": normal(2, 5)}, "F32", (3, 5), "R is of dtype I32"),
    (LOW_RANK, {"R": normal(3, 2) * math.nan, "C": normal(2, 5)}, "F32", (3, 5), "R holds NaN"),
    (LOW_RANK, {"R": normal(3, 2), "C": normal(2, 5), "scaling": normal(2)}, "F32", (3, 5), "must be one number"),
    (LOW_RANK, {"R": normal(3, 2000), "C": normal(2000, 5)}, "F32", (3, 5), "too large"),
    (LOW_RANK, {"R": normal(15, 2), "C": normal(2, 1)}, "F32", (15,), "shape is"),
    (IA3, {"ia3": normal(4, 1)}, "F32", (3, 5), "does not broadcast"),
    (IA3, {"ia3": normal(2, 3, 5)}, "F32", (3, 5), "does not broadcast"),
    (IA3, {"ia3": normal(3, 1) / 0}, "F32", (3, 5), "NaN or infinity"),
    (IA3, {"ia3": normal(3, 1)}, "U8", (3, 5), "dtype U8"),
    (SPARSE, {"indices": torch.tensor([15]), "values": normal(1)}, "F32", (3, 5), "leave its shape"),
    (SPARSE, {"indices": torch.tensor([-1]), "values": normal(1)}, "F32", (3, 5), "leave its shape"),
    (SPARSE, {"indices": torch.tensor([[0, 5]]), "values": normal(1)}, "F32", (3, 5), "leave its shape"),
    (SPARSE, {"indices": torch.tensor([1, 1]), "values": normal(2)}, "F32", (3, 5), "twice"),
    (SPARSE, {"indices": torch.tensor([1]), "values": normal(2)}, "F32", (3, 5), "do not fit"),
    (SPARSE, {"indices": normal(1), "values": normal(1)}, "F32", (3, 5), "indices are of dtype F32"),
    (SPARSE, {"indices": torch.tensor([1]), "values": normal(1)}, "BF16", (3, 5), "of dtype BF16"),
    (SPARSE, {"indices": torch.tensor([0]), "values": normal(1)}, "F32", (3, 0), "no elements"),
    (DENSE, {"value": normal(3, 4)}, "F32", (3, 5), r"F32 \[3, 5\], and what is supplied for it F32 \[3, 4\]"),
]


@pytest.mark.parametrize(
    ("update", "tensors", "dtype", "shape", "message"), REFUSED, ids=[f"{i} {row[4]}" for i, row in enumerate(REFUSED)]
)
def test_what_does_not_fit_is_refused(
    update: Supplier, tensors: Mapping[str, torch.Tensor], dtype: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        update.supplied({name: tensor(value) for name, value in tensors.items()}, dtype, shape)


def test_a_payload_that_claims_much_takes_little() -> None:
    """Ranks, columns and sections that are not there, of values that are said to be large."""
    header = struct.Struct("<BBBBIQdQQ")
    base = Tensor("F32", (4,), bytes(16))
    codes = [(2, 2, 2, 255), (3, 2, 2, 255), (9, 2, 2, 255), (2, 2, 2, 9)]
    sizes = [(1024, 2**13), (2**32 - 1, 2**63), (1, 2**63), (0, 4), (1, 0)]
    tracemalloc.start()
    try:
        for kinds, (rank, columns), scaling, section in itertools.product(codes, sizes, (1.0, math.inf), (0, 2**63, 5)):
            payload = header.pack(*kinds, rank, columns, scaling, section, section) + bytes(64)
            for size in (16, 2**40):
                with pytest.raises(DamagedObjectError):
                    decode(LOW_RANK, payload, size, base)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * 2**20
