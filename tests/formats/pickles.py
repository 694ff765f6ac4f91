"""Pickles and archives made by hand, for what torch itself would not write."""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch._utils import _rebuild_parameter_with_state, _rebuild_tensor_v2


@dataclass(frozen=True)
class StorageId:
    """A storage, pickled as the persistent id that torch gives to it."""

    key: str
    numel: int
    kind: object = torch.FloatStorage
    view: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Call:
    """An object that is pickled as a call of a function."""

    function: Callable[..., object]
    args: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.args


def tensor_call(
    storage: StorageId, shape: tuple[object, ...], offset: object = 0, strides: tuple[object, ...] | None = None
) -> Call:
    """A tensor as torch pickles it, with any geometry."""
    if strides is None:
        strides = (1,) * len(shape)
    return Call(_rebuild_tensor_v2, (storage, offset, shape, strides, False, collections.OrderedDict()))


def parameter_call(data: object, state: object) -> Call:
    """A parameter with further attributes, as torch pickles it."""
    return Call(_rebuild_parameter_with_state, (data, True, collections.OrderedDict(), state))


def dump(value: object, *, legacy: bool = False, protocol: int = 2) -> bytes:
    """The value's pickle, with torch's persistent ids for storages."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> tuple[object, ...] | None:
            if not isinstance(obj, StorageId):
                return None
            plain = ("storage", obj.kind, obj.key, "cpu", obj.numel)
            return (*plain, obj.view) if legacy else plain

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def pack(entries: Mapping[str, bytes], deflated: tuple[str, ...] = (), root: str = "model/") -> bytes:
    """A zip archive with these entries, those in `deflated` compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            file.writestr(root + name, data, zipfile.ZIP_DEFLATED if name in deflated else zipfile.ZIP_STORED)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The entries of an archive, without their root folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def archive(value: object, storages: Mapping[str, bytes]) -> bytes:
    """An archive as torch.save writes it, of an object whose storages have these bytes."""
    return pack({"data.pkl": dump(value)} | {f"data/{key}": data for key, data in storages.items()})
