"""Tensors read by name from files of every format, as torch and numpy read them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from git_theta.errors import InputError
from git_theta.source import BytesSource
from git_theta.tensorfile import TensorFile, opened
from tests.checkpoints import safetensors, weights


def saved(value: object, *, legacy: bool = False) -> TensorFile:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return TensorFile(BytesSource(buffer.getvalue()))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_torch_tensors_however_they_lie(legacy: bool) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "turned": whole.t(),
        "columns": whole[:, 1:3],
        "rows": whole[1:3],
        "other": torch.tensor([1, -2], dtype=torch.int64),
        "half": torch.tensor([[1.5]], dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 3),
    }
    file = saved({"w": tensors, "step": 3}, legacy=legacy)
    assert sorted(file.names) == sorted(f"w/{name}" for name in tensors)
    for name, tensor in tensors.items():
        found = file.read(f"w/{name}")
        assert found.shape == tuple(tensor.shape)
        assert found.data == tensor.contiguous().view(torch.uint8 if tensor.ndim else tensor.dtype).numpy().tobytes()


def test_fortran_order_of_numpy() -> None:
    buffer = io.BytesIO()
    array = np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))
    np.savez(buffer, a=array)
    found = TensorFile(BytesSource(buffer.getvalue())).read("a")
    assert (found.shape, found.data) == ((2, 3), array.tobytes("C"))


def test_elements_that_are_repeated_are_refused() -> None:
    file = saved({"w": torch.zeros(1).expand(1 << 40)})
    with pytest.raises(InputError, match="tensor 'w' repeats its elements"):
        file.read("w")


def test_dtypes_that_are_not_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"w": ("Q4_K", (2,), bytes(3))}))
    with opened(path) as file, pytest.raises(InputError, match="tensor 'w': dtype 'Q4_K' is not known"):
        file.read("w")


def test_more_than_may_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("git_theta.tensorfile.MAX_READ_BYTES", 600)
    file = TensorFile(BytesSource(safetensors({"w": ("F32", (100,), weights(100))})))
    file.read("w")
    with pytest.raises(InputError, match="tensor 'w': more than 600 bytes"):
        file.read("w")


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"), opened(tmp_path / "a"):
        pass
    (tmp_path / "a").write_bytes(b"text")
    with pytest.raises(InputError, match="no tensor is found in it"), opened(tmp_path / "a"):
        pass
