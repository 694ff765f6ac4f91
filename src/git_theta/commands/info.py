"""`git theta info`: what is in a checkpoint, and what it costs to keep."""

import os
from pathlib import Path

import click

from git_theta import git, summary, tracked
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import InputError, ManifestError, RepositoryError
from git_theta.git import IndexEntry
from git_theta.manifest import MAX_MANIFEST_BYTES
from git_theta.names import shown, shown_path
from git_theta.summary import Group, Parameter, Summary
from git_theta.tracked import Kind

__all__ = ["command"]

_HEAD_BYTES = 65536
_MOST_CHAINS = 3


@click.command(short_help="Show what is in a checkpoint, and what it costs to keep.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--full", is_flag=True, help="List every parameter; otherwise names that differ in numbers are folded.")
@click.argument("path", metavar="PATH|REV:PATH", type=click.Path())
def command(as_json: bool, full: bool, path: str) -> None:
    """Show the parameters of a checkpoint: dtypes, shapes, sizes, the bytes stored for them, and the updates.

    PATH is a tracked file, as it stands in the index, or any other checkpoint file. REV:PATH is one of a revision, such
    as HEAD~1:model.pt.
    """
    try:
        place = open_place()
    except RepositoryError:
        if not os.path.lexists(path):
            raise
        place = None
    found = _open(place, path)
    missing = place.store().missing(found.objects) if place and found.objects else {}
    if as_json:
        output.print_json(_document(path, found, missing, full=full))
        return
    _print_head(path, found, missing)
    if found.parameters:
        print()
        _print_parameters(found, full=full)


def _open(place: Place | None, path: str) -> Summary:
    """The checkpoint that an argument names."""
    if place and ":" in path and not os.path.lexists(path):
        oid = git.blob_named(path, place.cwd)
        if oid is None:
            raise InputError(f"{shown_path(path)}: no such revision, or no such path in it")
        content = place.repository.blobs([oid], MAX_MANIFEST_BYTES).get(oid)
        return _read(path, b"?" if content is None else content)
    if place and place.repository.worktree is not None:
        for file in tracked.find(place.repository, _entries(place, path)):
            if file.kind is Kind.INVALID:
                raise ManifestError(f"{shown_path(path)}: {file.problem}")
            if file.manifest:
                return summary.of_manifest(file.manifest)
    return _open_file(path)


def _entries(place: Place, path: str) -> list[IndexEntry]:
    """The tracked file at a path, if there is one."""
    try:
        name = place.repository.path_of(path, place.cwd)
    except InputError:
        return []
    return [entry for entry in tracked.entries(place.repository, [name]) if entry.path == name]


def _read(path: str, content: bytes) -> Summary:
    """The checkpoint of a manifest's text."""
    kind, manifest, problem = tracked.read(content)
    if manifest is None:
        what = problem if kind is Kind.INVALID else "there is no manifest at this path, Git has the file as it is"
        raise ManifestError(f"{shown_path(path)}: {what}")
    return summary.of_manifest(manifest)


def _open_file(path: str) -> Summary:
    """The checkpoint in a file on the disk; a manifest stands for its checkpoint."""
    from git_theta.checkpoint import segment
    from git_theta.source import FileSource

    if not Path(path).is_file():
        raise InputError(f"{shown_path(path)}: no such file")
    with Path(path).open("rb") as file:
        source = FileSource(file.fileno(), shown_path(path))
        if source.size <= MAX_MANIFEST_BYTES and tracked.means_manifest(source.read(0, _HEAD_BYTES)):
            return _read(path, source.read(0, source.size))
        format_name, spans = segment(source)
    return summary.of_spans(format_name, source.size, spans)


