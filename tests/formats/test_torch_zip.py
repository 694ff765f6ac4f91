"""The torch format: real files of torch.save and torch.jit.save, and archives that lie."""

import collections
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats import torch_objects
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.formats.torch_zip import FORMAT
from git_theta.source import BytesSource
from git_theta.tensor import View
from git_theta.testing import CheckedSource, Example, FormatTests, check_spans, try_spans
from tests.formats import pickles
from tests.formats import torch_producer as producer
from tests.formats.pickles import Call, StorageId, archive, parameter_call, tensor_call


class TestTorchFormat(FormatTests):
    format = FORMAT

    def files(self, directory: Path) -> Sequence[Example]:
        return [
            producer.state_dict(directory),
            producer.training(directory),
            producer.views(directory),
            producer.dtypes(directory),
            producer.layouts(directory),
            producer.odd(directory),
            producer.module(directory),
            producer.script(directory),
        ]


def _spans(data: bytes) -> dict[str, Span]:
    assert FORMAT.accepts(data[:HEAD_SIZE_BYTES])
    spans = FORMAT.spans(CheckedSource(data))
    check_spans(spans, len(data))
    return {span.name: span for span in spans}


def _save(value: object) -> dict[str, Span]:
    return _spans(producer.save_bytes(value))


def test_known_bytes() -> None:
    weight = torch.tensor([[1.0, 2.0]])
    data = producer.save_bytes({"weight": weight})
    offset = data.index(b"\0\0\x80\x3f\0\0\0\x40")
    assert offset % 64 == 0
    assert FORMAT.spans(BytesSource(data)) == [Span("weight", offset, 8, "F32", (1, 2))]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_protocols(protocol: int, tmp_path: Path) -> None:
    torch.save({"a": producer.numbered(2), "b": {1: producer.numbered(3)}}, tmp_path / "x.pt", pickle_protocol=protocol)
    assert list(_spans((tmp_path / "x.pt").read_bytes())) == ["a", "b/1"]


def test_tensors_come_in_the_order_in_which_they_were_saved() -> None:
    value = {
        "z": producer.numbered(1),
        "a": [producer.numbered(1), {"m": producer.numbered(1)}],
        "b": producer.numbered(1),
    }
    assert list(_save(value)) == ["z", "a/0", "a/1/m", "b"]


def test_a_tensor_saved_by_itself_has_a_name() -> None:
    assert list(_save(producer.numbered(2))) == ["tensor"]
    assert list(_save([producer.numbered(2)])) == ["0"]


def test_ties_are_views_of_the_first() -> None:
    weight = producer.numbered(2, 3)
    spans = _save({"embed": weight, "other": producer.numbered(1), "head": weight, "again": weight.view(2, 3)})
    assert list(spans) == ["embed", "other"]
    assert spans["embed"].views == (View("head", "F32", (2, 3)), View("again", "F32", (2, 3)))


def test_disjoint_slices_are_spans_and_the_rest_is_not() -> None:
    large = producer.numbered(100)
    spans = _save({"low": large[10:20], "high": large[20:24].view(2, 2)})
    low, high = spans.values()
    assert (low.size, high.size, high.shape) == (40, 16, (2, 2))
    assert high.offset == low.offset + 40


def test_overlapping_views_make_the_storage_a_span() -> None:
    shared = producer.numbered(20)
    (span,) = _save({"a/b": shared[:12], "c": shared[8:].view(3, 4), "d": shared[1::3]}).values()
    assert (span.name, span.dtype, span.shape, span.size) == ("a~1b~storage", "F32", (20,), 80)
    assert span.views == (
        View("a~1b", "F32", (12,)),
        View("c", "F32", (3, 4), 8),
        View("d", "F32", (7,), 1, (3,)),
    )


