"""What the C library does for us: fewer page faults, and files that change places."""

import subprocess
import sys
from pathlib import Path

from git_theta import libc
from tests.checkpoints import linux_only

PROGRAM = """
import resource, sys
from git_theta import libc
if sys.argv[1] == "kept":
    libc.keep_freed()
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


@linux_only
def test_freed_chunks_are_used_again() -> None:
    def run(how: str) -> int:
        argv = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[1]).stdout)

    assert run("kept") < run("as it is") / 4


@linux_only
def test_files_change_places(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "other").write_bytes(b"2")
    assert libc.exchange(tmp_path / "one", tmp_path / "other")
    assert ((tmp_path / "one").read_bytes(), (tmp_path / "other").read_bytes()) == (b"2", b"1")
    assert not libc.exchange(tmp_path / "one", tmp_path / "none")
    assert (tmp_path / "one").read_bytes() == b"2"