def _print_head(path: str, found: Summary, missing: dict[str, int]) -> None:
    rows = [
        ("file", shown_path(path)),
        ("format", found.format),
        ("size", f"{output.size(found.size)} ({found.size:,} bytes)"),
        ("parameters", f"{len(found.parameters):,} ({found.elements:,} elements)"),
    ]
    if found.stored is not None and found.objects is not None:
        share = f", {100 * found.stored / found.size:.1f}% of the file" if found.size else ""
        objects = output.count(len(found.objects), "object")
        rows += [("stored", f"{output.size(found.stored)} in {objects}{share}"), ("digest", str(found.digest))]
    else:
        rows.append(("stored", "not tracked"))
    chains = [row.storage.steps for row in found.parameters if row.storage and row.storage.steps > 1]
    if chains:
        rows.append(("chains", f"{output.count(len(chains), 'parameter')}, at most {max(chains)} steps"))
    if missing:
        objects = output.count(len(missing), "object")
        rows.append(("missing", f"{objects} ({output.size(sum(missing.values()))}) not on this machine"))
    for label, value in rows:
        print(f"{label:<10}  {value}")


def _print_parameters(found: Summary, *, full: bool) -> None:
    kept = found.stored is not None
    headers = [
        "parameter",
        *([] if full else ["count"]),
        "dtype",
        "shape",
        "size",
        *(["stored", "steps", "by"] if kept else []),
    ]
    rows = [_group_cells(group) for group in found.groups()]
    if full:
        rows = [row for parameter in found.in_order() for row in _parameter_cells(parameter)]
    right = [headers.index(header) for header in ("count", "size", "stored", "steps") if header in headers]
    output.print_table(headers, [row[: len(headers)] for row in rows], right)


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _group_cells(group: Group) -> list[str]:
    size, stored = output.size(group.size), output.size(group.stored)
    shortest, longest = group.steps
    return [
        shown(group.name),
        f"{group.count:,}",
        group.dtype,
        _shape(group.shape),
        size,
        stored,
        f"{shortest}" if shortest == longest else f"{shortest}-{longest}",
        _chains(group),
    ]


def _chains(group: Group) -> str:
    """The updates of the parameters; with how many have them, where not all have the same."""
    if len(group.chains) == 1:
        return " ".join(group.chains[0][0])
    texts = [f"{' '.join(chain)} ({count:,})" for chain, count in group.chains]
    more = len(texts) - _MOST_CHAINS
    return ", ".join([*texts[:_MOST_CHAINS], *([f"{more} more"] if more > 0 else [])])


def _parameter_cells(parameter: Parameter) -> list[list[str]]:
    """A row for the parameter and one for each of its views."""
    storage = parameter.storage
    cells = [output.size(storage.size), f"{storage.steps}", " ".join(storage.updates)] if storage else ["", "", ""]
    row = [shown(parameter.name), parameter.dtype, _shape(parameter.shape), output.size(parameter.size), *cells]
    views = [[f"  = {shown(view.name)}", view.dtype, _shape(view.shape), "", "", "", ""] for view in parameter.views]
    return [row, *views]


def _document(path: str, found: Summary, missing: dict[str, int], *, full: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "path": path,
        "format": found.format,
        "size_bytes": found.size,
        "digest": found.digest,
        "parameters": len(found.parameters),
        "elements": found.elements,
        "stored_bytes": found.stored,
        "objects": None if found.objects is None else output.object_counts(found.objects, missing),
    }
    if full:
        document["list"] = [_parameter_item(parameter) for parameter in found.in_order()]
    else:
        document["groups"] = [_group_item(group, kept=found.stored is not None) for group in found.groups()]
    return document


def _group_item(group: Group, *, kept: bool) -> dict[str, object]:
    return {
        "name": group.name,
        "count": group.count,
        "dtype": group.dtype,
        "shape": group.shape,
        "size_bytes": group.size,
        "stored_bytes": group.stored if kept else None,
        "steps": group.steps[1] if kept else None,
        "updates": group.updates if kept else None,
        "chains": [{"updates": chain, "count": count} for chain, count in group.chains] if kept else None,
    }


def _parameter_item(parameter: Parameter) -> dict[str, object]:
    storage = parameter.storage
    return {
        "name": parameter.name,
        "dtype": parameter.dtype,
        "shape": parameter.shape,
        "size_bytes": parameter.size,
        "digest": storage.digest if storage else None,
        "stored_bytes": storage.size if storage else None,
        "steps": storage.steps if storage else None,
        "updates": storage.updates if storage else None,
        "views": [{"name": view.name, "dtype": view.dtype, "shape": view.shape} for view in parameter.views],
    }
