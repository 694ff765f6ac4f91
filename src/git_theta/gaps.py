"""Long runs of a file outside of its tensors, which stand in a manifest like parameters and are none to a merge.

The header of a safetensors file with ten thousand tensors, their pickle, or a zip directory is above a MiB, so that
`layout.cover` names it "~bytes0". A format that puts files together (`Composer`) reads and writes those itself, so a
merge takes them for skeleton.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from git_theta import plugins
from git_theta.formats.base import Composer
from git_theta.layout import MAX_GAP_BYTES, MAX_SKELETON_BYTES, Layout, Part
from git_theta.manifest import Manifest, Record

__all__ = ["closed", "opened", "stripped", "within"]

_PREFIX = "~bytes"

Runs = Callable[[Record], Iterator[bytes | memoryview]]


def within(manifest: Manifest) -> dict[str, Record]:
    """The long runs of a checkpoint by their names."""
    return {name: record for name, record in manifest.parameters.items() if name.startswith(_PREFIX)}


def stripped(versions: Sequence[Manifest]) -> list[Manifest]:
    """The versions without long runs; as they are where a format puts no files together, or the runs are too long."""
    found = [within(version) for version in versions]
    if not any(found) or any(sum(record.size for record in rows.values()) > MAX_SKELETON_BYTES for rows in found):
        return list(versions)
    used: list[object] = [plugins.format(name) for name in {version.format for version in versions}]
    if not all(isinstance(one, Composer) for one in used):
        return list(versions)
    return [
        replace(version, parameters={name: row for name, row in version.parameters.items() if name not in rows})
        if rows
        else version
        for version, rows in zip(versions, found, strict=True)
    ]


def opened(version: Manifest, plain: Manifest, layout: Layout, runs: Runs) -> Layout:
    """The layout of a version, in which what `plain`, the stripped one, has not is skeleton, loaded by `runs`."""
    if len(plain.parameters) == len(version.parameters):
        return layout
    parts: list[Part] = []
    skeleton = bytearray()
    at = 0
    for part in layout.parts:
        name = part.name if part.name in plain.parameters else None
        if part.name is None:
            skeleton += layout.skeleton[at : at + part.size]
            at += part.size
        elif name is None:
            skeleton += b"".join(runs(version.parameters[part.name]))
        parts.append(Part(name, part.size))
    return Layout(tuple(parts), bytes(skeleton))


def closed(layout: Layout) -> tuple[Layout, dict[str, bytes]]:
    """The layout, its long runs of skeleton being parts with names, and the bytes of those."""
    found: dict[str, bytes] = {}
    parts: list[Part] = []
    skeleton = bytearray()
    at = 0
    for part in layout.parts:
        data = layout.skeleton[at : at + part.size] if part.name is None else b""
        at += len(data)
        if len(data) > MAX_GAP_BYTES:
            name = f"{_PREFIX}{len(found)}"
            found[name] = data
            parts.append(Part(name, part.size))
        else:
            skeleton += data
            parts.append(part)
    return (Layout(tuple(parts), bytes(skeleton)), found) if found else (layout, found)
