"""The settings, as `git config` knows them: one table of names, meanings and defaults (docs/reference/config.md)."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from git_theta.errors import ConfigError
from git_theta.sharing import Sharing

__all__ = ["SECTIONS", "Settings", "read_settings", "words"]

SECTIONS = ("core", "theta")
"""The sections of the configuration that hold them."""

GIB = 2**30
DIFF_STATS_BYTES = 512 * 2**20
_NO_LIMIT = 2**63 - 1
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": GIB, "t": 2**40}
_NUMBER = re.compile(r"([0-9]{1,15})([kmgt]?)\Z", re.IGNORECASE)
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0", ""}
_OCTAL = re.compile(r"[0-7]{1,6}\Z")
_DEVICE = re.compile(r"(?:[a-z]{1,32}(?::[0-9]{1,4})?)?\Z")
_SHARINGS: Mapping[str | None, Sharing] = {
    **dict.fromkeys(("umask", "0"), Sharing()),
    **dict.fromkeys(("group", "1"), Sharing(0o660)),
    **dict.fromkeys(("all", "world", "everybody", "2"), Sharing(0o664)),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may set; sizes are in bytes.

    compression: "auto" codes values that shrink, "none" stores them raw. max_object_bytes: no object is larger (code
    hosts refuse LFS objects above 2 GB). threads: for hashing and coding. skip_smudge: leave manifests in the worktree.
    stream_limit_bytes: a larger checkpoint does not go through Git where that can be avoided. smudge_limit_bytes: a
    larger one that would have to is left as its manifest, for Git holds it in memory whole.
    fsync: flush each object to the disk before it gets its name. sharing: who else may use what is stored.
    updates: how a new version of a value may be stored, beside "dense"; of equals, the first is taken. detect_low_rank:
    look for a low-rank update by itself, too. merge_device: "" merges with NumPy; "cpu", "cuda", "cuda:1", ... with
    torch on that device. diff_stats_bytes: of as many bytes of changed values `git theta diff` computes statistics
    without being asked.
    """

    compression: str = "auto"
    max_object_bytes: int = GIB
    threads: int = 0
    skip_smudge: bool = False
    stream_limit_bytes: int = 2**20
    smudge_limit_bytes: int = 0
    fsync: bool = False
    sharing: Sharing = Sharing()
    updates: tuple[str, ...] = ("cast", "sparse", "delta", "average")
    detect_low_rank: bool = False
    merge_device: str = ""
    diff_stats_bytes: int = DIFF_STATS_BYTES

    def __post_init__(self) -> None:
        if self.compression not in ("auto", "none"):
            raise ConfigError(f"theta.compression is {self.compression!r}; set it to auto or none")
        if not 2**16 <= self.max_object_bytes <= 2**50:
            raise ConfigError(f"theta.maxObjectSize is {self.max_object_bytes}; set it to 64k or more")
        if not 0 <= self.threads <= 256:
            raise ConfigError(f"theta.threads is {self.threads}; set it to 1 to 256, or 0 for one per core")
        if not _DEVICE.match(self.merge_device):
            raise ConfigError(f"theta.merge.device is {self.merge_device!r}; set it to cpu, cuda or one as cuda:1")

    @property
    def thread_count(self) -> int:
        """Threads to use: as set, or one per usable core, at most 8 (memory grows with them, speed no more)."""
        return self.threads or min(8, _cores())

    @property
    def is_incremental(self) -> bool:
        """Whether values may be stored as updates of others."""
        return self.compression != "none" and any(name != "dense" for name in self.updates)

    @property
    def smudge_limit(self) -> int:
        """Bytes above which a checkpoint is not sent through Git: as set, or half of this machine's memory."""
        return self.smudge_limit_bytes or _memory_bytes() // 2


def read_settings(config: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """The settings in `config` (lower-case key to last value, None for a key without "=") and the environment."""
    values: dict[str, object] = {}
    for key, (field, parse) in _KEYS.items():
        if key.lower() in config:
            values[field] = parse(key, config[key.lower()])
    if "GIT_THETA_SKIP_SMUDGE" in environ:
        values["skip_smudge"] = _boolean("GIT_THETA_SKIP_SMUDGE", environ["GIT_THETA_SKIP_SMUDGE"])
    return Settings(**values)  # type: ignore[arg-type]  # the table pairs each field with a parser of its type


def _text(_key: str, value: str | None) -> str:
    return value or ""


def words(text: str) -> tuple[str, ...]:
    """The words of a list in which commas part them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _words(_key: str, value: str | None) -> tuple[str, ...]:
    return words(value or "")


def _integer(key: str, value: str | None) -> int:
    match = _NUMBER.match(value or "")
    if not match:
        raise ConfigError(f"{key} is {value!r}; set it to a whole number, as 512m or 1g")
    return int(match[1]) * _UNITS[match[2].lower()]


def _boolean(key: str, value: str | None) -> bool:
    text = "true" if value is None else value.lower()
    if text not in _TRUE | _FALSE:
        raise ConfigError(f"{key} is {value!r}; set it to true or false")
    # As Git has it, "key =" is false; a key without "=" is true.
    return text in _TRUE


def _limit(key: str, value: str | None) -> int:
    """A number of bytes: as many as there are for true, none for false."""
    if value == "auto":
        return DIFF_STATS_BYTES
    for parse in (_boolean, _integer):
        try:
            found = parse(key, value)
        except ConfigError:
            continue
        return found * _NO_LIMIT if isinstance(found, bool) else found
    raise ConfigError(f"{key} is {value!r}; set it to auto, true, false or a size as 512m")


def _sharing(key: str, value: str | None) -> Sharing:
    if value in _SHARINGS:
        return _SHARINGS[value]
    if _OCTAL.match(value or "") and int(value or "", 8) & 0o600 == 0o600:
        return Sharing(int(value or "", 8) & 0o666, exact=True)
    try:
        return _SHARINGS["group" if _boolean(key, value) else "umask"]
    except ConfigError as error:
        raise ConfigError(f"{key} is {value!r}; set it to group, all, umask or an octal mode as 0660") from error


_KEYS: Mapping[str, tuple[str, Callable[[str, str | None], object]]] = {
    "theta.compression": ("compression", _text),
    "theta.maxObjectSize": ("max_object_bytes", _integer),
    "theta.threads": ("threads", _integer),
    "theta.skipSmudge": ("skip_smudge", _boolean),
    "theta.streamLimit": ("stream_limit_bytes", _integer),
    "theta.smudgeLimit": ("smudge_limit_bytes", _integer),
    "theta.fsync": ("fsync", _boolean),
    "core.sharedRepository": ("sharing", _sharing),
    "theta.updates": ("updates", _words),
    "theta.detectLowRank": ("detect_low_rank", _boolean),
    "theta.merge.device": ("merge_device", _text),
    "theta.diffStats": ("diff_stats_bytes", _limit),
}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    """Physical memory, or 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 * GIB
