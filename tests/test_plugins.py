"""Plugins that other packages bring: real entry points of a distribution on sys.path."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_theta import checkpoint, plugins
from git_theta.errors import ConfigError, ManifestError
from git_theta.source import BytesSource
from tests.checkpoints import opened
from tests.merges.arithmetic import merged, task

GOOD = """
from git_theta.formats.base import Span


class Halves:
    name = "halves"

    def accepts(self, head):
        return head.startswith(b"HALVES")

    def spans(self, source):
        middle = source.size // 2
        return [Span("left", 6, middle - 6, "U8", (middle - 6,)), Span("right", middle, source.size - middle, {dtype})]


FORMAT = Halves()
"""
Install = Callable[..., None]

CONTENT = b"HALVES" + bytes(range(200))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution: a module, and one entry point."""

    def install(
        code: str, group: str = plugins.FORMATS_GROUP, target: str = "their_plugin:FORMAT", name: str = "theirs"
    ) -> None:
        (tmp_path / "their_plugin.py").write_text(code)
        info = tmp_path / "their_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "their_plugin", raising=False)
        _forget()

    yield install
    _forget()


def _forget() -> None:
    plugins._installed.cache_clear()
    plugins._load.cache_clear()


def test_an_installed_format_finds_the_tensors_of_its_files(install: Install, tmp_path: Path) -> None:
    install(GOOD.replace("{dtype}", '"U8", (source.size - middle,)'))
    with opened(tmp_path / "theta") as depot:
        manifest = checkpoint.take(BytesSource(CONTENT), depot)
    assert (manifest.format, sorted(manifest.parameters)) == ("halves", ["left", "right"])


@pytest.mark.parametrize(
    ("code", "target"),
    [
        pytest.param("raise RuntimeError('broken')", "their_plugin:FORMAT", id="raises-on-import"),
        pytest.param("", "their_plugin:FORMAT", id="lacks-the-attribute"),
        pytest.param("", "no_such_module:FORMAT", id="names-no-module"),
        pytest.param(GOOD.replace("{dtype}", '"U8", (source.size / 0,)'), "their_plugin:FORMAT", id="raises-on-files"),
    ],
)
def test_a_broken_format_is_logged_and_the_file_is_stored_as_opaque(
    install: Install, code: str, target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(code, target=target)
    with opened(tmp_path / "theta") as depot, caplog.at_level(logging.WARNING):
        manifest = checkpoint.take(BytesSource(CONTENT), depot)
    assert manifest.format == "opaque"
    assert len(caplog.records) == 1


def test_a_format_whose_spans_contradict_the_file_is_passed_over(install: Install, tmp_path: Path) -> None:
    install(GOOD.replace("{dtype}", '"F32", (source.size,)'))
    with opened(tmp_path / "theta") as depot:
        assert checkpoint.take(BytesSource(CONTENT), depot).format == "opaque"


def test_an_update_that_is_not_installed_is_named() -> None:
    with pytest.raises(ManifestError, match="update 'row-delta' is not installed"):
        plugins.update("row-delta")


def test_an_installed_update_is_found(install: Install) -> None:
    install("UPDATE = object()", group=plugins.UPDATES_GROUP, target="their_plugin:UPDATE")
    assert type(plugins.update("theirs")) is object


STRATEGY = """
from git_theta.merges.base import Strategy

MERGE = Strategy("theirs-plus-one", "Their value and one.", "", lambda xp, inputs, options: inputs.theirs + 1)
"""


def test_an_installed_merge_strategy_is_found(install: Install) -> None:
    install(STRATEGY, group=plugins.MERGES_GROUP, target="their_plugin:MERGE")
    assert plugins.merge("theirs").summary == "Their value, bit for bit."  # the built-in one keeps its name
    assert plugins.merges()["theirs"].summary == "Their value, bit for bit."


def test_a_merge_strategy_of_a_name_of_its_own_merges(install: Install) -> None:
    install(
        STRATEGY.replace("theirs-plus-one", "mine"),
        group=plugins.MERGES_GROUP,
        target="their_plugin:MERGE",
        name="mine",
    )
    assert merged(plugins.merge("mine"), task(None, [1], [4])) == [5]
    assert list(plugins.merges())[-1] == "mine"


def test_a_merge_strategy_that_is_broken_is_logged_and_left_out(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("raise RuntimeError('broken')", group=plugins.MERGES_GROUP, target="their_plugin:MERGE", name="mine")
    with caplog.at_level(logging.WARNING):
        assert "mine" not in plugins.merges()
    assert len(caplog.records) == 1
    with pytest.raises(
        ConfigError, match="there is no merge strategy 'mine'; to see which there are: git theta strategies"
    ):
        plugins.merge("mine")


def test_the_built_in_merge_strategies() -> None:
    """Their names stand in commit messages and configurations: none may go."""
    names = """average ours theirs base max three-way task-arithmetic ties dare-linear dare-ties della breadcrumbs
    model-stock sce slerp nuslerp nearswap fisher regmean diloco-outer"""
    assert list(plugins.merges()) == names.split()
    assert all(strategy.name == name for name, strategy in plugins.merges().items())
