"""A file with some parameters' bytes replaced is one that its own library reads."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from git_theta import splice
from git_theta.checkpoint import segment
from git_theta.errors import InputError
from git_theta.source import BytesSource

OLD = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.arange(4, dtype="<f4"), "c": np.zeros((0, 2), "<f4")}
NEW = OLD | {"a": OLD["a"] + 100}


def torch_zip(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, buffer)
    return buffer.getvalue()


def torch_legacy(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stubs mix the arrays up with allow_pickle
    return buffer.getvalue()


def streamed_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """One written to a pipe: checksums stand behind the entries, and zeros in their headers."""
    whole = io.BytesIO(npz(arrays))

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += memoryview(data)  # type: ignore[arg-type]  # zipfile writes bytes
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(pipe, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return bytes(pipe.data)


def spliced(folder: Path, content: bytes, values: dict[str, bytes]) -> bytes:
    source = BytesSource(content)
    name, spans = segment(source)

    def runs(value: bytes) -> Callable[[], Iterator[bytes | memoryview]]:
        return lambda: iter([value[:5], memoryview(value)[5:]])

    fd = os.open(folder / "made", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        splice.write(source, name, spans, {key: runs(value) for key, value in values.items()}, fd)
    finally:
        os.close(fd)
    return (folder / "made").read_bytes()


def loaded(content: bytes) -> dict[str, bytes]:
    if content.startswith(b"PK") and b".npy" in content:
        with np.load(io.BytesIO(content)) as file:
            return {name: file[name].tobytes() for name in file.files}
    return {name: value.numpy().tobytes() for name, value in torch.load(io.BytesIO(content)).items()}


@pytest.mark.parametrize("write", [torch_zip, torch_legacy, npz, streamed_npz])
def test_libraries_read_what_was_made(tmp_path: Path, write: Callable[[dict[str, np.ndarray]], bytes]) -> None:
    old = write(OLD)
    made = spliced(tmp_path, old, {"a": NEW["a"].tobytes()})
    assert len(made) == len(old)
    assert loaded(made) == {name: array.tobytes() for name, array in NEW.items()}
    if made.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(made)) as file:
            assert file.testzip() is None
    assert spliced(tmp_path, made, {"a": OLD["a"].tobytes()}) == old


def test_made_file_is_what_its_library_would_write(tmp_path: Path) -> None:
    assert spliced(tmp_path, npz(OLD), {"a": NEW["a"].tobytes()}) == npz(NEW)


def test_files_longer_than_a_chunk_are_copied_whole(tmp_path: Path) -> None:
    arrays = {"a": np.zeros(3, "<f4"), "b": np.arange(3 << 20, dtype="<f4"), "c": np.ones(3, "<f4")}
    made = spliced(tmp_path, torch_zip(arrays), {"c": bytes(12)})
    assert loaded(made) == {name: array.tobytes() for name, array in arrays.items()} | {"c": bytes(12)}


@pytest.mark.parametrize("size", [0, 23, 25])
def test_value_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(InputError, match=f"parameter 'a': a value of {size} bytes takes the place of 24"):
        spliced(tmp_path, npz(OLD), {"a": bytes(size)})
