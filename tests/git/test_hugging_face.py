"""What transformers, accelerate and peft write goes in by its parameters and comes out byte for byte."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from git_theta import manifest
from tests.repositories import Repo

PATTERNS = ("*.safetensors", "*.pt", "*.pth", "*.bin")


@pytest.fixture(scope="module")
def produced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that hugging_face.py has filled."""
    folder = tmp_path_factory.mktemp("hugging-face")
    program = Path(__file__).with_name("hugging_face.py")
    done = subprocess.run([sys.executable, program, folder], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture
def committed(produced: Path, repo: Repo) -> Repo:
    repo.track(*PATTERNS)
    shutil.copytree(produced, repo.path, dirs_exist_ok=True)
    repo.commit()
    return repo


def checkpoints(repo: Repo) -> list[str]:
    """The names of the tracked files."""
    return repo.git("ls-files", "-z", "--", *PATTERNS).split("\0")[:-1]


def test_every_file_comes_back(committed: Repo) -> None:
    names = checkpoints(committed)
    assert {Path(name).suffix for name in names} == {".safetensors", ".pt", ".pth", ".bin"}
    contents = {name: committed.read(name) for name in names}
    for name in names:
        (committed.path / name).unlink()
    committed.git("checkout", "--", ".")
    assert {name: committed.read(name) for name in names} == contents
    committed.dematerialise(*names)
    committed.ok("checkout")
    assert {name: committed.read(name) for name in names} == contents
    assert committed.git("status", "--porcelain") == ""


def test_parameters_are_those_of_the_model(committed: Repo) -> None:
    index = json.loads((committed.path / "sharded/model.safetensors.index.json").read_bytes())
    shards = [name for name in checkpoints(committed) if name.startswith("sharded/")]
    found = {name: manifest.parse(committed.blob(name)).parameters for name in shards}
    assert len(shards) > 1
    assert {key: Path(shard).name for shard, keys in found.items() for key in keys} == index["weight_map"]
    whole = manifest.parse(committed.blob("trained/checkpoint-2/model.safetensors"))
    digests = {key: row.digest for rows in found.values() for key, row in rows.items()}
    assert {key: row.digest for key, row in whole.parameters.items()} == digests
    optimizer = manifest.parse(committed.blob("trained/checkpoint-2/optimizer.pt"))
    assert optimizer.format == "torch"
    assert {key.rpartition("/")[2] for key in optimizer.parameters} == {"exp_avg", "exp_avg_sq", "step"}
    assert len(optimizer.parameters) == 3 * len(whole.parameters)
    adapter = manifest.parse(committed.blob("adapter/adapter_model.safetensors"))
    assert len([key for key in adapter.parameters if "lora_A" in key]) == 4
    for name in ("rng_state.pth", "scheduler.pt", "training_args.bin"):
        assert manifest.parse(committed.blob(f"trained/checkpoint-2/{name}")).format == "torch"


def test_same_weights_in_other_files_are_stored_once(committed: Repo, produced: Path) -> None:
    before = set(committed.objects())
    shutil.copyfile(produced / "trained/checkpoint-2/model.safetensors", committed.path / "copy.safetensors")
    committed.git("add", "copy.safetensors")
    assert set(committed.objects()) == before


LOAD = """
import sys
from transformers import BertForSequenceClassification
model = BertForSequenceClassification.from_pretrained(sys.argv[1])
import torch
torch.save(model.state_dict(), sys.argv[2])
"""


def test_a_merged_checkpoint_of_a_training_is_loaded(produced: Path, repo: Repo, tmp_path: Path) -> None:
    """Two went on training from it: weights, the optimizer's state and the scheduler's are merged, and loaded."""
    repo.track(*PATTERNS)
    shutil.copytree(produced / "trained" / "checkpoint-2", repo.path, dirs_exist_ok=True)
    repo.commit("base")
    weights = load_file(repo.path / "model.safetensors")
    optimizer = torch.load(repo.path / "optimizer.pt")
    scheduler = torch.load(repo.path / "scheduler.pt")

    def train(by: float, lr: float, last_epoch: int) -> dict[str, torch.Tensor]:
        made = {name: value + by for name, value in weights.items()}
        save_file(made, repo.path / "model.safetensors", {"format": "pt"})
        state = {
            key: {name: value + by if name == "exp_avg" else value for name, value in row.items()}
            for key, row in optimizer["state"].items()
        }
        groups = [{**group, "lr": lr} for group in optimizer["param_groups"]]
        torch.save({"state": state, "param_groups": groups}, repo.path / "optimizer.pt")
        torch.save({**scheduler, "last_epoch": last_epoch}, repo.path / "scheduler.pt")
        repo.commit("trained")
        return made

    repo.git("checkout", "--quiet", "-b", "other")
    lr = optimizer["param_groups"][0]["lr"]
    theirs = train(0.5, lr, 300)
    repo.git("checkout", "--quiet", "main")
    ours = train(0.25, lr / 2, scheduler["last_epoch"])
    repo.git("merge", "--quiet", "--no-edit", "other")
    subprocess.run([sys.executable, "-c", LOAD, repo.path, tmp_path / "loaded.pt"], check=True, capture_output=True)
    loaded = torch.load(tmp_path / "loaded.pt")
    for name, value in ours.items():
        assert torch.equal(loaded[name], (value + theirs[name]) * 0.5), name
    merged = torch.load(repo.path / "optimizer.pt")
    assert {group["lr"] for group in merged["param_groups"]} == {lr / 2}
    for key, row in optimizer["state"].items():
        assert torch.equal(merged["state"][key]["exp_avg"], ((row["exp_avg"] + 0.25) + (row["exp_avg"] + 0.5)) * 0.5)
        assert torch.equal(merged["state"][key]["step"], row["step"])
    assert torch.load(repo.path / "scheduler.pt") == {**scheduler, "last_epoch": 300}
