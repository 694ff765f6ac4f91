"""The page of `git theta diff --html`: what stands in it, and what a browser makes of it."""

import base64
import hashlib
import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from git_theta.commands.html_output import DIFF, page
from git_theta.names import shown
from tests.browser import Browser, browser
from tests.repositories import Repo, model

A = "a.safetensors"
EVIL = [
    "<!--<script>",
    "]]>&amp;\"'`",
    "a\u202eb\x1b[31m",
    "back\\slash \u2028 \U0001f600",
    "<img src=x onerror=alert(1)>",
]
VOID = {"meta", "br", "link", "input"}


class Parsed(HTMLParser):
    """The elements of a page, whose tags must be closed in order, and the texts in those of one name."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


def tensors(*, trained: bool) -> dict[str, Any]:
    """A model of twelve layers, and names that mean harm."""
    rng = np.random.default_rng(3)
    made = {
        f"model.layers.{layer}.{module}.weight": rng.standard_normal((6, 5)).astype("<f4")
        for layer in range(12)
        for module in ("mlp.up", "attn.q", "attn.k")
    }
    made |= {name: rng.standard_normal(4).astype("<f4") for name in EVIL}
    made["model.layers.7.norm.weight"] = np.ones(5, "<f4")
    if trained:
        for number, name in enumerate(made):
            made[name] = made[name] * np.float32(1 + 10 ** -(1 + number % 4))
        made[EVIL[0]][1] = np.nan
    return made


@pytest.fixture
def changed(repo: Repo) -> Repo:
    """A commit, and a file in the worktree in which everything changed."""
    repo.track("*.safetensors")
    safetensors.numpy.save_file(tensors(trained=False), repo.path / A, {"epoch": "3"})
    repo.commit()
    safetensors.numpy.save_file(tensors(trained=True), repo.path / A, {"epoch": "4", "note": "</script><b>"})
    return repo


def made(repo: Repo, *options: str) -> str:
    assert repo.ok("diff", "--html", "page.html", *options) == ""
    return (repo.path / "page.html").read_bytes().decode("ascii")


def test_the_page_is_well_formed_and_holds_the_document(changed: Repo) -> None:
    parsed = Parsed(made(changed))
    data, script = parsed.texts["script"]
    assert json.loads(data) == json.loads(changed.ok("diff", "--json", "--full", "--histogram"))
    assert not set("<>&") & set(data)
    assert script.startswith('"use strict"')
    assert parsed.texts["pre"] == [changed.ok("diff", "--histogram").rstrip("\n")], "for those who run no scripts"


def test_the_page_can_load_nothing_and_run_one_script(changed: Repo) -> None:
    text = made(changed)
    parsed = Parsed(text)
    [policy] = [found["content"] for tag, found in parsed.attributes if "http-equiv" in found]
    rules = dict(rule.split(" ", 1) for rule in (policy or "").split("; "))

    def digest(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": digest(parsed.texts["script"][1]),
        "style-src": digest(parsed.texts["style"][0]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not {"src", "href", "style", "onclick"} & {name for _, found in parsed.attributes for name in found}
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert set(re.findall(r"\w+://[^\s\"']+", text)) == namespaces
    assert "url(" not in parsed.texts["style"][0]
    assert "@import" not in parsed.texts["style"][0]
    assert "innerHTML" not in text


def test_the_file_is_replaced_whole(changed: Repo) -> None:
    changed.write("page.html", b"old")
    assert made(changed).startswith("<!doctype html>")
    assert [path.name for path in changed.path.iterdir() if "page" in path.name] == ["page.html"]
    assert "nowhere" in changed.fails(7, "diff", "--html", "nowhere/page.html")
    assert changed.theta("diff", "--html", "page.html", "--exit-code").code == 1


def test_a_page_without_differences(changed: Repo) -> None:
    data = Parsed(made(changed, "HEAD", "HEAD")).texts["script"][0]
    assert json.loads(data) == {"version": 1, "files": []}


@pytest.mark.skipif(os.name == "nt", reason="its viewer is a shell script")
def test_open_shows_a_temporary_file(changed: Repo, tmp_path: Path) -> None:
    """The browser is a program that copies what it is shown."""
    viewer = tmp_path / "viewer"
    viewer.write_text('#!/bin/sh\necho "$1" > "$SEEN"\n', encoding="ascii")
    viewer.chmod(0o755)
    seen = tmp_path / "seen"
    variables = {"BROWSER": f"{viewer} %s", "SEEN": str(seen), "TMPDIR": str(tmp_path)}
    done = changed.run_theta("diff", "--open", **variables)
    assert (done.code, done.out, done.err) == (0, "", "")
    path = Path(seen.read_text(encoding="ascii").strip().removeprefix("file://"))
    assert path.parent == tmp_path
    assert path.read_bytes().startswith(b"<!doctype html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it is for this user alone"
    changed.run_theta("diff", "--open", "--html", "kept.html", **variables)
    assert seen.read_text(encoding="ascii").strip() == (changed.path / "kept.html").as_uri()
    done = changed.run_theta("diff", "--open", **variables | {"BROWSER": "false"})
    assert done.code == 3
    assert "no browser was found to open it" in done.err


def test_one_kind_of_output_at_a_time(tracked: Repo) -> None:
    for options in (["--json", "--ndjson"], ["--json", "--open"], ["--ndjson", "--html", "x.html"]):
        assert "One of --json, --ndjson, and --html or --open." in tracked.theta("diff", *options).err
    assert not (tracked.path / "x.html").exists()


def test_lines_of_json(tracked: Repo) -> None:
    tracked.write(A, model(7))
    tracked.write("sub/b.safetensors", model(8))
    for options in ([], ["--full"]):
        lines = tracked.ok("diff", "--ndjson", *options).splitlines()
        documents = json.loads(tracked.ok("diff", "--json", *options))["files"]
        assert [json.loads(line) for line in lines] == [{"version": 1, **document} for document in documents]
        assert len(lines) == 2
    assert tracked.ok("diff", "--ndjson", "HEAD", "HEAD") == ""


ROWS = "[...document.querySelectorAll('.changes tbody tr')]"
NAMES = f"{ROWS}.map(row => row.cells[0].textContent)"


def test_a_browser_shows_it(changed: Repo, tmp_path: Path) -> None:
    made(changed, "--histogram", "--rank")
    document = json.loads(changed.ok("diff", "--json", "--full", "--histogram"))
    groups = document["files"][0]["groups"]
    with browser(tmp_path / "profile") as seen:
        seen.show(changed.path / "page.html")
        assert seen.value(NAMES) == [shown(group["name"]) for group in groups]
        alarms = seen.value("document.querySelector('[role=alert]').innerText")
        assert f"{shown(EVIL[0])} \u2014 NaN: 0 \u2192 1" in alarms
        assert seen.value("document.querySelectorAll('img, b, script').length") == 2, "its own two scripts"
        heat = "document.querySelector('.heat')"
        assert seen.value(f"{heat}.rows.length") == 1 + 12
        assert seen.value(f"[...{heat}.rows[0].cells].map(cell => cell.textContent)") == [
            "",
            "attn.k.weight",
            "attn.q.weight",
            "mlp.up.weight",
            "norm.weight",
        ]
        column = seen.value(f"[...{heat}.rows].slice(1).map(row => row.cells[4].textContent !== '\u2013')")
        assert column == [layer == 7 for layer in range(12)], "it stands beside the others of its layer"
        first = next(group for group in groups if group["name"] == "model.layers.0.attn.k.weight")
        percent = f"{100 * first['statistics']['relative_change']:.2g}%"
        assert seen.value(f"{heat}.rows[1].cells[1].textContent") == percent
        assert '"4"' in seen.value("document.body.innerText")
        _histogram(seen, groups)
        _sort(seen, groups)
        _filter(seen)
        assert seen.complaints == []
        assert seen.asked == [(changed.path / "page.html").as_uri()]
        seen.show(changed.path / "page.html", 360, 640, dark=True)
        assert seen.value("document.documentElement.scrollWidth") <= 360, "a phone scrolls tables, not the page"
        assert seen.value("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
        assert seen.complaints == []


def _histogram(seen: Browser, groups: list[dict[str, Any]]) -> None:
    total = [sum(bins) for bins in zip(*(group["statistics"]["histogram"] for group in groups), strict=True)]
    heights = seen.value("[...document.querySelectorAll('svg rect')].map(bar => +bar.getAttribute('height'))")
    assert heights == pytest.approx([120 * bin_ / max(total) for bin_ in total])
    assert f"{max(total):,} from 1e" in seen.value("document.querySelector('svg').getAttribute('aria-label')")
    column = "[...document.querySelectorAll('.changes th')].findIndex(th => th.textContent === 'effective rank')"
    ranks = seen.value(f"{ROWS}.map(row => row.cells[{column}].textContent)")
    assert [rank != "" for rank in ranks] == [len(group["after"]["shape"]) == 2 for group in groups]


def _sort(seen: Browser, groups: list[dict[str, Any]]) -> None:
    """By the keyboard: the largest change first, then the smallest, then by name."""
    head = "[...document.querySelectorAll('.changes th')].find(th => th.textContent === '|change|/|weight|')"
    wanted = sorted((group["statistics"]["relative_change"] for group in groups), reverse=True)
    by_name = {shown(group["name"]): group["statistics"]["relative_change"] for group in groups}
    seen.value(f"{head}.firstChild.focus()")
    seen.press("Enter", 13)
    assert seen.value(f"{head}.getAttribute('aria-sort')") == "descending"
    assert [by_name[name] for name in seen.value(NAMES)] == wanted
    seen.press("Enter", 13)
    assert seen.value(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert [by_name[name] for name in seen.value(NAMES)] == wanted[::-1]
    seen.value("document.querySelector('.changes th button').click()")
    assert seen.value("document.querySelectorAll('[aria-sort]').length") == 1
    names = [name for name in seen.value(NAMES) if name.endswith("mlp.up.weight")]
    assert names == [f"model.layers.{layer}.mlp.up.weight" for layer in range(12)], "2 comes before 10"


def _filter(seen: Browser) -> None:
    seen.value(
        "new Promise(done => { const box = document.querySelector('input'); box.value = 'LAYERS.1 .q';"
        "box.dispatchEvent(new Event('input')); requestAnimationFrame(() => requestAnimationFrame(done)); })"
    )
    assert seen.value(NAMES) == [f"model.layers.{layer}.attn.q.weight" for layer in (1, 10, 11)]
    assert seen.value("document.querySelector('[role=status]').textContent") == "3 of 3 that match, of 42"


def test_a_browser_shows_twenty_thousand_parameters(tmp_path: Path) -> None:
    statistics = {
        "nan": [0, 0],
        "infinite": [0, 0],
        "elements": 4,
        "changed": 4,
        "norm_before": 1.0,
        "norm_change": 0.1,
    }
    statistics |= {"relative_change": 0.1, "largest_change": 0.1, "cosine": 1.0, "norm_after": 1.0}
    face = {"dtype": "F32", "shape": [2, 2]}
    group = {"kind": "changed", "name_before": None, "owner": None, "before": face, "after": face, "size_bytes": 16}
    groups = [
        {**group, "name": f"layers.{layer}.experts.{expert}.weight", "updates": ["dense"], "statistics": statistics}
        for layer in range(100)
        for expert in range(200)
    ]
    side = {"digest": "0" * 64, "format": "safetensors", "size_bytes": 1, "parameters": 20_000}
    file: dict[str, object] = {
        "path": "m",
        "path_before": "m",
        "before": side,
        "after": side,
        "counts": {"changed": 20_000},
        "errors": [],
    }
    file |= {"groups": groups, "alarms": [], "scalars": [], "added_bytes": None, "beside_parameters": None}
    file |= {"not_computed": {"count": 0, "size_bytes": 0}}
    path = tmp_path / "page.html"
    path.write_bytes(page(DIFF, {"version": 1, "files": [file]}, []))
    with browser(tmp_path / "profile") as seen:
        seen.show(path)
        assert seen.value(f"{ROWS}.length") == 500
        seen.value("document.querySelector('.more').click()")
        assert seen.value(f"{ROWS}.length") == 1000
        assert seen.value("document.querySelector('.heat').rows[1].cells[1].textContent") == "10%"
        assert seen.value("performance.getEntriesByType('navigation')[0].loadEventEnd") < 10_000
        assert seen.complaints == []
