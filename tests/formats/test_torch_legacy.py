"""The torch-legacy format: real files of torch.save's old layout, and files that lie."""

import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats import inert_pickle, torch_legacy
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.formats.torch_legacy import FORMAT
from git_theta.tensor import View
from git_theta.testing import CheckedSource, Example, FormatTests, check_spans, try_spans
from tests.formats import pickles
from tests.formats import torch_producer as producer
from tests.formats.pickles import StorageId, tensor_call

_MAGIC = 0x1950A86A20F9469CFC6C
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class TestTorchLegacyFormat(FormatTests):
    format = FORMAT

    def files(self, directory: Path) -> Sequence[Example]:
        return [
            producer.state_dict(directory, zipped=False),
            producer.training(directory, zipped=False),
            producer.views(directory, zipped=False),
            producer.dtypes(directory, zipped=False),
            producer.layouts(directory, zipped=False),
            producer.odd(directory, zipped=False),
            producer.module(directory, zipped=False),
        ]


def _file(
    value: object,
    storages: Mapping[str, tuple[int, bytes]],
    *,
    magic: object = _MAGIC,
    version: object = 1001,
    keys: object = None,
    protocol: int = 2,
) -> bytes:
    """A file with these storages, each a number of elements and its bytes."""
    heads = [magic, version, _SYSTEM]
    parts = [pickle.dumps(head, protocol) for head in heads]
    parts.append(pickles.dump(value, legacy=True, protocol=protocol))
    parts.append(pickle.dumps(list(storages) if keys is None else keys, protocol))
    return b"".join(parts) + b"".join(struct.pack("<q", count) + data for count, data in storages.values())


def _spans(data: bytes) -> dict[str, Span]:
    assert FORMAT.accepts(data[:HEAD_SIZE_BYTES])
    spans = FORMAT.spans(CheckedSource(data))
    check_spans(spans, len(data))
    return {span.name: span for span in spans}


_ONE = tensor_call(StorageId("10", 2), (2,))


def test_known_bytes() -> None:
    data = producer.save_bytes({"w": torch.tensor([1.0, 2.0])}, zipped=False)
    assert data.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    assert data.endswith(b"\2\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\x40")
    assert FORMAT.spans(CheckedSource(data)) == [Span("w", len(data) - 8, 8, "F32", (2,))]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_protocols(protocol: int) -> None:
    assert list(_spans(_file({"w": _ONE}, {"10": (2, bytes(8))}, protocol=protocol))) == ["w"]


def test_storages_lie_in_the_order_of_their_keys() -> None:
    value = {"a": tensor_call(StorageId("20", 2), (2,)), "b": tensor_call(StorageId("10", 3), (3,))}
    spans = _spans(_file(value, {"10": (3, bytes(12)), "20": (2, bytes(8))}))
    assert spans["b"].offset + spans["b"].size + 8 == spans["a"].offset


def test_length_is_counted_in_the_dtype_that_comes_first() -> None:
    # A list of a storage and a tensor on it: the storage is written as bytes, the tensor refers to floats.
    storage, tensor = StorageId("10", 8, torch.ByteStorage), tensor_call(StorageId("10", 2), (2,))
    (span,) = _spans(_file([storage, tensor], {"10": (8, bytes(8))})).values()
    assert (span.name, span.dtype, span.size) == ("0~storage", "U8", 8)
    assert span.views == (View("0", "U8", (8,)), View("1", "F32", (2,)))


def test_storage_views_of_old_torch_count_from_where_they_begin() -> None:
    view = StorageId("10", 6, view=("11", 2, 4))
    data = _file({"w": tensor_call(view, (3,), 1), "bare": view}, {"10": (6, bytes(24))})
    (span,) = _spans(data).values()
    assert (span.name, span.offset, span.size) == ("w", len(data) - 12, 12)


def test_source_code_of_modules_is_skipped() -> None:
    # Module classes have a persistent id of their own in this format, with their source code.
    data = producer.save_bytes({"net": torch.nn.Linear(2, 2)}, zipped=False)
    assert b"class Linear" in data
    assert list(_spans(data)) == ["net/weight", "net/bias"]


def test_storage_that_no_tensor_uses_goes_by_its_rank() -> None:
    value = {"long name" * 500: tensor_call(StorageId("93940", 2), (2,)), "w": _ONE}
    assert list(_spans(_file(value, {"10": (2, bytes(8)), "93940": (2, bytes(8))}))) == ["w", "~storage/0"]


def test_pickles_longer_than_the_first_read() -> None:
    text = "x" * (2 * torch_legacy._FIRST_READ_BYTES)
    assert list(_spans(_file({"text": text, "w": _ONE}, {"10": (2, bytes(8))}))) == ["w"]


def test_pickles_above_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _file({"text": "x" * 1000, "w": _ONE}, {"10": (2, bytes(8))})
    monkeypatch.setattr(inert_pickle, "MAX_SIZE_BYTES", 500)
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(data))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, magic=1), id="another magic number"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, magic=[_MAGIC]), id="magic number in a list"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, version=1002), id="another version"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, keys="10"), id="keys no list"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, keys=[10]), id="key no string"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8))}, keys=["11"]), id="key of no storage"),
        pytest.param(_file(_ONE, {"10": (2, bytes(8) + b"\2" + bytes(15))}, keys=["10", "10"]), id="key twice"),
        pytest.param(_file(_ONE, {"10": (3, bytes(12))}), id="another number of elements"),
        pytest.param(_file(_ONE, {"10": (-1, bytes(8))}), id="negative number of elements"),
        pytest.param(_file(_ONE, {"10": (2, bytes(7))}), id="one byte short"),
        pytest.param(_file(_ONE, {"10": (2, b"")}), id="no bytes"),
        pytest.param(_file(tensor_call(StorageId("10", 2**61), (1,)), {"10": (2**61, bytes(8))}), id="2**63 bytes"),
        pytest.param(
            _file(tensor_call(StorageId("10", 2), (3,)), {"10": (2, bytes(8))}), id="tensor behind its storage"
        ),
        pytest.param(
            _file(tensor_call(StorageId("10", 4, view=("11", 2, 2)), (3,)), {"10": (4, bytes(16))}),
            id="tensor behind the storage it views",
        ),
        pytest.param(
            _file(tensor_call(StorageId("10", 2, torch.Tensor), (1,)), {"10": (2, bytes(8))}),
            id="unknown storage class",
        ),
    ],
)
def test_file_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(data))


_SAMPLE = _file(
    {"w": _ONE, "v": tensor_call(StorageId("20", 6), (2, 3), 0, (1, 2))}, {"10": (2, bytes(8)), "20": (6, bytes(24))}
)


@pytest.mark.parametrize("size", range(len(_SAMPLE)))
def test_cut_file_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(_SAMPLE[:size]))


@given(st.integers(0, len(_SAMPLE) - 1), st.binary(min_size=1, max_size=3))
def test_changed_files_are_refused_or_keep_the_rules(at: int, value: bytes) -> None:
    try_spans(FORMAT, _SAMPLE[:at] + value + _SAMPLE[at + len(value) :])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_keep_the_rules(data: bytes) -> None:
    try_spans(FORMAT, data)
    try_spans(FORMAT, _SAMPLE[:16] + data)
