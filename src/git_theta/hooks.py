"""The pre-push hook, which sends the objects of checkpoints before Git sends the commits that name them.

Others own that hook too (git-lfs, pre-commit, people), so ours is a block in it between two marks: added, renewed and
removed by itself, first to run, and passing on the standard input that it has read. A hook that is no shell script,
or is switched off, is moved aside; the former is started after ours.

Source: githooks(5), "pre-push".
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from git_theta.errors import RepositoryError
from git_theta.git import Repository
from git_theta.names import shown_path

__all__ = ["add", "is_added", "path", "remove"]

NAME = "pre-push"
ASIDE = "pre-push.before-git-theta"
_BEGIN = "# >>> git-theta: sends the objects of checkpoints first; `git theta uninstall --local` removes this >>>"
_END = "# <<< git-theta <<<"
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}$.*?^{re.escape(_END)}\n", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^[^#\n]*\bgit[ -]theta pre-push\b", re.MULTILINE)
_SHELL = re.compile(rb"#![ \t]*(/usr/bin/env[ \t]+)?(\S*/)?(ba|da|z|k|a)?sh([ \t].*)?\r?\n")

_TEXT = """\
{begin}
theta_refs=$(cat)
if theta={script}; [ -x "$theta" ] || theta=$(command -v git-theta); then
    [ -z "$theta_refs" ] || printf '%s\\n' "$theta_refs" | "$theta" pre-push "$@" || exit $?
else
    echo 'git-theta is not installed, and the objects of checkpoints would not be sent; to go on: --no-verify' >&2
    exit 1
fi
if [ -z "$theta_refs" ]; then exec </dev/null; else exec <<GIT_THETA_REFS
$theta_refs
GIT_THETA_REFS
fi
{end}
"""
# git-lfs will not add its hook to one that exists, so a hook of ours alone stands in for it.
_LFS = """\
if [ -d "$(git rev-parse --git-common-dir)/lfs" ] && command -v git-lfs >/dev/null; then git lfs pre-push "$@"; fi
"""
# One that Git would not run, because its owner has made it not executable, stays switched off.
_ASIDE = """\
if [ -x "$(dirname "$0")/{aside}" ]; then exec "$(dirname "$0")/{aside}" "$@"; fi
"""


def path(repository: Repository, config: Mapping[str, str | None] | None = None) -> Path:
    """Where Git looks for the hook: in `core.hooksPath`, or the common directory of all worktrees.

    `config`: the section "core", where that has been read.
    """
    if config is not None and "core.hookspath" not in config:
        return repository.common_dir / "hooks" / NAME
    folder = os.fsdecode(repository.git("rev-parse", "--git-path", "hooks")).rstrip("\r\n")
    return repository.base / folder / NAME


def is_added(repository: Repository) -> bool:
    """Whether the hook has our block, as this version of Git-Theta writes it, or calls us in its own words."""
    hook = path(repository)
    return hook.is_file() and _sends(hook.read_text("utf-8", "surrogateescape"))


def add(repository: Repository, config: Mapping[str, str | None] | None = None) -> bool:
    """Have our block in the hook, once; whether that changed anything. `config` is as in `path`.

    Raises RepositoryError where the hook is a file of the worktree, which belongs to the project, or cannot be written.
    """
    hook = path(repository, config)
    block = _block()
    old = hook.read_bytes() if hook.exists() else b""
    text = old.decode("utf-8", "surrogateescape")
    if _sends(text):
        return False
    if repository.worktree and repository.common_dir not in hook.parents and repository.worktree in hook.parents:
        raise RepositoryError(
            f"{shown_path(str(hook))}: this hook is a file of the project (core.hooksPath); add to it, before anything "
            f'that reads its input: git theta pre-push "$@"'
        )
    aside = hook.with_name(ASIDE)
    try:
        hook.parent.mkdir(parents=True, exist_ok=True)
        if not old:
            # A process that was killed after it had moved the hook aside has left that one alone.
            new = f"#!/bin/sh\n{block}{_ASIDE.format(aside=ASIDE) if aside.exists() else _LFS}"
        elif _BLOCK.search(text):
            new = _BLOCK.sub(lambda _: block, text, count=1)
        elif (shebang := _SHELL.match(old)) and os.access(hook, os.X_OK):
            new = text[: shebang.end()] + block + text[shebang.end() :]
        else:
            hook.replace(aside)
            new = f"#!/bin/sh\n{block}{_ASIDE.format(aside=ASIDE)}"
        _write(hook, new)
    except OSError as error:
        raise RepositoryError(f"{shown_path(str(hook))}: the hook cannot be written ({error.strerror})") from error
    return True


def remove(repository: Repository) -> bool:
    """Take our block out of the hook; whether there was one. What others have there stays."""
    hook = path(repository)
    if not hook.is_file():
        return False
    text = hook.read_text("utf-8", "surrogateescape")
    rest = _BLOCK.sub("", text, count=1)
    if rest == text:
        return False
    if rest in ("#!/bin/sh\n", f"#!/bin/sh\n{_LFS}"):
        hook.unlink()
    elif rest == f"#!/bin/sh\n{_ASIDE.format(aside=ASIDE)}":
        hook.with_name(ASIDE).replace(hook)
    else:
        _write(hook, rest)
    return True


def _write(hook: Path, text: str) -> None:
    temporary = hook.with_name(f"{NAME}.git-theta-{os.getpid()}")
    temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    temporary.chmod(0o755 if not hook.exists() else hook.stat().st_mode | 0o111)
    temporary.replace(hook)


def _sends(text: str) -> bool:
    return _block() in text or _CALL.search(_BLOCK.sub("", text)) is not None


def _block() -> str:
    return _TEXT.format(begin=_BEGIN, end=_END, script=shlex.quote(_script()))


def _script() -> str:
    """The path of `git-theta`, beside the script that runs now, for a shell whose PATH does not have it."""
    name = "git-theta" + (".exe" if os.name == "nt" else "")
    beside = Path(sys.argv[0]).absolute().with_name(name)
    return beside.as_posix() if beside.is_file() else (shutil.which(name) or name)
