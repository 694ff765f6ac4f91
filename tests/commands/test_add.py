"""`git theta add`: updates that the user brings, and plain `git add`."""

import io
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from git_theta import checkpoint, choice, manifest, splice
from tests.checkpoints import Tensor, safetensors, weights
from tests.repositories import Repo

NAME = "model.safetensors"
SHAPE = (96, 64)
BASE = {
    "a.weight": ("F32", SHAPE, weights(96 * 64)),
    "b.weight": ("F32", SHAPE, weights(96 * 64, 1)),
    "c.bias": ("F32", (64,), weights(64, 2)),
    "q.weight": ("I8", (4, 4), bytes(16)),
}


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small whole numbers, whose products and sums are exact in any order."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype("<f4")


def tensor(array: np.ndarray) -> Tensor:
    dtype = {"float32": "F32", "int64": "I64", "uint8": "U8"}[array.dtype.name]
    return dtype, array.shape, array.tobytes()


LEFT, RIGHT = numbers((96, 2), 5), numbers((2, 64), 6)
FACTORS = {"a.weight/R": tensor(LEFT), "a.weight/C": tensor(RIGHT)}


def value(name: str, tensors: Mapping[str, Tensor] = BASE) -> np.ndarray:
    _, shape, data = tensors[name]
    return np.frombuffer(data, "<f4").reshape(shape)


def with_values(**changes: np.ndarray) -> bytes:
    """The base's file with other values of `a_weight` and the like."""
    named = {name.replace("_", "."): tensor(array) for name, array in changes.items()}
    return safetensors(BASE | named)


ADAPTED = with_values(a_weight=value("a.weight") + LEFT @ RIGHT)


@pytest.fixture
def based(repo: Repo) -> Repo:
    """A repository with the base committed, and an update of it beside."""
    repo.track("*.safetensors", "*.pt")
    repo.write(NAME, safetensors(BASE))
    repo.commit()
    (repo.path / ".git/info/exclude").write_text("update*\n")
    repo.write("update", safetensors(FACTORS))
    return repo


def add(update: str = "low-rank", path: str = "update", *others: str) -> tuple[str, ...]:
    return ("add", NAME, "--update-type", update, "--update-path", path, *others)


def last_updates(repo: Repo, name: str = NAME) -> dict[str, str]:
    return {key: row.store[-1].update for key, row in manifest.parse(repo.blob(name)).parameters.items()}


def standing(repo: Repo) -> tuple[object, ...]:
    """What an add that fails leaves as it was."""
    status = (repo.path / NAME).stat()
    leftovers = sorted((repo.path / ".git/theta/tmp").glob("*")), sorted(repo.path.iterdir())
    return repo.read(NAME), status.st_ino, status.st_mtime_ns, repo.git("ls-files", "-s"), leftovers


def refused(repo: Repo, *command: str, code: int = 3) -> str:
    before = standing(repo)
    line = repo.fails(code, *command)
    assert standing(repo) == before
    return line


