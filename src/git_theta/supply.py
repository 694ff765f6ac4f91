"""What a user brings to `git theta add --update-path`: a file of tensors, or a PEFT adapter, as updates of a base.

In a file, the tensors of an update are named "<parameter>/<what>", as in "encoder.0.weight/R"; in a torch file the
parameter may as well be a dict of them. What they are called is the update's own (docs/reference/cli.md).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from git_theta import adapter, plugins
from git_theta.adapter import Brought
from git_theta.errors import InputError, ManifestError
from git_theta.manifest import Manifest, is_word
from git_theta.names import shown, shown_path
from git_theta.targets import Targets, by_plain_name
from git_theta.tensor import DTYPES, Tensor
from git_theta.tensorfile import opened
from git_theta.updates.base import Supplied, Supplier

__all__ = ["read"]


def read(path: Path, update: str, base: Manifest) -> dict[str, Supplied]:
    """The updates that a file or a PEFT adapter's directory has for parameters of a base, by their records' names.

    Raises InputError, naming the file and the parameter, where something does not fit.
    """
    _supplier(update)
    targets = Targets(base)
    made: dict[str, Supplied] = {}
    try:
        for brought in adapter.read(path, targets, update) if path.is_dir() else _read_file(path, update, targets):
            name = brought.target.name
            if name in made:
                raise InputError(f"parameter '{shown(name)}': there are two updates of it, perhaps under two names")
            made[name] = _made(brought)
    except InputError as error:
        raise InputError(f"{shown_path(str(path))}: {error}") from error
    return made


def _supplier(update: str) -> Supplier:
    """The update of a name, if users may bring its content."""
    try:
        found = plugins.update(update) if is_word(update) else None
    except ManifestError as error:
        raise InputError(f"--update-type: {error}") from error
    if found is None:
        raise InputError(f"--update-type: '{shown(update)}' is no name of an update")
    if not isinstance(found, Supplier):
        raise InputError(f"--update-type: the content of '{shown(update)}' is made by git-theta, it cannot be supplied")
    return found


def _read_file(path: Path, update: str, targets: Targets) -> list[Brought]:
    with opened(path) as file:
        tensors: dict[str, dict[str, str]] = {}
        for key, name in by_plain_name(file.names).items():
            parameter, slash, what = key.rpartition("/")
            if not slash or not parameter:
                raise InputError(
                    f"tensor '{shown(key)}' is not named after a parameter and a part of its update, as w/R"
                )
            tensors.setdefault(parameter, {})[what] = name
        renamed = targets.renaming([*tensors])
        return [
            Brought(targets.get(renamed(parameter)), update, {what: file.read(name) for what, name in parts.items()})
            for parameter, parts in tensors.items()
        ]


def _made(brought: Brought) -> Supplied:
    """The update, of the parameter's value as it is stored."""
    target = brought.target
    try:
        tensors = _turned(brought) if target.is_turned else brought.tensors
        return _supplier(brought.update).supplied(tensors, target.record.dtype, target.stored_shape)
    except InputError as error:
        raise InputError(f"parameter '{shown(target.name)}': {error}") from error


def _turned(brought: Brought) -> Mapping[str, Tensor]:
    """The tensors of an update of the transpose."""
    tensors = dict(brought.tensors)
    if brought.update == "low-rank":
        was = tensors.pop("transposed", None)
        return tensors if was is not None and any(was.data) else {**tensors, "transposed": Tensor("U8", (), b"\1")}
    if brought.update in ("ia3", "dense"):
        return {what: _transposed(tensor) for what, tensor in tensors.items()}
    raise InputError(f"it is stored column by column, which '{shown(brought.update)}' cannot be supplied for")


def _transposed(tensor: Tensor) -> Tensor:
    """The transpose of a matrix; of fewer dimensions, that of one row."""
    import numpy as np

    if len(tensor.shape) > 2 or tensor.dtype not in DTYPES or DTYPES[tensor.dtype].bits % 8:
        raise InputError(f"a tensor of the shape {list(tensor.shape)} is for no matrix")
    shape = (*(1,) * (2 - len(tensor.shape)), *tensor.shape)
    elements = np.frombuffer(tensor.data, f"V{DTYPES[tensor.dtype].bits // 8}").reshape(shape)
    return replace(tensor, shape=shape[::-1], data=elements.T.tobytes())
