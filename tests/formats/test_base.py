"""What holds for the built-in formats together."""

import re
import subprocess
import sys

import pytest

from git_theta.formats.base import Format
from git_theta.formats.npy import FORMAT as NPY
from git_theta.formats.npz import FORMAT as NPZ
from git_theta.formats.safetensors import FORMAT as SAFETENSORS
from git_theta.formats.torch_legacy import FORMAT as TORCH_LEGACY
from git_theta.formats.torch_zip import FORMAT as TORCH

_FORMATS: list[Format] = [SAFETENSORS, TORCH, TORCH_LEGACY, NPZ, NPY]


def test_names_are_part_of_the_manifest_and_do_not_change() -> None:
    assert [format.name for format in _FORMATS] == ["safetensors", "torch", "torch-legacy", "npz", "npy"]


@pytest.mark.parametrize("format", _FORMATS, ids=lambda format: format.name)
def test_a_format_opens_with_its_specification(format: Format) -> None:
    text = sys.modules[type(format).__module__].__doc__ or ""
    assert re.search(r"^Scope: ", text, re.MULTILINE)
    assert re.search(r"^Specification: ", text, re.MULTILINE)


def test_formats_import_no_framework() -> None:
    modules = ", ".join(type(format).__module__ for format in _FORMATS)
    banned = {"numpy", "torch", "zipfile", "ml_dtypes", "safetensors", "zstandard", "blake3", "click"}
    code = f"import sys, {modules}; print(*sorted({banned} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""