def test_values_that_are_stored_whole_all_the_same_are_told(based: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MAX_HELD_BYTES", 100)
    said = based.ok(*add()).splitlines()
    assert said[0] == f"{NAME}: 1 parameter updated by low-rank, written to the file and staged"
    assert said[1].startswith("1 parameter stored whole all the same: the updates behind it are too many or too large")
    assert last_updates(based)["a.weight"] == "dense"
    assert based.read(NAME) == ADAPTED


def test_update_is_applied_written_and_staged(based: Repo) -> None:
    (based.path / NAME).chmod(0o640)
    assert based.ok(*add()) == f"{NAME}: 1 parameter updated by low-rank, written to the file and staged\n"
    assert based.read(NAME) == ADAPTED
    assert (based.path / NAME).stat().st_mode & 0o777 == 0o640
    assert last_updates(based)["a.weight"] == "low-rank"
    blob = based.blob(NAME)
    assert based.git("status", "--porcelain") == f"M  {NAME}\n"
    based.write(NAME, ADAPTED)
    based.git("add", NAME)
    assert based.blob(NAME) == blob
    based.git("commit", "--quiet", "--message", "adapted")
    based.git("checkout", "--quiet", "HEAD~1")
    assert based.read(NAME) == safetensors(BASE)
    based.git("checkout", "--quiet", "-")
    assert based.read(NAME) == ADAPTED


def test_git_knows_the_written_file_without_reading_it(based: Repo) -> None:
    based.ok(*add())
    later_s = (based.path / NAME).stat().st_mtime + 10  # Git looks at what is as young as the index
    os.utime(based.path / ".git/index", (later_s, later_s))
    based.git("config", "filter.theta.process", "false")
    assert based.git("status", "--porcelain") == f"M  {NAME}\n"


def test_doing_it_again_stages_the_same(based: Repo) -> None:
    based.ok(*add())
    blob = based.blob(NAME)
    assert "found in the file" in based.ok(*add())
    assert (based.blob(NAME), based.read(NAME)) == (blob, ADAPTED)


def test_result_may_have_other_parameters_changed_too(based: Repo) -> None:
    both = with_values(a_weight=value("a.weight") + LEFT @ RIGHT, b_weight=-value("b.weight"))
    based.write(NAME, both)
    assert "found in the file" in based.ok(*add())
    assert last_updates(based) | {"b.weight": ""} == last_updates(based) | {"a.weight": "low-rank", "b.weight": ""}
    assert based.read(NAME) == both
    based.dematerialise(NAME)
    based.ok("checkout")
    assert based.read(NAME) == both


def test_base_may_have_other_parameters_changed_too(based: Repo) -> None:
    based.write(NAME, with_values(b_weight=-value("b.weight")))
    assert "written to the file" in based.ok(*add())
    both = with_values(a_weight=value("a.weight") + LEFT @ RIGHT, b_weight=-value("b.weight"))
    assert based.read(NAME) == both


def test_base_may_be_in_the_index_only(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(NAME, safetensors(BASE))
    repo.git("add", NAME)
    repo.write("update", safetensors(FACTORS))
    repo.ok(*add())
    assert repo.read(NAME) == ADAPTED
    assert last_updates(repo)["a.weight"] == "low-rank"


def test_other_kinds_of_updates(based: Repo) -> None:
    a, b, c = (value(name) for name in ("a.weight", "b.weight", "c.bias"))
    multipliers = numbers((64,), 7)
    based.write("update-ia3", safetensors({"b.weight/ia3": tensor(multipliers), "c.bias/ia3": tensor(multipliers)}))
    based.ok(*add("ia3", "update-ia3"))
    tripled = {"b_weight": b * multipliers, "c_bias": c * multipliers}
    assert based.read(NAME) == with_values(**tripled)
    assert last_updates(based)["b.weight"] == "ia3"
    based.commit()
    rows = np.array([90, 3])
    new = numbers((2, 64), 8)
    based.write("update-rows", safetensors({"a.weight/indices": tensor(rows), "a.weight/values": tensor(new)}))
    based.ok(*add("sparse", "update-rows"))
    changed = a.copy()
    changed[rows] = new
    assert based.read(NAME) == with_values(a_weight=changed, **tripled)
    assert last_updates(based)["a.weight"] == "sparse"
    based.write("update-whole", safetensors({"a.weight/value": tensor(a + 1)}))
    based.commit()
    based.ok(*add("dense", "update-whole"))
    assert based.read(NAME) == with_values(a_weight=a + 1, **tripled)


def test_torch_file_with_a_dict_of_factors_and_a_turned_parameter(based: Repo) -> None:
    """A weight that torch has stored column by column, updated by each kind that can be."""
    whole, plain = torch.from_numpy(value("a.weight").copy()), torch.ones(3)

    def write(matrix: torch.Tensor) -> None:
        torch.save({"model": {"w": matrix, "v": plain}}, based.path / "m.pt")

    write(whole.t())
    based.commit("a turned one")
    factors = {"w": {"R": torch.from_numpy(RIGHT.T.copy()), "C": torch.from_numpy(LEFT.T.copy())}}
    row = torch.from_numpy(numbers((96,), 9))
    value_now = whole.t()
    for update, parts in (
        ("low-rank", factors),
        ("ia3", {"w": {"ia3": row}}),
        ("dense", {"w": {"value": torch.arange(96.0 * 64).reshape(64, 96)}}),
    ):
        torch.save(parts, based.path / "update.pt")
        based.ok("add", "m.pt", "--update-type", update, "--update-path", "update.pt")
        made = torch.load(based.path / "m.pt")["model"]
        if update == "low-rank":
            value_now = value_now + torch.from_numpy((LEFT @ RIGHT).T)
            assert last_updates(based, "m.pt")["model/w"] == "low-rank"
        value_now = value_now * row if update == "ia3" else parts["w"]["value"] if update == "dense" else value_now
        assert torch.equal(made["w"], value_now)
        assert made["w"].stride() == (1, 64)
        assert torch.equal(made["v"], plain)
        based.commit(update)
    torch.save({"w/indices": torch.tensor([1]), "w/values": torch.tensor([1.0])}, based.path / "update.pt")
    line = based.fails(3, "add", "m.pt", "--update-type", "sparse", "--update-path", "update.pt")
    assert "parameter 'model/w': it is stored column by column" in line


def test_tied_weight_is_updated_under_each_of_its_names(repo: Repo) -> None:
    repo.track("*.pt")
    weight = torch.from_numpy(value("a.weight").copy())
    torch.save({"wte": weight, "head": weight}, repo.path / "m.pt")
    repo.commit()
    for name in ("wte", "head"):
        repo.write("update", safetensors({key.replace("a.weight", name): row for key, row in FACTORS.items()}))
        repo.ok("add", "m.pt", "--update-type", "low-rank", "--update-path", "update")
        made = torch.load(repo.path / "m.pt")
        weight = weight + torch.from_numpy(LEFT @ RIGHT)
        assert torch.equal(made["wte"], weight)
        assert made["wte"].data_ptr() == made["head"].data_ptr()
        repo.commit()
    both = {key.replace("a.weight", name): row for key, row in FACTORS.items() for name in ("wte", "head")}
    repo.write("update", safetensors(both))
    line = repo.fails(3, "add", "m.pt", "--update-type", "low-rank", "--update-path", "update")
    assert "there are two updates of it" in line


NAN = np.full((96, 2), np.nan, "<f4")


@pytest.mark.parametrize(
    ("update", "tensors", "said"),
    [
        ("low-rank", {"nowhere/R": tensor(LEFT), "nowhere/C": tensor(RIGHT)}, "'nowhere' is no parameter of the base"),
        ("low-rank", FACTORS | {"b.weight/R": tensor(LEFT)}, "parameter 'b.weight': its 'C' is missing"),
        ("low-rank", {"a.weight/R": tensor(LEFT), "a.weight/C": tensor(LEFT)}, "parameter 'a.weight': its R [96, 2]"),
        ("low-rank", {"c.bias/R": tensor(LEFT), "c.bias/C": tensor(RIGHT)}, "parameter 'c.bias': its shape is [64]"),
        ("low-rank", FACTORS | {"a.weight/R": tensor(NAN)}, "parameter 'a.weight': its R holds NaN or infinity"),
        (
            "low-rank",
            {"q.weight/R": tensor(LEFT), "q.weight/C": tensor(RIGHT)},
            "parameter 'q.weight': it is of dtype I8",
        ),
        ("low-rank", FACTORS | {"a.weight": tensor(LEFT)}, "tensor 'a.weight' is not named after a parameter"),
        ("low-rank", FACTORS | {"a.weight/X": tensor(LEFT)}, "parameter 'a.weight': 'X' is supplied for it"),
        ("ia3", {"a.weight/ia3": tensor(LEFT)}, "parameter 'a.weight': its shape is [96, 64], to which ia3 [96, 2]"),
        ("dense", {"a.weight/value": tensor(LEFT)}, "parameter 'a.weight': it is F32 [96, 64]"),
        ("sparse", {"a.weight/indices": tensor(np.array([96])), "a.weight/values": tensor(RIGHT[:1])}, "indices leave"),
        ("delta", FACTORS, "--update-type: the content of 'delta' is made by git-theta"),
        ("no\nsuch", FACTORS, r"--update-type: 'no\nsuch' is no name"),
        ("nosuch", FACTORS, "--update-type: update 'nosuch' is not installed"),
    ],
    ids=range(14),
)
def test_updates_that_do_not_fit_are_refused_by_name(
    based: Repo, update: str, tensors: dict[str, Tensor], said: str
) -> None:
    based.write("update", safetensors(tensors))
    line = refused(based, *add(update))
    assert line.startswith(f"git-theta: {NAME}: ")
    assert said in line


def test_result_that_the_update_does_not_give_is_refused(based: Repo) -> None:
    based.write(NAME, with_values(a_weight=-value("a.weight")))
    assert "parameter 'a.weight': it is not what the supplied low-rank update makes" in refused(based, *add())
    based.write(NAME, with_values(a_weight=numbers((64, 96), 3)))
    assert "parameter 'a.weight' is F32 [64, 96] in the file, and F32 [96, 64] in the base" in refused(based, *add())
    based.write(NAME, safetensors({"b.weight": BASE["b.weight"]}))
    assert "parameter 'a.weight' is not in the file" in refused(based, *add())


def test_files_that_are_not_there(based: Repo) -> None:
    assert "nowhere: no such file" in refused(based, *add("low-rank", "nowhere"))
    based.write("update", b"text")
    assert "no tensor is found in it" in refused(based, *add())
    (based.path / "update-empty").mkdir()
    assert "it is no PEFT adapter" in refused(based, *add("low-rank", "update-empty"))


def test_base_that_is_not_in_the_history(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(NAME, safetensors(BASE))
    repo.write("update", safetensors(FACTORS))
    assert "neither HEAD nor the index has a checkpoint of it" in refused(repo, *add())


def test_file_that_is_not_tracked(repo: Repo) -> None:
    repo.write(NAME, safetensors(BASE))
    repo.write("update", safetensors(FACTORS))
    assert "it is not tracked; run: git theta track" in refused(repo, *add())


def test_file_that_is_missing_or_a_manifest(based: Repo) -> None:
    based.dematerialise(NAME)
    assert "git theta pull" in refused(based, *add(), code=4)
    (based.path / NAME).unlink()
    assert "there is no such file" in based.fails(3, *add())


def test_base_whose_objects_are_missing(based: Repo) -> None:
    for path in based.objects():
        path.unlink()
    assert "is not on this machine" in refused(based, *add(), code=4)


def test_conflict_is_refused(based: Repo) -> None:
    rows = [f"100644 {based.git('rev-parse', f':{NAME}').strip()} {stage}\t{NAME}\n" for stage in (1, 2, 3)]
    based.git("rm", "--quiet", "--cached", NAME)
    argv = ["git", "update-index", "--index-info"]
    subprocess.run(argv, cwd=based.path, input="".join(rows).encode(), check=True)
    assert "it is in conflict" in refused(based, *add())


def test_index_that_another_process_holds(based: Repo) -> None:
    lock = based.write(".git/index.lock", b"")
    assert "index.lock" in refused(based, *add(), code=7)
    lock.unlink()
    based.ok(*add())


@pytest.mark.parametrize("work", ["splice.write", "checkpoint.take"])
def test_file_that_is_written_to_meanwhile_is_left_alone(
    based: Repo, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    works: dict[str, Callable[..., Any]] = {"splice.write": splice.write, "checkpoint.take": checkpoint.take}
    other = with_values(b_weight=value("a.weight"))

    def slow(*arguments: Any, **others: Any) -> Any:
        result = works[work](*arguments, **others)
        based.write(NAME, other)
        return result

    monkeypatch.setattr(f"git_theta.{work}", slow)
    listing = based.git("ls-files", "-s")
    assert "it was written to" in based.fails(6, *add())
    assert (based.read(NAME), based.git("ls-files", "-s")) == (other, listing)


def test_index_is_as_it_was_where_the_file_cannot_be_replaced(based: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(first: Path, second: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("git_theta.libc.exchange", fails)
    assert "it cannot be written to" in refused(based, *add(), code=7)
    assert based.git("status", "--porcelain") == ""


def test_usage(based: Repo) -> None:
    for command in (
        ("add", NAME, "--update-type", "ia3"),
        ("add", NAME, "--expect", NAME),
        ("add", NAME, "other", "--update-type", "ia3", "--update-path", "update"),
        ("add",),
    ):
        assert based.theta(*command).code == 2


def test_plain_add_is_gits(based: Repo) -> None:
    based.write("sub/other.safetensors", safetensors(BASE))
    done = based.run_theta("add", "other.safetensors", cwd="sub")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert last_updates(based, "sub/other.safetensors") == last_updates(based)
    done = based.run_theta("add", "nowhere")
    assert done.code == 128
    assert "did not match any files" in done.err


def test_names_that_would_move_a_cursor_are_escaped(based: Repo) -> None:
    based.write("update", safetensors({"\x1b[31m/R": tensor(LEFT)}))
    assert r"'\u001b[31m'" in refused(based, *add())


def test_torch_checkpoint_is_written_as_torch_reads_it(based: Repo) -> None:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.from_numpy(value("a.weight").copy())}, buffer)
    based.write("m.pt", buffer.getvalue())
    based.commit()
    based.ok("add", "m.pt", "--update-type", "low-rank", "--update-path", "update")
    assert torch.equal(torch.load(based.path / "m.pt")["a.weight"], torch.from_numpy(value("a.weight") + LEFT @ RIGHT))
    assert len(based.read("m.pt")) == len(buffer.getvalue())
