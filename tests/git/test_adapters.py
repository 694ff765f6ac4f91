"""What `git theta add` makes of a base with a PEFT adapter is what peft makes of it, bit for bit."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from git_theta import manifest
from tests.repositories import Repo

TORCH_CASES = ("plain", "embedding")


@pytest.fixture(scope="session")
def produced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that adapters.py has filled."""
    folder = tmp_path_factory.mktemp("adapters")
    program = Path(__file__).with_name("adapters.py")
    done = subprocess.run([sys.executable, program, folder], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture
def based(produced: Path, repo: Repo) -> Repo:
    """A repository with the plain base as model.safetensors and as model.pt, committed."""
    repo.track("*.safetensors", "*.pt")
    for end in ("safetensors", "pt"):
        shutil.copyfile(produced / f"plain/base.{end}", repo.path / f"model.{end}")
    repo.commit()
    return repo


def update_type(case: str) -> str:
    return "ia3" if case.startswith("ia3") else "low-rank"


def updates(repo: Repo, name: str) -> dict[str, str]:
    """The last update of every parameter in the index that is not dense."""
    found = manifest.parse(repo.blob(name)).parameters
    return {key: row.store[-1].update for key, row in found.items() if row.store[-1].update != "dense"}


def test_every_kind_of_adapter_gives_what_peft_gives(produced: Path, repo: Repo, tmp_path: Path) -> None:
    cases = sorted(path.name for path in produced.iterdir())
    assert len(cases) == 13
    repo.track("*.safetensors")
    for case in cases:
        shutil.copyfile(produced / case / "base.safetensors", repo.path / f"{case}.safetensors")
    repo.commit()
    merged = {case: (produced / case / "merged.safetensors").read_bytes() for case in cases}
    for case, content in merged.items():
        name = f"{case}.safetensors"
        brought = str(produced / case / "adapter")
        repo.ok("add", name, "--update-type", update_type(case), "--update-path", brought)
        assert repo.read(name) == content, case
        assert update_type(case) in updates(repo, name).values()
    assert set(repo.git("status", "--porcelain").splitlines()) == {f"M  {case}.safetensors" for case in cases}
    repo.git("commit", "--quiet", "--message", "adapted")
    clone = Repo(tmp_path / "clone")
    repo.git("clone", "--quiet", str(repo.path), str(clone.path))
    assert {case: clone.read(f"{case}.safetensors") for case in cases} == merged


@pytest.mark.parametrize("case", TORCH_CASES)
def test_nested_torch_checkpoint_stays_one_that_torch_and_zip_read(produced: Path, repo: Repo, case: str) -> None:
    repo.track("*.pt")
    shutil.copyfile(produced / case / "base.pt", repo.path / "model.pt")
    repo.commit()
    repo.ok("add", "model.pt", "--update-type", "low-rank", "--update-path", str(produced / case / "adapter"))
    with zipfile.ZipFile(repo.path / "model.pt") as file:
        assert file.testzip() is None
    made, wanted = (torch.load(path) for path in (repo.path / "model.pt", produced / case / "merged.pt"))
    assert (made["epoch"], made["model"].keys()) == (3, wanted["model"].keys())
    for key, value in wanted["model"].items():
        assert torch.equal(made["model"][key].view(torch.uint8), value.view(torch.uint8)), key
    assert set(updates(repo, "model.pt").values()) == {"low-rank"}


def test_result_in_the_file_is_stored_by_its_factors(based: Repo, produced: Path) -> None:
    merged = (produced / "plain/merged.safetensors").read_bytes()
    based.write("model.safetensors", merged)
    said = based.ok(
        "add", "model.safetensors", "--update-type", "low-rank", "--update-path", str(produced / "plain/adapter")
    )
    assert said == "model.safetensors: 4 parameters updated by low-rank, found in the file and staged\n"
    assert list(updates(based, "model.safetensors").values()) == ["low-rank"] * 4
    blob = based.blob("model.safetensors")
    assert based.read("model.safetensors") == merged
    assert based.git("status", "--porcelain") == "M  model.safetensors\n"
    (based.path / "model.safetensors").touch()
    based.git("add", "model.safetensors")
    assert based.blob("model.safetensors") == blob
    assert "low-rank" in based.ok("info", "--full", "model.safetensors")


def test_expected_file_is_what_is_written(based: Repo, produced: Path) -> None:
    adapter = ("--update-type", "low-rank", "--update-data", str(produced / "plain/adapter"))
    merged = produced / "plain/merged.safetensors"
    said = based.ok("add", "model.safetensors", *adapter, "--expect", str(merged))
    assert said == "model.safetensors: 4 parameters updated by low-rank, written to the file and staged\n"
    assert based.read("model.safetensors") == merged.read_bytes()
    assert list(updates(based, "model.safetensors").values()) == ["low-rank"] * 4
    based.git("commit", "--quiet", "--message", "adapted")
    assert based.git("status", "--porcelain") == ""


def test_expected_file_that_the_update_does_not_give_is_refused(based: Repo, produced: Path) -> None:
    adapter = ("--update-type", "low-rank", "--update-path", str(produced / "plain/adapter"))
    before = based.read("model.safetensors")
    other = str(produced / "patterns/merged.safetensors")
    assert "parameter 'bert.encoder." in based.fails(3, "add", "model.safetensors", *adapter, "--expect", other)
    assert "no such file" in based.fails(3, "add", "model.safetensors", *adapter, "--expect", "nowhere")
    assert based.read("model.safetensors") == before
    based.write("model.safetensors", (produced / "plain/merged.safetensors").read_bytes())
    merged = str(produced / "plain/merged.safetensors")
    assert "is not the base's" in based.fails(3, "add", "model.safetensors", *adapter, "--expect", merged)


def test_adapter_in_a_torch_file(based: Repo, produced: Path) -> None:
    folder = based.path / "adapter"
    folder.mkdir()
    shutil.copyfile(produced / "plain/adapter/adapter_config.json", folder / "adapter_config.json")
    shutil.copyfile(produced / "plain/adapter_model.bin", folder / "adapter_model.bin")
    based.ok("add", "model.safetensors", "--update-type", "low-rank", "--update-path", "adapter")
    assert based.read("model.safetensors") == (produced / "plain/merged.safetensors").read_bytes()