def test_views_of_several_dtypes_make_the_storage_bytes() -> None:
    storage = StorageId("0", 4)
    whole, low = tensor_call(storage, (4,)), tensor_call(StorageId("0", 2, torch.LongStorage), (1,), 1)
    (span,) = _spans(archive({"whole": whole, "low": low}, {"0": bytes(16)})).values()
    assert (span.name, span.dtype, span.shape) == ("whole~storage", "U8", (16,))
    assert span.views == (View("whole", "F32", (4,)), View("low", "I64", (1,), 1))


def test_a_view_that_repeats_elements_is_no_span_of_its_own() -> None:
    # It reaches over as many elements as it has, but has two of them twice.
    (span,) = _spans(archive({"a": tensor_call(StorageId("0", 4), (2, 2), 0, (3, 0))}, {"0": bytes(16)})).values()
    assert (span.name, span.views) == ("a~storage", (View("a", "F32", (2, 2), 0, (3, 0)),))


def test_transposed_tensor_has_strides() -> None:
    spans = _save({"t": producer.numbered(4, 5).t(), "c": producer.numbered(2, 3).t().contiguous()})
    assert (spans["t"].shape, spans["t"].strides) == ((5, 4), (1, 5))
    assert spans["c"].strides is None


def test_strides_of_dimensions_of_one_do_not_count() -> None:
    storage = StorageId("0", 6)
    plain = tensor_call(storage, (2, 1, 3), strides=(3, 77, 1))
    turned = tensor_call(StorageId("1", 6), (1, 3, 2), strides=(99, 1, 3))
    spans = _spans(archive({"plain": plain, "turned": turned}, {"0": bytes(24), "1": bytes(24)}))
    assert spans["plain"].strides is None
    assert spans["turned"].strides == (1, 1, 3)


def test_empty_tensors_and_empty_views_have_spans() -> None:
    shared = producer.numbered(8)
    spans = _save({"none": torch.empty(0, 3), "all": shared, "view": shared[3:3]})
    assert [(span.name, span.size, span.shape) for span in spans.values()] == [
        ("none", 0, (0, 3)),
        ("all", 32, (8,)),
        ("view", 0, (0,)),
    ]


def test_module_names_are_those_of_its_state_dict() -> None:
    block = producer.Block()
    names = {key.replace(".", "/") for key in block.state_dict()}
    assert set(_save(block)) == names | {"cached"}
    assert set(_save({"model": block})) == {f"model/{name}" for name in names | {"cached"}}


def test_names_that_would_be_equal_are_kept_apart() -> None:
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(producer.numbered(2)))
    module.register_buffer("bias", producer.numbered(3))
    module.__dict__ = {"weight": producer.numbered(4), **module.__dict__}
    assert list(_save(module)) == ["weight", "_parameters/weight", "bias"]
    # Two keys that are no strings and read the same are numbered.
    keys: dict[object, torch.Tensor] = {1.0: producer.numbered(1), Path("1.0"): producer.numbered(2)}
    equal = collections.OrderedDict([(float("nan"), producer.numbered(1)), (float("nan"), producer.numbered(2))])
    assert len(_save(keys)) == 2
    assert list(_save(equal)) == ["~knan", "~knan~2"]


def test_tensors_of_subclasses_that_rebuild_themselves_are_looked_into() -> None:
    calls = [
        Call(
            torch._tensor._rebuild_from_type_v2,
            (Unknown, torch.Tensor, (tensor_call(StorageId(str(key), 1), (1,)),), {}),
        )
        for key in range(50)
    ]
    spans = _spans(archive(calls, {str(key): bytes(4) for key in range(50)}))
    assert list(spans) == [f"{key}/0" for key in range(50)]


def test_keys_of_any_size_have_short_names() -> None:
    value: dict[object, object] = {1 << 100_000: tensor_call(StorageId("0", 1), (1,))}
    value[("x" * 3000, "y" * 3000)] = tensor_call(StorageId("1", 1), (1,))
    value[(Path("z"),)] = tensor_call(StorageId("2", 1), (1,))
    value[torch.float32] = tensor_call(StorageId("3", 1), (1,))
    spans = _spans(archive(value, {str(key): bytes(4) for key in range(4)}))
    assert list(spans) == ["int", "~k('Record',)", "torch.float32", "~storage/data/1"]


