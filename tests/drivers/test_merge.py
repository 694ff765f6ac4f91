"""The merge driver's process, as Git starts it: an interruption is one line, at any time."""

import subprocess
import sys

import pytest

STOPPING = """
import sys
class Stopping:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopping())
from git_theta.drivers.merge import main
sys.argv = ["git-theta-merge", "base", "ours", "theirs", "model.pt"]
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["git_theta.names", "git_theta.reconciliation", "git_theta.depot"])
def test_an_interruption_while_modules_are_imported_is_one_line(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", STOPPING.format(module=module)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (128, b"")
    assert done.stderr.decode().splitlines() == ["git-theta: not merged, ours is kept: it was stopped"]


def test_nothing_that_takes_a_while_is_imported_before() -> None:
    script = "import sys; import git_theta.drivers.merge; print(*(name for name in sys.modules if 'theta' in name))"
    found = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert [name for name in found if name.startswith("git_theta")] == [
        "git_theta",
        "git_theta.drivers",
        "git_theta.drivers.merge",
    ]
