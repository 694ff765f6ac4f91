"""Overrides: settings that an attribute of a path has instead of the configuration (docs/reference/config.md).

    *-bf16.safetensors  theta-updates=cast,delta

Asking Git for an attribute takes a process, so the files that Git would read are looked at first: where none of them
mentions the attribute, no path has it. Source: gitattributes(5), and `read_attr` in Git's attr.c: a `.gitattributes`
that the worktree lacks is read from the index.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from git_theta import plugins
from git_theta.attributes import FILE_NAME, MAX_FILE_BYTES
from git_theta.config import Settings, words
from git_theta.errors import ConfigError, ManifestError
from git_theta.git import Repository

__all__ = ["UPDATES_ATTRIBUTE", "Overrides", "attribute_files"]

UPDATES_ATTRIBUTE = "theta-updates"
_SYSTEM_FILE = Path("/etc/gitattributes")


def attribute_files(path: bytes) -> list[bytes]:
    """The paths at which the repository may have attributes for this path."""
    folders = path.split(b"/")[:-1]
    return [b"/".join([*folders[:depth], FILE_NAME.encode()]) for depth in range(len(folders) + 1)]


class Overrides:
    """The settings for each file of a repository; `config` and `environ` are what `settings` were read from."""

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        config: Mapping[str, str | None],
        environ: Mapping[str, str],
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._mentions: dict[Path, bool] = {}
        own = config.get("core.attributesfile") or f"{environ.get('XDG_CONFIG_HOME') or '~/.config'}/git/attributes"
        shared = repository.common_dir / "info" / "attributes"
        self._everywhere = [shared, Path(os.path.expanduser(own)), _SYSTEM_FILE]  # noqa: PTH111  # `~` may have no home

    def at(self, path: bytes, staged: Collection[bytes]) -> Settings:
        """The settings for a path; `staged` has those of its `attribute_files` that are in the index.

        Raises ConfigError where the attribute names an update that is not installed.
        """
        if not self._may_have(path, staged):
            return self._settings
        value = self._repository.attributes([path], UPDATES_ATTRIBUTE)[path]
        if value in ("unspecified", "set"):
            return self._settings
        updates = () if value == "unset" else words(value)
        try:
            for name in updates:
                plugins.update(name)
        except ManifestError as error:
            raise ConfigError(f"attribute {UPDATES_ATTRIBUTE}: {error}") from error
        return replace(self._settings, updates=updates)

    def _may_have(self, path: bytes, staged: Collection[bytes]) -> bool:
        """Whether any file that may say so mentions the attribute."""
        places = {name: self._repository.base / os.fsdecode(name) for name in attribute_files(path)}
        if any(name in staged and not place.exists() for name, place in places.items()):
            return True
        return any(self._mention(place) for place in (*self._everywhere, *places.values()))

    def _mention(self, file: Path) -> bool:
        if file not in self._mentions:
            try:
                with file.open("rb") as opened:
                    self._mentions[file] = UPDATES_ATTRIBUTE.encode() in opened.read(MAX_FILE_BYTES)
            except OSError:
                self._mentions[file] = False
        return self._mentions[file]
