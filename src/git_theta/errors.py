"""The errors Git-Theta raises on purpose, grouped by what the caller can do about them.

    ThetaError                    every expected error; printed as one line
    ├── ConflictError             sides of a merge disagree: choose  exit 1
    ├── InputError                fix what was handed in            exit 3
    │   ├── FormatError           a file that a format cannot read: the next format is tried
    │   ├── ManifestError         text that is no manifest, or one this version cannot read
    │   │   └── LaterVersionError it is of a later version: update git-theta
    │   └── ConfigError           a setting whose value means nothing
    ├── DataError                 fetch or repair data
    │   ├── MissingObjectError    an object is not on this machine  exit 4
    │   └── DamagedObjectError    bytes are not what their name says  exit 5
    ├── ChangedError              a file changed while it was read: try again  exit 6
    ├── RepositoryError           Git, the repository or the set-up is not fit  exit 7
    ├── SpaceError                the disk or the memory will not hold it  exit 8
    └── TransferError             a remote cannot be reached, or refused  exit 9

Everything else that escapes is a bug: exit 70 (EX_SOFTWARE of sysexits.h), with a log. A message says where, what,
got and what to do: "model.pt: parameter 'lm_head' needs object 3f2a..., which is not here; run: git theta pull".
"""

__all__ = [
    "EXIT_BUG",
    "ChangedError",
    "ConfigError",
    "ConflictError",
    "DamagedObjectError",
    "DataError",
    "FormatError",
    "InputError",
    "LaterVersionError",
    "ManifestError",
    "MissingObjectError",
    "RepositoryError",
    "SpaceError",
    "ThetaError",
    "TransferError",
]

EXIT_BUG = 70


class ThetaError(Exception):
    """Base of every expected error; `exit_code` is what a command exits with."""

    exit_code = 1


class ConflictError(ThetaError):
    """Sides of a merge cannot be put together without someone choosing."""


class InputError(ThetaError):
    """What the caller handed in cannot be used as it is."""

    exit_code = 3


class FormatError(InputError):
    """A file is not what a checkpoint format expects."""


class ManifestError(InputError):
    """Text is not a manifest, or not one that this version can read."""


class LaterVersionError(ManifestError):
    """A manifest is of a version that came after this git-theta."""


class ConfigError(InputError):
    """A setting has a value that means nothing."""


class DataError(ThetaError):
    """Stored data is missing or damaged."""

    exit_code = 4


class MissingObjectError(DataError):
    """An object that a manifest names is not on this machine."""


class DamagedObjectError(DataError):
    """Stored bytes are not what their name says."""

    exit_code = 5


class ChangedError(ThetaError):
    """A file changed while it was being read."""

    exit_code = 6


class RepositoryError(ThetaError):
    """Git, the repository or the set-up is not fit for what was asked."""

    exit_code = 7


class SpaceError(ThetaError):
    """The disk or the memory will not hold what was asked."""

    exit_code = 8


class TransferError(ThetaError):
    """A remote could not be reached, or refused what was asked of it."""

    exit_code = 9
