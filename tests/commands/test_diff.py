"""`git theta diff`: real Git, real files, every way to say what is compared."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from git_theta import cli, manifest
from tests.checkpoints import brain_weights, linux_only, trained, weights
from tests.checkpoints import safetensors as made_of
from tests.repositories import Repo, model, scripts_path

A = "a.safetensors"
Tensors = dict[str, torch.Tensor]


def layers(seed: int = 0) -> Tensors:
    """A small model as transformers names it."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    made = {"embed.weight": noise(50, 8), "old_head.weight": noise(3, 3), "gone": noise(2, 2)}
    for number in range(4):
        for word in ("q", "k", "v"):
            made[f"layers.{number}.{word}_proj.weight"] = noise(16, 16).bfloat16()
    return made


def after_training(before: Tensors) -> Tensors:
    """Every kind of change at once."""
    made = dict(before)
    for number in range(4):
        for word in ("q", "v"):
            name = f"layers.{number}.{word}_proj.weight"
            made[name] = (made[name].float() * 1.01).bfloat16()
    made["embed.weight"] = torch.cat([made["embed.weight"], torch.zeros(2, 8)])
    made["new_head.weight"] = made.pop("old_head.weight")
    del made["gone"]
    made["added"] = torch.ones(5)
    return made


def save(repo: Repo, name: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    path = repo.path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path, metadata)
    else:
        torch.save(tensors, path)


@pytest.fixture
def trained_repo(repo: Repo) -> Repo:
    """m.safetensors and m.pt in two commits."""
    repo.track("*.safetensors", "*.pt")
    for tensors in (layers(), after_training(layers())):
        for name in ("m.safetensors", "m.pt"):
            save(repo, name, tensors)
        repo.commit()
    return repo


def rows(out: str) -> list[list[str]]:
    """The lines below the head of the one file, cut where columns are."""
    return [[cell for cell in line.split("   ") if cell.strip()] for line in out.splitlines()[1:]]


def test_every_kind_of_change(trained_repo: Repo) -> None:
    out = trained_repo.ok("diff", "HEAD~1", "HEAD", "--", "m.safetensors")
    head, *lines = out.splitlines()
    old, new = (manifest.parse(_blob(trained_repo, f"{rev}:m.safetensors")) for rev in ("HEAD~1", "HEAD"))
    assert head.startswith(
        f"m.safetensors  {old.digest[:7]}..{new.digest[:7]}   15 parameters: "
        "1 added, 1 removed, 1 renamed, 1 resized, 8 changed, 4 unchanged   +"
    )
    assert " stored of " in head
    starts = [line.split("  ")[1].strip() for line in lines if not line.startswith("     ")]
    assert starts == [
        "+ added",
        "~ embed.weight",
        "- gone",
        "~ layers.{0-3}.{q,v}_proj.weight",
        "> old_head.weight -> new_head.weight",
    ]
    assert "[50, 8] -> [52, 8] F32   2 rows added, no other row changed" in out
    [folded] = [line for line in lines if "{q,v}" in line]
    assert "   8x [16, 16] BF16   " in folded
    [detail] = [line for line in lines if "|change|/|weight|" in line]
    assert "(max " in detail
    assert " of elements" in detail
    assert "cosine 0.9999" in detail


def _blob(repo: Repo, name: str) -> bytes:
    done = subprocess.run(["git", "cat-file", "blob", name], cwd=repo.path, capture_output=True, check=True)
    return done.stdout


def test_numbers_are_those_of_torch(trained_repo: Repo) -> None:
    document = json.loads(trained_repo.ok("diff", "--json", "--full", "HEAD~1", "HEAD", "m.pt"))
    old, new = layers(), after_training(layers())
    [file] = document["files"]
    changed = {group["name"]: group["statistics"] for group in file["groups"] if group["kind"] == "changed"}
    assert len(changed) == 8
    for name, found in changed.items():
        before, after = old[name].double().flatten(), new[name].double().flatten()
        assert found["norm_change"] == pytest.approx(float((after - before).norm()))
        assert found["relative_change"] == pytest.approx(float((after - before).norm() / before.norm()))
        assert found["cosine"] == pytest.approx(float(torch.dot(before, after) / before.norm() / after.norm()))
        assert found["largest_change"] == pytest.approx(float((after - before).abs().max()))
        assert found["changed"] == int((old[name].view(torch.int16) != new[name].view(torch.int16)).sum())


