"""The rules for a checkpoint, from everywhere; the first of these that says something about a parameter counts:

1. `GIT_THETA_MERGE_RULES`, what `git theta merge` was told, on its way through Git to the merge driver;
2. `GIT_THETA_MERGE_STRATEGY`, "ties" or "ties:density=0.3,lambda=1";
3. `git config theta.merge.strategy`, with `theta.merge.options` "density=0.3,lambda=1";
4. `.theta-merge.yaml` at the top of the repository (`rulefile`);
5. the attribute `theta-merge` of the checkpoint's path, written as 2 is.

Behind them stand those that are built in (`rules`). 1 to 3 are the user's, 4 and 5 come from a repository.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import jsontext, plugins
from git_theta.errors import ConfigError
from git_theta.git import Repository
from git_theta.names import shown, shown_path
from git_theta.rules import FILE_NAME, MAX_FILE_BYTES, Rule, Rules

if TYPE_CHECKING:
    from git_theta.rulefile import FileRule

__all__ = [
    "ATTRIBUTE",
    "OPTIONS_KEY",
    "RULES_VARIABLE",
    "STRATEGY_KEY",
    "STRATEGY_VARIABLE",
    "format_environment",
    "parse_environment",
    "read",
]

RULES_VARIABLE = "GIT_THETA_MERGE_RULES"
STRATEGY_VARIABLE = "GIT_THETA_MERGE_STRATEGY"
STRATEGY_KEY = "theta.merge.strategy"
OPTIONS_KEY = "theta.merge.options"
ATTRIBUTE = "theta-merge"

_MAX_TEXT_LENGTH = 2**24
_MAX_RULES = 20_000
"""As many as `reconciliation` may have written down; a system may take less in an environment."""
_FIELDS = ("pattern", "strategy", "options", "added", "grown", "files")
_WITHOUT_VALUE = ("unspecified", "set", "unset")


def read(
    repository: Repository,
    paths: Sequence[bytes],
    config: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> dict[bytes, Rules]:
    """The rules for each path, with absolute paths in their `files`.

    `config` is what `Repository.config` has of `config.SECTIONS`. Raises ConfigError, which says where the rule stands,
    for one that means nothing.
    """
    own = (
        *_of_command(environ, repository),
        *_of_text(STRATEGY_VARIABLE, environ.get(STRATEGY_VARIABLE, "")),
        *_of_config(config),
    )
    text = _file(repository)
    filed: Sequence[FileRule] = ()
    if text is not None:
        from git_theta import rulefile  # YAML is for those who have such a file

        filed = rulefile.parse(text)
    attributes = repository.attributes(paths, ATTRIBUTE) if paths else {}
    found = {}
    for path in paths:
        of_file = [
            _placed(rule, repository, f"{FILE_NAME}: line {one.line}")
            for one in filed
            if one.applies(path)
            for rule in one.rules.rules
        ]
        found[path] = Rules((*own, *of_file, *_of_attribute(path, attributes[path])))
    return found


def format_environment(rules: Iterable[Rule]) -> str:
    """The rules as the text of `GIT_THETA_MERGE_RULES`, which `parse_environment` reads."""
    return json.dumps([{name: getattr(rule, name) for name in _FIELDS} for rule in rules], default=dict)


def parse_environment(text: str) -> tuple[Rule, ...]:
    """The rules in the text of `GIT_THETA_MERGE_RULES`; a list in an option becomes a tuple."""
    with _naming(RULES_VARIABLE):
        try:
            rows = jsontext.parse(text.encode()) if len(text) <= _MAX_TEXT_LENGTH else None
        except ValueError as error:
            raise ConfigError(f"it is not JSON ({shown(str(error)[:100])}); unset it") from error
        if not isinstance(rows, list) or len(rows) > _MAX_RULES:
            raise ConfigError(f"it is no list of at most {_MAX_RULES} rules; unset it")
    rules = []
    for number, row in enumerate(rows, 1):
        with _naming(f"{RULES_VARIABLE}: rule {number}"):
            rules.append(_decode(row))
    return tuple(rules)


def _decode(row: object) -> Rule:
    match row:
        case {
            "pattern": str(pattern),
            "strategy": str(strategy),
            "options": dict(options),
            "added": bool(added),
            "grown": bool(grown),
            "files": dict(files),
            **others,
        } if not others and all(map(_are_texts, files.values())):
            values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
            places = {name: tuple(found) for name, found in files.items()}
            return Rule(pattern, strategy, values, added, grown, places)
    raise ConfigError("it is not as git theta merge writes it; unset the variable")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Have an error of the block's say where the rule stands."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _of_command(environ: Mapping[str, str], repository: Repository) -> list[Rule]:
    """The rules of the command line."""
    rules = parse_environment(environ[RULES_VARIABLE]) if environ.get(RULES_VARIABLE) else ()
    return [_placed(rule, repository, RULES_VARIABLE) for rule in rules]


def _of_config(config: Mapping[str, str | None]) -> tuple[Rule, ...]:
    strategy, options = config.get(STRATEGY_KEY, ""), config.get(OPTIONS_KEY) or ""
    if strategy is None:
        raise ConfigError(f"git config {STRATEGY_KEY}: it has no value; set it to the name of a strategy")
    if options and STRATEGY_KEY not in config:
        raise ConfigError(f"git config {OPTIONS_KEY}: there is no strategy that it is for; set {STRATEGY_KEY}")
    if not strategy:
        return ()
    with _naming(f"git config {STRATEGY_KEY}"):
        plugins.merge(strategy)
    with _naming(f"git config {OPTIONS_KEY}"):
        return (Rule("*", strategy, _options(options)),)


def _of_attribute(path: bytes, value: str) -> tuple[Rule, ...]:
    """The rule of a path's attribute; where it is bare, taken away or not there, what is built in holds."""
    return () if value in _WITHOUT_VALUE else _of_text(f"attribute {ATTRIBUTE} of {shown_path(path)}", value)


