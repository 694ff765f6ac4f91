"""What Git's configuration must say for Git to start Git-Theta, and how it gets there and away again.

Only `git config` writes; only the keys of `settings` are touched, so everyone else's configuration survives.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from git_theta import git
from git_theta.errors import RepositoryError
from git_theta.git import Repository

__all__ = ["DEFAULT_SCOPE", "PROCESS_KEY", "SCOPES", "install", "is_installed", "settings", "uninstall"]

PROCESS_KEY = "filter.theta.process"
SCOPES = ("global", "local", "system", "worktree")
DEFAULT_SCOPE = "global"

_COMMANDS: Mapping[str, tuple[str, str]] = {
    PROCESS_KEY: ("git-theta-filter", ""),
    # The last three are names of the sides, and stand there as they are in Git before 2.44.
    "merge.theta.driver": ("git-theta-merge", " %O %A %B %P %S %X %Y"),
    "merge.theta-bases.driver": ("git-theta-merge", " --bases %O %A %B %P"),
    "diff.theta.command": ("git-theta", " diff-driver"),
    "mergetool.theta.cmd": ("git-theta", ' resolve --interactive "$MERGED"'),
}
"""Settings that start a script of ours: its name, and what stands behind it."""
_FIXED: Mapping[str, str] = {
    # Without it, Git would store the checkpoint itself whenever the filter cannot run.
    "filter.theta.required": "true",
    "merge.theta.name": "git-theta: merge checkpoints parameter by parameter",
    # Where several common ancestors are merged first: a conflict must not make one of them the base of all.
    "merge.theta.recursive": "theta-bases",
    "merge.theta-bases.name": "git-theta: merge common ancestors of checkpoints",
    # For `git mergetool --tool=theta`; which tool is the user's own (`merge.tool`) stays as it is.
    "mergetool.theta.trustexitcode": "true",
}


def settings() -> Mapping[str, str]:
    """The keys and the values that `install` gives them."""
    return {**{key: _command(script) + words for key, (script, words) in _COMMANDS.items()}, **_FIXED}


def install(scope: str, cwd: Path) -> bool:
    """Write the settings into the configuration of a scope; whether that changed anything."""
    changed = False
    for key, value in settings().items():
        if _values(scope, key, cwd) != [value]:
            git.run(["config", f"--{scope}", "--replace-all", key, value], cwd=cwd)
            changed = True
    return changed


def uninstall(scope: str, cwd: Path) -> bool:
    """Remove the settings from the configuration of a scope; whether there were any."""
    changed = False
    for key in (*_COMMANDS, *_FIXED):
        if _values(scope, key, cwd):
            # Git removes the section with its last key, unless someone has left a comment there.
            git.run(["config", f"--{scope}", "--unset-all", key], cwd=cwd)
            changed = True
    return changed


def is_installed(repository: Repository) -> bool:
    """Whether Git starts our filter in this repository, whoever said so."""
    return bool(repository.git("config", "--get", PROCESS_KEY, accept=(0, 1)).strip())


def _values(scope: str, key: str, cwd: Path) -> list[str]:
    if scope in ("local", "worktree"):
        git.discover(cwd)
        asked = ["config", "--type=bool", "--get", "extensions.worktreeConfig"]
        if scope == "worktree" and git.run(asked, cwd=cwd, accept=(0, 1)).strip() != b"true":
            raise RepositoryError(
                "this repository has one configuration for all of its worktrees; "
                "to let each have its own, run: git config extensions.worktreeConfig true"
            )
    found = git.run(["config", f"--{scope}", "-z", "--get-all", key], cwd=cwd, accept=(0, 1))
    return [value.decode("utf-8", "surrogateescape") for value in found.split(b"\0")[:-1]]


def _command(name: str) -> str:
    """What Git's shell runs: a script's name where every shell finds it, its path where only this one does."""
    script = _script(name)
    in_environment = sys.prefix != sys.base_prefix or _has_conda()
    on_path = shutil.which(name)
    if not in_environment and on_path and Path(on_path).resolve() == script.resolve():
        return name
    return shlex.quote(script.as_posix())


def _has_conda() -> bool:
    """Whether this Python is conda's, whose folder is on the PATH only while its environment is active."""
    return (Path(sys.prefix) / "conda-meta").is_dir()


def _script(name: str) -> Path:
    """A script as pip wrote it for this Python."""
    name += ".exe" if os.name == "nt" else ""
    user_scheme = sysconfig.get_preferred_scheme("user")
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user_scheme), str(Path(sys.argv[0]).parent)]
    for folder in folders:
        script = Path(folder).absolute() / name
        if script.is_file():
            return script
    raise RepositoryError(
        f"{folders[0]}: there is no {name}; install git-theta again: pip install --force-reinstall git-theta"
    )
