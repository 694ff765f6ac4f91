"""The index of a sharded checkpoint: which of several files holds which parameter. A merge makes it anew.

Scope: `*.index.json` as transformers and diffusers write it: `weight_map`, from a parameter's name to a file in the
same folder, and `metadata.total_size` in bytes. Source: `split_torch_state_dict_into_shards` of huggingface_hub.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from git_theta import jsontext, names
from git_theta.errors import ConflictError
from git_theta.manifest import Manifest
from git_theta.matching import content
from git_theta.names import shown

__all__ = ["MAX_INDEX_BYTES", "SUFFIX", "Index", "format", "kept", "parse", "regenerate", "twice"]

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

    @property
    def places(self) -> Mapping[str, str]:
        """The shards by the names of parameters, as manifests have them."""
        return {names.join((key,)): file for key, file in self.weight_map.items()}


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


_Value = tuple[object, object]


def _values(manifest: Manifest) -> Iterator[tuple[str, _Value]]:
    """What is known of each tensor of a shard by its name: equal for those that are the same."""
    for name, record in manifest.parameters.items():
        for face, view in ((name, None), *((view.name, view) for view in record.views)):
            if not face.startswith(("~bytes", "~storage")) and not face.endswith("~storage"):  # bytes of no tensor
                yield face, (content(record), view and replace(view, name=""))


def twice(shards: Mapping[str, Manifest]) -> dict[str, list[str]]:
    """The names that several shards have, with those shards."""
    files = defaultdict(list)
    for file, manifest in shards.items():
        for face, _ in _values(manifest):
            files[face].append(file)
    return {face: found for face, found in files.items() if len(found) > 1}


def kept(
    shards: Mapping[str, Manifest],
    bases: Sequence[Mapping[str, Manifest]],
    sides: Sequence[Mapping[str, Manifest]],
    index: Index,
) -> dict[str, str]:
    """Which shard counts for a parameter that is in several; without those of which the versions do not tell it.

    It is the one in which somebody decided to keep it, though a side took it out; else the one that alone has a value
    which is new since the bases. Where the values are the same, or none is new, it is that of `index`.
    """
    result = _by_name(shards)
    before, after = [_by_name(base) for base in bases], [_by_name(side) for side in sides]
    places = index.places
    found = {}
    for face, files in twice(shards).items():
        values = {file: result[face][file] for file in files}
        old = [base.get(face, {}) for base in before]
        decided = [
            file
            for file in files
            if any(file in base for base in old) and any(file not in side.get(face, {}) for side in after)
        ]
        new = [file for file in files if not any(values[file] in base.values() for base in old)]
        same = len(set(values.values())) == 1
        if len(decided) == 1:
            found[face] = decided[0]
        elif len(new) == 1:
            found[face] = new[0]
        elif (same or not new) and places.get(face) in files:
            found[face] = places[face]
        elif same:
            found[face] = files[0]
    return found


def _by_name(shards: Mapping[str, Manifest]) -> dict[str, dict[str, _Value]]:
    """What each shard has of a name."""
    found: defaultdict[str, dict[str, _Value]] = defaultdict(dict)
    for file, manifest in shards.items():
        for face, value in _values(manifest):
            found[face][file] = value
    return found


def regenerate(
    indexes: Sequence[Index], shards: Mapping[str, Manifest], chosen: Mapping[str, str] | None = None
) -> Index:
    """The index of these shards (by file name), with what the first of the old ones says beside.

    `chosen` are the shards that count for parameters which are in several. Raises ConflictError for any other of those:
    nobody knows which counts.
    """
    keys = {names.join((key,)): key for index in reversed(indexes) for key in index.weight_map}
    weight_map: dict[str, str] = {}
    for file, manifest in shards.items():
        for face, _ in _values(manifest):
            key = keys.get(face, face)
            if (chosen or {}).get(face, file) != file:
                continue
            if key in weight_map:
                raise ConflictError(
                    f"parameter '{shown(key[:80])}' is in {shown(weight_map[key])} and in {shown(file)}, and nothing "
                    "tells which of them counts"
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
