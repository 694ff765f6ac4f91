"""`git theta strategies`: the merge strategies that are installed, and what may be set of each."""

import math

import click

from git_theta import plugins
from git_theta.commands import output
from git_theta.merges.base import Merge, Option, Value
from git_theta.names import shown_path

__all__ = ["command"]

_MANY = 64
"""As many sides as a strategy of any number of them says that it takes."""


@click.command(short_help="Show the merge strategies, and what may be set of each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.argument("name", required=False)
def command(as_json: bool, name: str | None) -> None:
    """Show the merge strategies that are installed; of the one called NAME also its options, and the files it reads."""
    found = [*plugins.merges().values()] if name is None else [plugins.merge(name)]
    if as_json:
        output.print_json({"strategies": [_item(strategy) for strategy in found]})
    elif name is None:
        output.print_table(("strategy", "what it does"), [(one.name, shown_path(one.summary)) for one in found])
    else:
        _print_one(found[0])


def _print_one(strategy: Merge) -> None:
    base = "needed" if strategy.needs_base else "used where there is one" if strategy.uses_base else "not used"
    rows = [
        ("strategy", strategy.name),
        ("summary", strategy.summary),
        ("base", base),
        ("sides", "any number" if strategy.most_sides >= _MANY else f"at most {strategy.most_sides}"),
        ("merges", ", ".join(sorted(strategy.kinds))),
        *([("paper", strategy.paper)] if strategy.paper else []),
        *(("file", f"{name}: {line}") for name, line in strategy.files.items()),
    ]
    output.print_table(("", ""), [(label, shown_path(value)) for label, value in rows])
    if strategy.options:
        print()
        output.print_table(("option", "default", "allowed", "meaning"), [_cells(option) for option in strategy.options])


def _cells(option: Option) -> tuple[str, str, str, str]:
    return option.name, _default(option.default), option.allowed, shown_path(option.summary)


def _default(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value) or "one each"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _item(strategy: Merge) -> dict[str, object]:
    return {
        "name": strategy.name,
        "summary": strategy.summary,
        "paper": strategy.paper or None,
        "kinds": sorted(strategy.kinds),
        "needs_base": strategy.needs_base,
        "uses_base": strategy.needs_base or strategy.uses_base,
        "most_sides": None if strategy.most_sides >= _MANY else strategy.most_sides,
        "elementwise": strategy.elementwise,
        "finite": strategy.finite,
        "options": [_option_item(option) for option in strategy.options],
        "files": dict(strategy.files),
    }


def _option_item(option: Option) -> dict[str, object]:
    bounds = {"above": option.above, "least": option.least, "most": option.most}
    return {
        "name": option.name,
        "default": option.default,
        "allowed": option.allowed,
        **{name: bound if math.isfinite(bound) else None for name, bound in bounds.items()},
        "choices": option.choices,
        "summary": option.summary,
    }