def test_state_of_a_tensor_subclass_is_looked_into() -> None:
    parameter = torch.nn.Parameter(producer.numbered(2))
    parameter.scale = producer.numbered(3)  # type: ignore[attr-defined]  # any attribute can be set on a tensor
    assert list(_save({"w": parameter})) == ["w", "w/scale"]


def test_ordered_dict_of_python_2_is_a_dict() -> None:
    items = [["a", tensor_call(StorageId("0", 1), (1,))], ["b", tensor_call(StorageId("1", 1), (1,))]]
    value = Call(collections.OrderedDict, (items,))
    assert list(_spans(archive(value, {"0": bytes(4), "1": bytes(4)}))) == ["a", "b"]


def test_bare_storages_are_tensors() -> None:
    storage = producer.numbered(3).untyped_storage()
    (span,) = _save({"s": storage}).values()
    assert (span.name, span.dtype, span.shape) == ("s", "U8", (12,))


def test_meta_tensors_have_no_span() -> None:
    assert list(_save({"meta": torch.empty(3, device="meta"), "real": producer.numbered(1)})) == ["real"]
    assert _spans(archive(tensor_call(StorageId("0", 1), (1,)), {})) == {}


class Unknown:
    """A class that nobody else has, with a tensor in every place that a pickle has for one."""

    def __init__(self) -> None:
        self.inner = {"deep": producer.numbered(1)}

    def __reduce__(self) -> tuple[object, ...]:
        members, items = iter([producer.numbered(4)]), iter([("k", producer.numbered(5))])
        return Unknown, (producer.numbered(2),), {"state": producer.numbered(3)}, members, items

    def append(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...


def test_unknown_classes_are_looked_into() -> None:
    assert {name: span.shape for name, span in _save({"u": Unknown()}).items()} == {
        "u/0": (2,),
        "u/k": (5,),
        "u/0~2": (4,),
        "u/state": (3,),
    }


class Slotted:
    """A class with attributes in slots beside those in its dict."""

    __slots__ = ("__dict__", "left")

    def __init__(self) -> None:
        self.left = producer.numbered(1)
        self.right = producer.numbered(2)


def test_state_of_slots_is_looked_into() -> None:
    assert list(_save({"s": Slotted()})) == ["s/right", "s/left"]


class Stated:
    """An object whose state is whatever its class understands."""

    def __init__(self, state: object = None) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        return Stated, (), self.state


def test_state_that_is_no_dict_is_looked_into() -> None:
    shared = {"x": producer.numbered(3)}
    value = {
        "list": Stated([1, producer.numbered(1)]),
        "tensor": Stated(producer.numbered(2)),
        "number": Stated(3),
        "shared": Stated(shared),
        "again": Stated(shared),
    }
    assert list(_save(value)) == ["list/1", "tensor", "shared/x"]


def test_parts_of_an_unknown_layout_are_numbered() -> None:
    parts = tuple(tensor_call(StorageId(str(key), 1), (1,)) for key in range(2))
    rebuild = torch._utils._rebuild_sparse_tensor
    value = {"old": Call(rebuild, (torch.strided, (*parts, 3))), "none": Call(rebuild, (None, parts))}
    spans = _spans(archive(value, {"0": bytes(4), "1": bytes(4)}))
    assert list(spans) == ["old/0", "old/1"]
    assert [view.name for span in spans.values() for view in span.views] == ["none/0", "none/1"]


def test_shapes_may_be_of_the_class_size() -> None:
    args = (StorageId("0", 6), 0, torch.Size([2, 3]), (3, 1), False, collections.OrderedDict[str, object]())
    assert _spans(archive(Call(torch._utils._rebuild_tensor_v2, args), {"0": bytes(24)}))["tensor"].shape == (2, 3)


def test_quantised_tensor_that_makes_no_sense_leaves_its_storage() -> None:
    args = (StorageId("0", 4, torch.QInt8Storage), -1, (4,), (1,), None, False, None)
    assert _spans(archive({"q": Call(torch._utils._rebuild_qtensor, args)}, {"0": bytes(4)}))["q/0"].dtype == "QI8"


@pytest.mark.parametrize("dtype", ["uint1", "bits8", "float4_e2m1fn_x2", "quint4x2"])
def test_dtype_that_we_do_not_know_is_opaque(dtype: str) -> None:
    storage = StorageId("0", 8, torch.UntypedStorage)
    rest = (False, collections.OrderedDict[str, object](), getattr(torch, dtype))
    first = Call(torch._utils._rebuild_tensor_v3, (storage, 0, (8,), (1,), *rest))
    second = Call(torch._utils._rebuild_tensor_v3, (storage, 4, (4,), (1,), *rest))
    (span,) = _spans(archive({"a": first, "b": second}, {"0": bytes(8)})).values()
    assert (span.name, span.dtype, span.shape, span.views) == ("a", "opaque", (8,), (View("b", "opaque", (8,)),))


def test_storage_that_no_tensor_uses_is_opaque() -> None:
    data = archive(
        {"a": tensor_call(StorageId("0", 1), (1,))},
        {"0": bytes(4), "1": bytes(100), "x~/2": b"y", "3": b"", "4" * 5000: b"z", "01": b"1"},
    )
    unused = [span for span in _spans(data).values() if span.name.startswith("~")]
    assert [(span.name, span.dtype, span.shape) for span in unused] == [
        ("~storage/data/1", "opaque", (100,)),
        ("~storage/data/x~0/2", "opaque", (1,)),
        ("~storage/data/~s01", "opaque", (1,)),
    ]


def test_other_entries_have_no_span() -> None:
    entries = pickles.unpack(producer.save_bytes({"a": producer.numbered(2)}))
    assert list(_spans(pickles.pack(entries | {"code/x.py": b"x" * 100_000}))) == ["a"]


def test_big_endian_tensors_are_opaque() -> None:
    shared = producer.numbered(8)
    entries = pickles.unpack(producer.save_bytes({"a": shared, "b": shared, "c": producer.numbered(1)}))
    spans = _spans(pickles.pack(entries | {"byteorder": b"big"}))
    assert {name: (span.dtype, span.shape) for name, span in spans.items()} == {
        "a": ("opaque", (32,)),
        "c": ("opaque", (4,)),
    }
    assert spans["a"].views == (View("b", "opaque", (32,)),)


def test_compressed_storages_are_opaque_unless_small() -> None:
    noise = torch.frombuffer(bytearray(os.urandom(200_000)), dtype=torch.uint8)
    entries = pickles.unpack(producer.save_bytes({"large": noise, "small": torch.zeros(9), "plain": torch.zeros(3)}))
    spans = _spans(pickles.pack(entries, deflated=("data/0", "data/1")))
    assert list(spans) == ["large", "plain"]
    assert spans["large"].dtype == "opaque"
    assert spans["plain"].dtype == "F32"


def test_a_storage_may_be_shorter_than_its_entry() -> None:
    (span,) = _spans(archive({"a": tensor_call(StorageId("0", 2), (2,))}, {"0": bytes(100)})).values()
    assert span.size == 8


def test_a_file_without_byteorder_is_little_endian() -> None:
    entries = pickles.unpack(producer.save_bytes({"a": producer.numbered(2)}))
    del entries["byteorder"], entries[".format_version"], entries[".storage_alignment"], entries["version"]
    assert _spans(pickles.pack(entries))["a"].dtype == "F32"


def _replaced(name: str, value: bytes | None) -> bytes:
    entries = pickles.unpack(producer.save_bytes({"a": producer.numbered(4)}))
    if value is None:
        del entries[name]
    else:
        entries[name] = value
    return pickles.pack(entries)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_replaced("data.pkl", None), id="no data.pkl"),
        pytest.param(_replaced("data.pkl", b""), id="empty data.pkl"),
        pytest.param(_replaced("data.pkl", b"\x80\x02N"), id="cut data.pkl"),
        pytest.param(_replaced("data/0", bytes(15)), id="storage one byte short"),
        pytest.param(_replaced("data/0", b""), id="empty storage"),
        pytest.param(_replaced("byteorder", b"x" * 17), id="byteorder too long"),
        pytest.param(pickles.pack({"data.pkl": b"N."}, deflated=("data.pkl",)), id="compressed data.pkl"),
        pytest.param(pickles.pack({}), id="no entries"),
        pytest.param(pickles.pack({"data.pkl": b"N."}, root=""), id="no root folder"),
        pytest.param(archive(tensor_call(StorageId("0", 4), (5,)), {"0": bytes(16)}), id="tensor behind its storage"),
        pytest.param(
            archive(tensor_call(StorageId("0", 4), (1,), 4), {"0": bytes(16)}), id="offset behind the storage"
        ),
        pytest.param(archive(tensor_call(StorageId("0", 4), (2,), 0, (4,)), {"0": bytes(16)}), id="stride leaves it"),
        pytest.param(archive(tensor_call(StorageId("0", 2**61), (1,)), {"0": bytes(16)}), id="storage of 2**63 bytes"),
        pytest.param(
            archive(tensor_call(StorageId("0", 4), (2**62, 2**62), 0, (0, 0)), {"0": bytes(16)}), id="shape of 2**126"
        ),
    ],
)
def test_archive_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(data))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(tensor_call(StorageId("0", 4), (-1,)), id="negative dimension"),
        pytest.param(tensor_call(StorageId("0", 4), (4,), -1), id="negative offset"),
        pytest.param(tensor_call(StorageId("0", 4), (4,), 0, (-1,)), id="negative stride"),
        pytest.param(tensor_call(StorageId("0", 4), (4,), 0, (1, 1)), id="two strides for one dimension"),
        pytest.param(tensor_call(StorageId("0", 4), (2.0,)), id="dimension that is no integer"),
        pytest.param(tensor_call(StorageId("0", 4), (1 << 20_000,)), id="dimension of 20,000 bits"),
        pytest.param(tensor_call(StorageId("0", 4), (1,) * 65), id="rank 65"),
    ],
)
def test_tensor_that_makes_no_sense_leaves_its_storage(value: object) -> None:
    (span,) = _spans(archive({"w": value}, {"0": bytes(16)})).values()
    assert (span.name, span.dtype, span.shape) == ("w/0", "F32", (4,))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(tensor_call(StorageId("0", -4), (1,)), id="storage of negative length"),
        pytest.param(tensor_call(StorageId("0", 1 << 20_000), (1,)), id="storage length of 20,000 bits"),
        pytest.param(Call(torch._utils._rebuild_tensor_v2, (1, 2)), id="arguments missing"),
        pytest.param({"a" * 5000: tensor_call(StorageId("0", 4), (4,))}, id="name too long"),
        pytest.param(parameter_call(None, None), id="parameter of nothing"),
    ],
)
def test_tensor_that_has_no_storage_is_left_out(value: object) -> None:
    (span,) = _spans(archive(value, {"0": bytes(16)})).values()
    assert (span.name, span.dtype) == ("~storage/data/0", "opaque")


