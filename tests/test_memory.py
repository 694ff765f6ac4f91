"""Freed memory is kept: a process that decodes in buffers of a few MiB does not fault each of them in anew."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from git_theta import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytes(2 * 2**20)
before = faults()
for _ in range(50):
    kept = [bytearray(2 * 2**20) for _ in range(8)]
    del kept
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_chunks_are_used_again() -> None:
    def run(how: str) -> int:
        argv = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[1]).stdout)

    assert run("kept") < run("as it is") / 4