def _keys(value: object) -> object:
    """The keys of a document, of the first item where there is a list of objects."""
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items() if key != "counts"}
    return [_keys(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_the_document_is_the_one_that_is_documented(repo: Repo) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = text[text.index("## git theta diff,") :]
    documented = json.loads(section.split("```json\n")[1].split("```")[0])
    repo.track("*.safetensors")
    layers_before = {f"l.{number}": torch.ones(2, 2) for number in range(4)}
    save(repo, A, {"w": torch.ones(2, 2), **layers_before}, {"epoch": "3"})
    repo.commit()
    factors = (1.01, 1.02, 1.5, 1.01)
    layers_after = {name: layers_before[name] * factor for name, factor in zip(layers_before, factors, strict=True)}
    save(repo, A, {"w": torch.tensor([[1, float("nan")], [1, 1]]), **layers_after}, {"epoch": "4"})
    repo.commit()
    made = json.loads(repo.ok("diff", "--json", "HEAD~1", "HEAD"))
    assert _keys(made) == _keys(documented)
    names = made["files"][0]["counts"].keys()
    assert names > documented["files"][0]["counts"].keys()
    assert all(f"`{name}`" in section for name in names - {"unchanged"})


def test_sides_are_those_of_git_diff(tracked: Repo) -> None:
    """Without a revision the index is compared with the worktree, with one the revision, with two each other."""
    assert tracked.ok("diff") == ""
    tracked.write(A, model(7))
    for arguments in ([], ["HEAD"], [A], ["HEAD", "--", A], ["--", A], ["HEAD", "."]):
        assert tracked.ok("diff", *arguments).startswith(f"{A}  "), arguments
    for arguments in (["--cached"], ["HEAD", "HEAD"], ["sub"], ["--cached", "HEAD"], ["--", "nothing"]):
        assert tracked.ok("diff", *arguments) == "", arguments
    worktree = tracked.ok("diff")
    assert "stored" not in worktree, "it is not stored yet"
    tracked.git("add", A)
    assert tracked.ok("diff") == ""
    staged = tracked.ok("diff", "--cached")
    assert staged == tracked.ok("diff", "--staged", "HEAD")
    assert staged.split("   ")[0] == worktree.split("   ")[0], "the same digests"
    tracked.git("commit", "-qm", "two")
    assert tracked.ok("diff", "HEAD~1", "HEAD") == staged
    assert tracked.ok("diff", "HEAD~1..") == tracked.ok("diff", "HEAD~1...HEAD") == staged
    assert tracked.ok("diff", "HEAD~1") == staged, "the file is as the index has it"
    back = tracked.ok("diff", "HEAD..HEAD~1")
    assert back.split("  ")[1].split(" ")[0] == "..".join(reversed(staged.split("  ")[1].split(" ")[0].split("..")))


def test_nothing_is_stored_and_no_filter_is_run(tracked: Repo) -> None:
    before = tracked.objects()
    tracked.git("config", "filter.theta.process", "false")
    tracked.write(A, model(7))
    assert tracked.ok("diff").startswith(A)
    assert tracked.objects() == before


def test_a_file_that_was_only_touched_is_the_same(tracked: Repo) -> None:
    os.utime(tracked.path / A, (2_000_000_000, 2_000_000_000))
    assert tracked.ok("diff") == ""
    assert tracked.theta("diff", "--exit-code").code == 0


def test_a_manifest_in_the_worktree_stands_for_its_checkpoint(tracked: Repo) -> None:
    tracked.dematerialise(A)
    assert tracked.ok("diff") == ""
    tracked.write(A, model(7))
    tracked.commit()
    tracked.dematerialise(A)
    assert "4 changed" in tracked.ok("diff", "HEAD~1")
    tracked.write(A, tracked.blob("sub/b.safetensors"))
    assert "cosine" in tracked.ok("diff"), "another's manifest, whose objects are here"


def test_added_removed_and_moved_files(tracked: Repo) -> None:
    tracked.git("mv", A, "c.safetensors")
    changed = bytearray(model())
    changed[-1] ^= 1
    tracked.write("c.safetensors", bytes(changed))
    tracked.write("d.safetensors", model(50))
    tracked.git("rm", "-q", "sub/b.safetensors")
    tracked.commit()
    out = tracked.ok("diff", "HEAD~1", "HEAD")
    heads = [line for line in out.splitlines() if not line.startswith("  ") and line]
    assert [head.split("  ")[0] for head in heads] == [f"{A} -> c.safetensors", "d.safetensors", "sub/b.safetensors"]
    assert "4 parameters: 1 changed, 3 unchanged" in heads[0]
    assert "  0000000.." in heads[1]
    assert "4 parameters: 4 added, 0 unchanged" in heads[1]
    assert "..0000000   4 parameters: 4 removed, 0 unchanged" in heads[2]
    assert "  + layers.{0-2}.weight   3x [128, 160] F32   245.8 KB   dense" in out
    (tracked.path / "d.safetensors").unlink()
    assert "..0000000   4 parameters: 4 removed" in tracked.ok("diff")


def test_the_first_commit_is_compared_with_nothing(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(A, model())
    repo.git("add", "-A")
    assert "4 parameters: 4 added" in repo.ok("diff", "--cached")


def test_other_files_are_left_to_git(tracked: Repo) -> None:
    tracked.write("notes.txt", b"x" * 1000)
    tracked.commit()
    assert tracked.ok("diff", "HEAD~1", "HEAD") == ""


def test_two_files_of_two_formats(home: Path, tmp_path: Path) -> None:
    """Outside of a repository, a checkpoint by safetensors and the same by torch."""
    here = Repo(tmp_path)
    save(here, "one.safetensors", layers())
    save(here, "two.pt", layers())
    save(here, "three.pt", after_training(layers()))
    out = here.ok("diff", "one.safetensors", "two.pt")
    assert out.count("\n") == 1
    assert "15 parameters: 15 unchanged   safetensors -> torch" in out
    out = here.ok("diff", "one.safetensors", "three.pt")
    assert out.startswith("one.safetensors -> three.pt  ")
    assert "1 added, 1 removed, 1 renamed, 1 resized, 8 changed, 4 unchanged" in out
    assert "cosine" in out
    assert here.ok("diff", "two.pt", "two.pt") == ""
    assert "two files" in here.fails(3, "diff", "two.pt")
    assert here.fails(3, "diff", "two.pt", "none.pt") == "git-theta: none.pt: no such file\n"
    assert here.theta("diff", "--exit-code", "one.safetensors", "two.pt").code == 1


def test_files_in_a_repository(tracked: Repo) -> None:
    tracked.write("loose.safetensors", model(9))
    out = tracked.ok("diff", A, "loose.safetensors")
    assert out.startswith(f"{A} -> loose.safetensors  ")
    assert tracked.ok("diff", A, "sub/b.safetensors") == "", "both are tracked: two paths"
    assert tracked.ok("diff", "--no-index", A, "sub/b.safetensors").startswith(f"{A} -> sub/b.safetensors  ")
    assert "4 unchanged" not in tracked.ok("diff", f"HEAD:{A}", "loose.safetensors")
    assert tracked.ok("diff", f"HEAD:{A}", A) == ""
    tracked.write("sub/b.safetensors", model(9))
    tracked.commit()
    assert tracked.ok("diff", "HEAD~1:sub", "HEAD:sub").startswith("b.safetensors  "), "these are trees"
    assert tracked.ok("diff", f"HEAD:{A}", "HEAD:sub/b.safetensors").startswith(f"HEAD:{A} -> HEAD:sub/b.safetensors")


def test_parameters_that_are_asked_for(trained_repo: Repo) -> None:
    out = trained_repo.ok("diff", "HEAD~1", "HEAD", "--param", "layers.2.*", "--param", "gone")
    for head in (line for line in out.splitlines() if not line.startswith("  ") and line):
        assert "3 parameters: 1 removed, 2 changed, 1 unchanged" in head
    assert trained_repo.ok("diff", "HEAD~1", "HEAD", "--param", "layers.*.k_proj*") == ""


def test_order_and_full(trained_repo: Repo) -> None:
    def names(*options: str) -> list[str]:
        out = trained_repo.ok("diff", "HEAD~1", "HEAD", *options, "--", "m.pt")
        return [line.split()[1] for line in out.splitlines()[1:] if not line.startswith("     ")]

    assert names("--sort", "size")[0] == "layers.{0-3}.{q,v}_proj.weight"
    assert names("--sort", "rel")[0] == "layers.{0-3}.{q,v}_proj.weight"
    full = names("--full")
    assert len(full) == 12
    assert full[:3] == ["added", "embed.weight", "gone"]
    assert full[3:5] == ["layers.0.q_proj.weight", "layers.0.v_proj.weight"]


def test_statistics_by_size(trained_repo: Repo) -> None:
    def computed(*options: str) -> bool:
        out = trained_repo.ok("diff", "HEAD~1", "HEAD", *options, "m.pt")
        assert ("cosine" in out) != ("not computed; --stats computes them" in out)
        return "cosine" in out

    assert not computed("--no-stats")
    trained_repo.git("config", "theta.diffStats", "5k")
    assert not computed(), "8 values of 512 bytes and one of 1,664"
    assert "statistics of 9 parameters (5.8 KB) not computed" in trained_repo.ok("diff", "HEAD~1", "HEAD", "m.pt")
    trained_repo.git("config", "theta.diffStats", "6k")
    assert computed()
    trained_repo.git("config", "theta.diffStats", "false")
    assert computed(), "they are known from before"
    assert not computed("--no-stats")
    (trained_repo.path / ".git" / "theta" / "statistics.sqlite").unlink()
    assert not computed()
    assert computed("--stats")


def test_a_second_look_reads_no_value(trained_repo: Repo) -> None:
    first = trained_repo.ok("diff", "HEAD~1", "HEAD")
    for path in trained_repo.objects():
        path.unlink()
    assert trained_repo.ok("diff", "HEAD~1", "HEAD") == first


def test_missing_objects_leave_the_summary(tracked: Repo) -> None:
    old = manifest.parse(tracked.blob(A))
    tracked.write(A, model(7))
    tracked.commit()
    oid = old.parameters["layers.1.weight"].store[0].pieces[0].oid
    next(path for path in tracked.objects() if path.name == oid).unlink()
    out = tracked.ok("diff", "HEAD~1", "HEAD")
    assert "4 parameters: 4 changed, 0 unchanged" in out
    # What builds on the old value, and what the old value is, need the one object.
    assert f"  no statistics of 1 parameter: object {oid} is not on this machine; run: git theta fetch REVISION" in out
    assert "cosine" in out, "the others are there"
    assert json.loads(tracked.ok("diff", "--json", "HEAD~1", "HEAD"))["files"][0]["errors"] == [
        f"object {oid} is not on this machine"
    ]


def test_nan_is_loud(repo: Repo) -> None:
    repo.track("*.safetensors")
    values = np.ones((4, 3), "<f4")
    safetensors.numpy.save_file({"w": values, "v": values}, repo.path / A)
    repo.commit()
    broken = values.copy()
    broken[0, 0], broken[1, 1] = np.nan, -np.inf
    safetensors.numpy.save_file({"w": broken, "v": values}, repo.path / A)
    out = repo.ok("diff")
    assert "  ! w   NaN: 0 -> 1   Inf: 0 -> 1\n" in out
    assert "2 of 4 rows" in out
    assert json.loads(repo.ok("diff", "--json"))["files"][0]["alarms"] == [
        {"name": "w", "nan": [0, 1], "infinite": [0, 1]}
    ]


def test_metadata_and_order_alone(repo: Repo) -> None:
    repo.track("*.safetensors")
    one, two = (("F32", (2,), weights(2, seed)) for seed in (1, 2))
    repo.write(A, made_of({"a": one, "b": two}))
    repo.commit()
    repo.write(A, made_of({"b": two, "a": one}))
    out = repo.ok("diff")
    assert "2 parameters: 2 unchanged" in out
    assert "  * the parameters stand in another order in the file\n" in out
    save(repo, A, {"a": torch.ones(2)}, {"epoch": "3"})
    repo.commit()
    save(repo, A, {"a": torch.ones(2)}, {"epoch": "4"})
    assert '  * epoch   "3" -> "4"\n' in repo.ok("diff")


def test_numbers_of_a_pickle(repo: Repo) -> None:
    """Beside a change of the parameters, too; a file in the worktree and stored versions say the same."""
    repo.track("*.pt")

    def save_run(epoch: int, lr: float, weight: torch.Tensor) -> None:
        torch.save({"model": {"w": weight}, "epoch": epoch, "opt": {"lr": lr, "b": float("inf")}}, repo.path / "m.pt")

    save_run(3, 2e-5, torch.ones(300, 3))
    repo.commit()
    save_run(4, 1e-5, torch.ones(400, 3))
    out = repo.ok("diff")
    assert "  * epoch   3 -> 4\n  * opt/lr   2e-05 -> 1e-05\n" in out
    assert "1 resized" in out
    repo.commit()
    [file] = json.loads(repo.ok("diff", "--json", "HEAD~1", "HEAD"))["files"]
    assert file["scalars"] == [
        {"name": "epoch", "before": 3, "after": 4},
        {"name": "opt/lr", "before": 2e-5, "after": 1e-5},
    ]
    assert file["beside_parameters"] is None


def test_numbers_of_pickles_of_two_kinds(home: Path, tmp_path: Path) -> None:
    """A file by a torch before archives, and one by a later torch."""
    here = Repo(tmp_path)
    weight = torch.ones(300, 3)
    torch.save({"w": weight, "epoch": 3, "s": 1}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    torch.save({"w": weight, "epoch": 4, "s": 1}, tmp_path / "b.pt")
    torch.save({"w": weight, "epoch": 4, "s": 1}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert here.ok("diff", "a.pt", "b.pt").splitlines()[1:] == ["  * epoch   3 -> 4"]
    assert here.ok("diff", "a.pt", "c.pt").splitlines()[1:] == ["  * epoch   3 -> 4"]
    assert here.ok("diff", "b.pt", "c.pt").splitlines()[1:] == []


def test_the_rank_of_an_update(repo: Repo) -> None:
    repo.track("*.safetensors")
    base = np.frombuffer(weights(96 * 64), "<f4").reshape(96, 64)
    left, right = (np.ones(shape, "<f4") for shape in ((96, 2), (2, 64)))
    safetensors.numpy.save_file({"w": base}, repo.path / A)
    repo.commit()
    safetensors.numpy.save_file({"w/R": left, "w/C": right}, repo.path / "update")
    repo.ok("add", A, "--update-type", "low-rank", "--update-path", "update")
    out = repo.ok("diff", "--cached")
    assert "  ~ w   [96, 64] F32   low-rank r=2\n" in out
    assert json.loads(repo.ok("diff", "--cached", "--json"))["files"][0]["groups"][0]["updates"] == ["low-rank"]
    repo.ok("diff", "--cached")
    for path in repo.objects():
        path.unlink()
    assert "  ~ w   [96, 64] F32   low-rank\n" in repo.ok("diff", "--cached"), "it is not here to be looked at"


def test_ties(repo: Repo) -> None:
    repo.track("*.pt")
    weight = torch.randn(4, 4)
    save(repo, "m.pt", {"embed": weight, "head": weight.clone()})
    repo.commit()
    save(repo, "m.pt", {"embed": weight, "head": weight})
    assert "  = head   [4, 4] F32   now another name of embed\n" in repo.ok("diff")
    repo.commit()
    assert "  = head   [4, 4] F32   no longer another name of embed" in repo.ok("diff", "HEAD", "HEAD~1")


def test_another_dtype(repo: Repo) -> None:
    repo.track("*.safetensors")
    brain = brain_weights(64)
    wide = (np.frombuffer(brain, "<u2").astype("<u4") << 16).tobytes()
    repo.write(A, made_of({"w": ("BF16", (8, 8), brain)}))
    repo.commit()
    repo.write(A, made_of({"w": ("F32", (8, 8), wide)}))
    assert rows(repo.ok("diff"))[0][1:] == [" [8, 8] BF16 -> F32"[1:]]
    assert "every number is the same" in repo.ok("diff")
    repo.write(A, made_of({"w": ("F32", (8, 8), trained(wide, scale=1e-3))}))
    assert "1 dtype changed" in repo.ok("diff")
    assert "cosine" in repo.ok("diff")


def test_one_bad_file_does_not_hide_the_others(tracked: Repo) -> None:
    tracked.stage_blob(A, b'{"git-theta": 1, "about": "x"}')
    tracked.write("sub/b.safetensors", model(7))
    tracked.git("add", "sub")
    done = tracked.theta("diff", "--cached")
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"git-theta: {A}: its manifest cannot be used: ")
    assert done.out.startswith("sub/b.safetensors  ")


def test_a_file_that_git_has_as_it_is(repo: Repo) -> None:
    repo.write(A, model())
    repo.commit()
    assert repo.theta("track", "*.safetensors").code == 0
    repo.git("add", "--renormalize", A)
    assert "Git has it as it is, not as a manifest" in repo.fails(3, "diff", "--cached")


def test_a_file_in_conflict(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "-b", "other")
    tracked.write(A, model(7))
    tracked.commit()
    tracked.git("checkout", "-q", "main")
    tracked.write(A, model(8))
    tracked.commit()
    tracked.git("-c", "merge.theta.driver=false", "merge", "-q", "other", accept=(1,))
    assert "it is in conflict; take a side" in tracked.fails(3, "diff")


def test_names_are_escaped(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(A, made_of({"w\x1b[31m": ("F32", (2,), weights(2)), "\x1b]0;v": ("F32", (3,), weights(3))}))
    repo.commit()
    repo.write(A, made_of({"w\x1b[31m": ("F32", (2,), weights(2, 5)), "\x1b]0;u": ("F32", (3,), weights(3))}))
    for options in ([], ["--full"], ["--json"]):
        out = repo.ok("diff", *options)
        assert "\x1b" not in out
        assert "\\u001b[31m" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing: no such revision or path; to name a path that is gone, put -- before it"),
        (["nothing", "--"], "nothing: no such revision"),
        (["HEAD", "HEAD", "HEAD", "--"], "at most two revisions are compared, and one with --cached"),
        (["--cached", "HEAD", "HEAD"], "at most two revisions are compared, and one with --cached"),
        (["HEAD..HEAD", "HEAD", "--"], "at most two revisions are compared, and one with --cached"),
        (["--no-index", A], "two files are compared here: git theta diff OLD NEW"),
        (["main"], "main: a revision and a path have this name; put -- behind it, or before it"),
        (["..", "--"], "..: no such revision"),
    ],
    ids=str,
)
def test_wrong_arguments(tracked: Repo, arguments: list[str], said: str) -> None:
    tracked.write("main", b"a file")
    assert tracked.fails(3, "diff", *arguments) == f"git-theta: {said}\n"


def test_histories_without_a_common_ancestor(tracked: Repo) -> None:
    tracked.git("checkout", "-q", "--orphan", "other")
    tracked.git("commit", "-qm", "another root")
    assert "no common ancestor" in tracked.fails(3, "diff", "main...other")
    assert tracked.ok("diff", "main..other") == ""


def test_a_word_that_is_two_things_is_told_apart_by_dashes(tracked: Repo) -> None:
    tracked.write("main", b"a file")
    tracked.write(A, model(7))
    assert tracked.ok("diff", "main", "--").startswith(A)
    assert tracked.ok("diff", "--", "main") == ""


def test_exit_code(tracked: Repo) -> None:
    assert tracked.theta("diff", "--exit-code").code == 0
    tracked.write(A, model(7))
    assert tracked.theta("diff", "--exit-code").code == 1
    assert tracked.theta("diff").code == 0


def test_a_bare_repository_has_commits_to_compare(tracked: Repo, tmp_path: Path) -> None:
    tracked.write(A, model(7))
    tracked.commit()
    tracked.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    bare = Repo(tmp_path / "bare.git")
    assert bare.ok("diff", "--no-stats", "HEAD~1", "HEAD").startswith(A)
    assert "a bare repository has no files" in bare.fails(7, "diff")


def test_from_a_folder_below(tracked: Repo) -> None:
    tracked.write("sub/b.safetensors", model(7))
    assert tracked.ok("diff", "b.safetensors", cwd="sub").startswith("sub/b.safetensors  ")
    assert tracked.ok("diff", "..", cwd="sub").startswith("sub/b.safetensors  ")


def test_colours_are_those_of_git(tracked: Repo) -> None:
    tracked.write(A, model(7))
    tracked.git("config", "color.diff", "always")
    tracked.git("config", "color.diff.meta", "blue")
    done = tracked.run_theta("diff")
    assert done.out.startswith(f"\x1b[34m{A}")
    assert "\x1b" not in tracked.run_theta("diff", NO_COLOR="1").out
    tracked.git("config", "color.diff", "auto")
    assert "\x1b" not in tracked.run_theta("diff").out


def test_git_finds_the_command(tracked: Repo) -> None:
    tracked.write(A, model(7))
    assert tracked.git("theta", "diff").startswith(A)
    assert tracked.git("theta", "diff", "HEAD", "--", A).startswith(A)


def test_where_histograms_are_too_much_statistics_of_before_are_shown(trained_repo: Repo) -> None:
    assert "cosine" in trained_repo.ok("diff", "HEAD~1", "HEAD", "m.pt")
    trained_repo.git("config", "theta.diffStats", "1k")
    out = trained_repo.ok("diff", "--histogram", "HEAD~1", "HEAD", "m.pt")
    assert "cosine" in out
    assert "changed elements by" not in out
    assert "changed elements by" in trained_repo.ok("diff", "--histogram", "--stats", "HEAD~1", "HEAD", "m.pt")


def test_ranks_and_histograms_on_request(repo: Repo) -> None:
    repo.track("*.safetensors")
    old = layers()
    save(repo, A, old)
    repo.commit()
    new = dict(old)
    for number in range(3):
        name = f"layers.{number}.q_proj.weight"
        new[name] = (old[name].float() * (1 + torch.ones(16, 1) * 2.0**-number)).bfloat16()
    new["embed.weight"] = old["embed.weight"] + torch.ones(50, 1) @ torch.ones(1, 8) * 2
    save(repo, A, new)
    repo.commit()
    plain = repo.ok("diff", "HEAD~1", "HEAD")
    assert "rank" not in plain
    assert "changed elements" not in plain
    asked = repo.ok("diff", "HEAD~1", "HEAD", "--rank", "--histogram")
    assert "   effective rank 1\n" in asked, "of the embedding"
    assert "   effective rank 12" in asked, "of noise"
    assert "        changed elements by |change|/|weight|   1e-1: " in asked
    [file] = json.loads(repo.ok("diff", "HEAD~1", "HEAD", "--rank", "--histogram", "--json"))["files"]
    found = {group["name"]: group["statistics"] for group in file["groups"]}
    assert found["embed.weight"]["effective_rank"] == pytest.approx([1, 1], rel=1e-4)
    smallest, largest = found["layers.{0-2}.q_proj.weight"]["effective_rank"]
    assert 10 < smallest < largest < 16
    for group in found.values():
        assert sum(group["histogram"]) == group["changed"]
    assert repo.ok("diff", "HEAD~1", "HEAD") == plain, "the ledger has what it had"
    assert "rank 1\n" not in repo.ok("diff", "HEAD~1", "HEAD", "--histogram")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("options", [["--full"], ["--json", "--full"], ["--ndjson", "--full"]], ids=" ".join)
def test_a_reader_that_leaves_early(repo: Repo, options: list[str]) -> None:
    repo.track("*.safetensors")
    for factor in (1, 2):
        save(repo, A, {f"layers.{number}.weight": torch.full((3,), float(factor)) for number in range(2000)})
        repo.commit()
    command = [str(scripts_path() / "git-theta"), "diff", *options, "HEAD~1", "HEAD"]
    with subprocess.Popen(command, cwd=repo.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == cli.EXIT_PIPE


@linux_only
def test_a_user_who_has_waited_long_enough(repo: Repo) -> None:
    """Ctrl-C, while ranks are computed: for half a minute, if it were not for that."""
    repo.track("*.safetensors")
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        save(repo, A, {f"w{number}": torch.randn(1024, 1024, generator=generator) for number in range(12)})
        repo.commit()
    repo.git("config", "theta.threads", "1")
    command = [str(scripts_path() / "git-theta"), "diff", "--rank", "HEAD~1", "HEAD"]
    with subprocess.Popen(command, cwd=repo.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (repo.path / ".git" / "theta" / "statistics.sqlite").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert (out, err.strip()) == (b"", b"")
    assert process.returncode == cli.EXIT_INTERRUPTED