def _nested(depth: int, step: Callable[[object], object]) -> bytes:
    value: object = tensor_call(StorageId("0", 1), (1,))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20 * depth))
    try:
        for _ in range(depth):
            value = step(value)
        return archive(value, {"0": bytes(4)})
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("step", "names"),
    [
        pytest.param(lambda value: [value, value], ["/".join(["0"] * 60)], id="lists"),
        pytest.param(lambda value: (value, value), ["/".join(["0"] * 60)], id="tuples"),
        pytest.param(lambda value: {"a": value, "b": value}, ["/".join(["a"] * 60)], id="dicts"),
        pytest.param(lambda value: Call(Unknown, (value, value)), ["/".join(["0"] * 60)], id="calls"),
    ],
)
def test_shared_objects_do_not_multiply(step: Callable[[object], object], names: Sequence[str]) -> None:
    spans = _spans(_nested(60, step))
    (span,) = spans.values()
    assert span.name == names[0]
    assert len(span.views) == 1  # the innermost object holds the tensor twice


def test_shared_parameters_do_not_multiply() -> None:
    (span,) = _spans(_nested(60, lambda value: parameter_call(value, {"s": value}))).values()
    assert len(span.views) <= 60 * 60


def test_cycles_end() -> None:
    loop: list[object] = [producer.numbered(2)]
    loop.append({"again": loop})
    assert list(_save({"loop": loop})) == ["loop/0"]


