"""Who may use what lies below `theta/`, as `core.sharedRepository` says it of a Git directory.

Source: git-config(1), "core.sharedRepository"; adjust_shared_perm() of Git's path.c.
"""

import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Sharing"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """The permissions that a file gets beside those that the umask leaves, or, if `exact`, in place of them."""

    bits: int = 0
    exact: bool = False

    def file_mode(self, mode: int) -> int:
        """The mode of a file that would have `mode`; what its owner may not write, nobody may."""
        bits = self.bits if mode & 0o200 else self.bits & ~0o222
        return bits if self.exact else mode | bits

    def share(self, path: Path) -> None:
        """Give a file or folder of ours the permissions that others need; those of another's are for him to give."""
        if not self.bits:
            return
        with suppress(OSError):
            old = path.stat().st_mode
            mode = self.file_mode(stat.S_IMODE(old) & 0o777)
            if stat.S_ISDIR(old):
                # What is made in it belongs to the folder's group, whoever makes it.
                mode |= mode >> 2 & 0o111 | (stat.S_ISGID if mode & 0o060 else 0)
            path.chmod(mode)

    def make_folder(self, path: Path) -> None:
        """Have a folder, and those above it; raises OSError."""
        if not self.bits:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            self.make_folder(path.parent)
            path.mkdir(exist_ok=True)
            self.share(path)
