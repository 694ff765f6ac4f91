"""The index of a sharded checkpoint: which of several files holds which parameter. A merge makes it anew.

Scope: `*.index.json` as transformers and diffusers write it: `weight_map`, from a parameter's name to a file in the
same folder, and `metadata.total_size` in bytes. Source: `split_torch_state_dict_into_shards` of huggingface_hub.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from git_theta import jsontext, names
from git_theta.errors import ConflictError
from git_theta.manifest import Manifest
from git_theta.names import shown

__all__ = ["MAX_INDEX_BYTES", "SUFFIX", "Index", "format", "parse", "regenerate"]

SUFFIX = b".index.json"
MAX_INDEX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says; `others` are its keys beside `weight_map`."""

    weight_map: Mapping[str, str]
    others: Mapping[str, object]

    @property
    def files(self) -> tuple[str, ...]:
        """The shards, each once."""
        return tuple(dict.fromkeys(self.weight_map.values()))


def parse(text: bytes) -> Index | None:
    """The index that a text is; None for any other, and for one whose shards lie elsewhere."""
    try:
        document = jsontext.parse(text)
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("weight_map"), dict):
        return None
    weight_map = document.pop("weight_map")
    good = all(isinstance(file, str) and file and "/" not in file and "\\" not in file for file in weight_map.values())
    return Index(weight_map, document) if weight_map and good else None


def format(index: Index) -> bytes:
    """The text, as transformers writes it."""
    document = {**index.others, "weight_map": index.weight_map}
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def regenerate(indexes: Sequence[Index], shards: Mapping[str, Manifest]) -> Index:
    """The index of these shards (by file name), with what the first of the old ones says beside.

    Raises ConflictError where a parameter is in two shards, so that nobody knows which of them counts.
    """
    keys = {names.join((key,)): key for index in reversed(indexes) for key in index.weight_map}
    weight_map: dict[str, str] = {}
    for file, manifest in shards.items():
        for name, record in manifest.parameters.items():
            for face in (name, *(view.name for view in record.views)):
                if face.startswith(("~bytes", "~storage")) or face.endswith("~storage"):
                    continue  # bytes that are no tensor
                key = keys.get(face, face)
                if key in weight_map:
                    raise ConflictError(
                        f"parameter '{shown(key[:80])}' is in {shown(weight_map[key])} and in {shown(file)}: one side "
                        "moved it, and the other changed it; take it out of one of them"
                    )
                weight_map[key] = file
    others = dict(indexes[0].others)
    metadata = others.get("metadata")
    if isinstance(metadata, dict):
        records = [record for manifest in shards.values() for record in manifest.parameters.values()]
        totals = {
            "total_size": sum(record.size for record in records),
            "total_parameters": sum(prod(record.shape) for record in records),
        }
        others["metadata"] = {**metadata, **{key: total for key, total in totals.items() if key in metadata}}
    return Index(weight_map, others)