def _of_text(where: str, text: str) -> tuple[Rule, ...]:
    """The rule that "ties:density=0.2" is, if it is anything, for all parameters."""
    strategy, _, options = text.partition(":")
    with _naming(where):
        return (Rule("*", strategy, _options(options)),) if text else ()


def _options(text: str) -> dict[str, object]:
    """The options in "weights=1,2,lambda=0.5": what has no "=" goes on with the value before it."""
    given: dict[str, object] = {}
    name = ""
    for word in text.split(",") if text else ():
        before, equals, value = word.partition("=")
        if equals:
            name = before.strip()
            if name in given:
                raise ConfigError(f"option '{shown(name[:40])}' stands there twice; take one out")
            given[name] = value.strip()
        elif name:
            given[name] = f"{given[name]},{word.strip()}"
        else:
            raise ConfigError(f"'{shown(word[:40])}' is no option; write name=value, with commas between")
    return given


def _file(repository: Repository) -> bytes | None:
    """The text of `.theta-merge.yaml`: the worktree's, or HEAD's where it has no such regular file; None without."""
    if repository.worktree is not None:
        place = repository.worktree / FILE_NAME
        with suppress(FileNotFoundError):
            if stat.S_ISREG(place.lstat().st_mode):
                with place.open("rb") as file:
                    return file.read(MAX_FILE_BYTES + 1)
    oid = repository.blob_at("HEAD", FILE_NAME.encode())
    if oid is None:
        return None
    content = repository.blobs([oid], MAX_FILE_BYTES).get(oid)
    if content is None:
        raise ConfigError(f"HEAD:{FILE_NAME}: it is not here, or has more than {MAX_FILE_BYTES} bytes; commit another")
    return content


def _placed(rule: Rule, repository: Repository, where: str) -> Rule:
    """The rule with absolute paths of files; one that is absolute already is the user's: the rules file has none."""
    with _naming(where):
        files = {
            name: tuple(path if Path(path).is_absolute() else _place(path, repository) for path in paths)
            for name, paths in rule.files.items()
        }
    return replace(rule, files=files)


def _place(path: str, repository: Repository) -> str:
    """Where a file of the worktree lies, links followed; raises ConfigError for one outside, or in Git's own folder."""
    got = shown_path(path[:80])
    if repository.worktree is None:
        raise ConfigError(f"a bare repository has no file '{got}'; merge in a worktree")
    try:
        place = Path(os.path.realpath(repository.worktree / path))
    except ValueError as error:  # a NUL
        raise ConfigError(f"'{got}' is no path; name another file") from error
    folders = [Path(os.path.realpath(folder)) for folder in (repository.git_dir, repository.common_dir)]
    if not place.is_relative_to(os.path.realpath(repository.worktree)) or any(map(place.is_relative_to, folders)):
        raise ConfigError(f"'{got}' does not lie in the worktree; name a file there, and no link that leads elsewhere")
    return str(place)