def test_deep_nesting_is_walked_as_far_as_names_go() -> None:
    data = pickles.dump(tensor_call(StorageId("0", 1), (1,)))[2:-1]  # without PROTO and STOP
    deep = b"\x80\x02" + data + b"\x85" * 100_000 + b"."
    shallow = b"\x80\x02" + data + b"\x85" * 500 + b"."
    assert list(_spans(pickles.pack({"data.pkl": deep, "data/0": bytes(4)}))) == ["~storage/data/0"]
    assert list(_spans(pickles.pack({"data.pkl": shallow, "data/0": bytes(4)}))) == ["/".join("0" * 500)]


@pytest.mark.parametrize("limit", ["MAX_STEPS", "MAX_PATH_CHARACTERS", "MAX_SPANS"])
def test_work_is_bounded(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = producer.save_bytes([producer.numbered(1) for _ in range(20)])
    monkeypatch.setattr(torch_objects, limit, 10)
    with pytest.raises(FormatError):
        FORMAT.spans(BytesSource(data))


class Runs:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    command = f"{sys.executable} -c \"open({str(marker)!r}, 'w')\""
    torch.save({"w": producer.numbered(2), "x": Runs(command)}, tmp_path / "evil.pt")
    data = (tmp_path / "evil.pt").read_bytes()
    assert list(_spans(data)) == ["w"]
    assert not marker.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert marker.exists(), "the file must be one that would have run"


def test_a_zip_bomb_is_not_expanded() -> None:
    entries = {"data.pkl": pickles.dump({"a": tensor_call(StorageId("0", 10**8), (10**8,))}), "data/0": bytes(10**8)}
    data = pickles.pack(entries, deflated=("data/0",))
    (span,) = _spans(data).values()
    assert (span.name, span.dtype) == ("a", "opaque")
    assert span.size < len(data) < 10**6


_ENTRIES: Mapping[str, bytes] = pickles.unpack(
    producer.save_bytes({"model": producer.Block().state_dict(), "more": [producer.numbered(4).t(), 3, None]})
)


@given(st.integers(0, len(_ENTRIES["data.pkl"]) - 1), st.binary(min_size=1, max_size=3))
def test_changed_pickles_are_refused_or_keep_the_rules(at: int, value: bytes) -> None:
    pickle = _ENTRIES["data.pkl"]
    try_spans(FORMAT, pickles.pack({**_ENTRIES, "data.pkl": pickle[:at] + value + pickle[at + len(value) :]}))


@given(st.binary(max_size=200))
def test_arbitrary_pickles_are_refused_or_keep_the_rules(data: bytes) -> None:
    try_spans(FORMAT, pickles.pack({**_ENTRIES, "data.pkl": data + b"."}))


_SMALL = st.integers(-1, 6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.FloatStorage, torch.ByteStorage, torch.LongStorage, torch.UntypedStorage]),
            st.integers(0, 40),
            st.integers(0, 3).flatmap(lambda rank: st.tuples(*([st.tuples(*[_SMALL] * rank)] * 2))),
            _SMALL,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_arbitrary_geometry_is_refused_or_keeps_the_rules(
    uses: list[tuple[object, int, tuple[tuple[int, ...], tuple[int, ...]], int]],
) -> None:
    value = [
        tensor_call(StorageId("0", numel, kind), shape, offset, strides)
        for kind, numel, (shape, strides), offset in uses
    ]
    try_spans(FORMAT, archive(value, {"0": bytes(160)}))
