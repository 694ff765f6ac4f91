"""What a file says beside its tensors: read from real files, and refused from hostile ones."""

import collections
import io
import json
import pickle
import tracemalloc
import zipfile
from argparse import Namespace
from pathlib import PurePosixPath

import numpy as np
import pytest
import safetensors.numpy
import torch

from git_theta import layout as layouts
from git_theta import scalars
from git_theta.checkpoint import segment
from git_theta.layout import Layout
from git_theta.scalars import Difference, Scalar, differences
from git_theta.source import BytesSource


def read(content: bytes) -> dict[str, Scalar]:
    source = BytesSource(content)
    name, spans = segment(source)
    return scalars.read(name, layouts.build(spans, source))


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)  # type: ignore[arg-type]  # the tests name options of torch.save
    return buffer.getvalue()


def archive(data: bytes) -> bytes:
    """A file as torch writes it, of a pickle by anyone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("m/data.pkl", data)
        file.writestr("m/version", "3\n")
    return buffer.getvalue()


def test_metadata_of_safetensors() -> None:
    tensors = {"w": np.ones((300, 300), "<f4")}
    metadata = {"epoch": "3", "a/b": "x", "0": "zero", "": "é\x1b"}
    assert read(safetensors.numpy.save(tensors, metadata)) == metadata
    assert read(safetensors.numpy.save(tensors)) == {}


def test_numbers_and_strings_of_torch() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.BatchNorm1d(300))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-5, betas=(0.8, 0.99))
    model(torch.randn(4, 300)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "done": False,
        "note": None,
        "args": Namespace(seed=7, name="run"),
        "history": [1.5, float("nan")],
        5: "five",
    }
    found = read(saved(checkpoint))
    assert found["epoch"] == 3
    assert found["done"] is False
    assert found["note"] is None
    assert (found["args/seed"], found["args/name"]) == (7, "run")
    assert found["history/0"] == 1.5
    assert found["5"] == "five"
    assert found["optimizer/param_groups/0/lr"] == 2e-5
    assert (found["optimizer/param_groups/0/betas/0"], found["optimizer/param_groups/0/betas/1"]) == (0.8, 0.99)
    assert not [name for name in found if name.startswith("model/0") or "exp_avg" in name], (
        "a tensor's shape is its own"
    )
    assert found.keys() >= {"model/_metadata//version"}


def test_numbers_and_strings_of_torch_before_archives() -> None:
    checkpoint = {"epoch": 3, "w": torch.ones(300, 300), "lr": 2e-5}
    content = saved(checkpoint, _use_new_zipfile_serialization=False)
    assert read(content) == {"epoch": 3, "lr": 2e-5}
    start = content.index(b"epoch")
    parts = (layouts.Part(None, start), layouts.Part("w", 5), layouts.Part(None, len(content) - start - 5))
    assert scalars.read("torch-legacy", Layout(parts, content[:start] + content[start + 5 :])) == {}


@pytest.mark.parametrize("is_archive", [True, False])
def test_shapes_devices_dtypes_paths_and_numbers_of_numpy(is_archive: bool) -> None:
    checkpoint = {
        "shape": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "cpu": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "data": PurePosixPath("/data/run"),
        "best": np.float64(0.25),
        "half": np.float16(-1.5),
        "step": np.int64(-7),
        "done": np.bool_(True),
        "when": np.datetime64(1, "s"),
    }
    assert read(saved(checkpoint, _use_new_zipfile_serialization=is_archive)) == {
        "shape/0": 2,
        "shape/1": 3,
        "device": "cuda:1",
        "cpu": "cpu",
        "dtype": "torch.bfloat16",
        "data": "/data/run",
        "best": 0.25,
        "half": -1.5,
        "step": -7,
        "done": True,
    }


def test_calls_of_such_names_with_arguments_of_others() -> None:
    """Nobody but an attacker writes these; they are no scalars, and nothing goes wrong."""
    size = b"\x80\x04c%b\n%b\n%b\x85R."
    for module, name in ((b"torch", b"Size"), (b"torch", b"device"), (b"numpy.core.multiarray", b"scalar")):
        for argument in (b"]", b"}", b"N", b")", b"C\x01a"):
            assert read(archive(size % (module, name, argument))) == {}
    pair = b"\x80\x04cnumpy.core.multiarray\nscalar\n(%btR."
    for arguments in (b"NN", b"cnumpy\ndtype\n\x8c\x02f8\x85RC\x01a", b"cnumpy\ndtype\n]\x85RC\x01a", b"K\x01C\x01a"):
        assert read(archive(pair % arguments)) == {}


def test_other_files_have_none() -> None:
    assert read(b"no checkpoint " * 100) == {}
    assert scalars.read("npz", Layout((), b"")) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("safetensors", b""),
        ("safetensors", b"\xff" * 8 + b"{}"),
        ("safetensors", b"\x02" + bytes(7) + b"[]"),
        ("safetensors", b"\x15" + bytes(7) + b'{"__metadata__": [1]}'),
        ("torch", b""),
        ("torch", b"PK\x03\x04"),
        ("torch", archive(b"\x80\x04")),
        ("torch", archive(b"cos\nsystem\n(S'true'\ntR.")),
    ],
    ids=[
        "nothing of safetensors",
        "an endless header",
        "a list for a header",
        "a list for metadata",
        "nothing of torch",
        "half an archive",
        "half a pickle",
        "a call",
    ],
)
def test_what_is_not_of_its_format_has_none(name: str, content: bytes) -> None:
    assert scalars.read(name, layouts.build((), BytesSource(content))) == {}


def test_a_pickle_that_is_no_skeleton_is_not_read() -> None:
    """Where a parameter is said to lie over the pickle, its bytes are not in the layout."""
    content = archive(pickle.dumps({"epoch": 3}))
    start = content.index(b"epoch")
    parts = (layouts.Part(None, start), layouts.Part("w", 5), layouts.Part(None, len(content) - start - 5))
    holed = Layout(parts, content[:start] + content[start + 5 :])
    assert scalars.read("torch", layouts.build((), BytesSource(content))) == {"epoch": 3}
    assert scalars.read("torch", holed) == {}


def test_a_pickle_of_more_places_than_bytes_ends() -> None:
    """A list of lists of lists, each the same one ten times: 10**9 numbers in a hundred bytes."""
    value: object = 1
    for _ in range(9):
        value = [value] * 10
    assert 0 < len(read(archive(pickle.dumps(value)))) < 1_000_000
    loop: list[object] = [7]
    loop.append(loop)
    assert read(archive(pickle.dumps(loop)))["0"] == 7


def test_a_pickle_whose_names_would_be_long_takes_little_memory() -> None:
    """A key of 900 KB above 3,000 numbers would be 2.7 GB of names; so would 1,000 paths of 3 KB above 1,000 each."""
    assert read(archive(pickle.dumps({"a" * 900_000: list(range(3000)), "b": 1}))) == {"b": 1}
    numbers = list(range(1000))
    wide = {f"{index:03000}": numbers for index in range(1000)}
    tracemalloc.start()
    try:
        assert read(archive(pickle.dumps(wide))) == {}
        assert tracemalloc.get_traced_memory()[1] < 400 * 2**20
    finally:
        tracemalloc.stop()


def test_what_differs() -> None:
    before: dict[str, Scalar] = {"a": 1, "b": 2.0, "c": None, "d": "x", "e": float("nan"), "f": 0.0, "g": 10**5000}
    after: dict[str, Scalar] = {"a": True, "b": 2.0, "d": "y", "e": float("nan"), "f": -0.0, "g": 10**5000, "h": None}
    assert differences(before, after) == [
        Difference("a", 1, True, was_there=True, is_there=True),
        Difference("c", None, None, was_there=True, is_there=False),
        Difference("d", "x", "y", was_there=True, is_there=True),
        Difference("f", 0.0, -0.0, was_there=True, is_there=True),
        Difference("h", None, None, was_there=False, is_there=True),
    ]


def test_ordered_dicts_are_dicts() -> None:
    assert read(saved(collections.OrderedDict(step=json.loads("12")))) == {"step": 12}
