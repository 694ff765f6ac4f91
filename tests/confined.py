"""Commands under limits: a disk that is full, or one that cannot be written to."""

import subprocess
import sys

from tests.repositories import Repo

__all__ = ["NO_OVERRIDE", "SMALL_FILES", "TINY_FILES", "run_confined"]

# Files may have so many bytes; and not even root may then write where the permissions do not let it, which takes
# PR_CAPBSET_DROP of CAP_DAC_OVERRIDE.
SMALL_FILES = "resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (2**21,))"
TINY_FILES = "resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (2**16,))"
NO_OVERRIDE = "os.geteuid() or ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"


def run_confined(repo: Repo, limit: str, *argv: str) -> tuple[int, str, list[str]]:
    """A command under a limit: its exit code, its stderr, and the lines of it that are Git-Theta's."""
    program = (
        f"import ctypes, os, resource, signal, sys; {limit}; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], cwd=repo.path, capture_output=True, check=False)
    stderr = done.stderr.decode()
    return done.returncode, stderr, [line for line in stderr.splitlines() if line.startswith("git-theta: ")]
