"""docs/reference/merging.md names every strategy, option and file, and its example runs."""

import re
from pathlib import Path
from typing import Any

from git_theta import plugins
from git_theta.testing import MergeTests
from tests.merges.arithmetic import merged, task

TEXT = Path("docs/reference/merging.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def test_every_strategy_is_documented() -> None:
    rows = {row[0]: row for row in ROWS if len(row) == 5 and row[3] in ("any", "2")}
    assert [*rows] == [f"`{name}`" for name in plugins.merges()]
    for name, strategy in plugins.merges().items():
        row = rows[f"`{name}`"]
        assert row[1] == strategy.summary
        assert (row[2] == "needed") is strategy.needs_base
        assert (row[3] == "2") is (strategy.most_sides == 2)
        assert f"({strategy.paper})" in row[4] or not strategy.paper


def test_every_option_and_every_file_is_documented() -> None:
    for name, strategy in plugins.merges().items():
        for option in strategy.options:
            default = "one each" if option.default == () else f"{option.default}".removesuffix(".0")
            found = [row for row in ROWS if row[0] == f"`{option.name}`" and f"`{name}`" in row[1].split(", ")]
            assert [(row[2], row[4]) for row in found] == [(default, option.summary)], (name, option.name)
        for file, line in strategy.files.items():
            assert [f"`{name}`", f"`{file}`: {line}"] in ROWS


def test_the_example_runs_and_passes_its_kit() -> None:
    first, second = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(first + second, namespace)  # noqa: S102  # our own page
    assert merged(namespace["HALFWAY"], task([0, 0], [1, 4], [9, 9])) == [0.5, 2]
    kit = namespace["TestHalfway"]()
    assert isinstance(kit, MergeTests)
    kit.test_it_keeps_dtype_and_shape_and_is_the_same_each_time()
    kit.test_an_elementwise_strategy_does_not_depend_on_where_runs_end()
