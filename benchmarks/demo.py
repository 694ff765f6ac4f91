"""See Git-Theta work: version a real model, go back, compare bytes, and do the same with git-lfs beside it.

Everything happens in a temporary folder with a Git configuration of its own. Ends with status 1 if bytes differ.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import models
from repository import Kind, Repository, installed

NAME = "model.safetensors"
CHANGED = "encoder.layer.3.intermediate.dense.weight"
TITLES = {"theta": "git-theta", "lfs": "git-lfs"}


@dataclass(slots=True)
class Outcome:
    """What one tool took: seconds for each step, bytes in its store after each version."""

    seconds: dict[str, float] = field(default_factory=dict)
    stored: list[int] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description="See Git-Theta work on a real model, side by side with git-lfs.")
    parser.add_argument("--model", type=Path, help="a safetensors file (default: all-MiniLM-L6-v2, from PyPI)")
    model: Path = parser.parse_args().model or models.real_model()
    tensors = models.read_tensors(model)
    changed = next((each for each in tensors if each.name == CHANGED), max(tensors, key=lambda each: each.size))
    with tempfile.TemporaryDirectory(prefix="git-theta-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        first, second = folder / "base.safetensors", folder / "trained.safetensors"
        shutil.copyfile(model, first)
        models.change_tensors(first, second, changed.name)
        print(f"{model.name}: {len(tensors)} parameters, {_mb(model.stat().st_size)}; in a repository in {folder}\n")
        outcomes = {"theta": _play(Script("theta", folder), first, second, changed)}
        if installed("git-lfs"):
            outcomes["lfs"] = _play(Script("lfs", folder, quiet=True), first, second, changed)
    _print_table(outcomes)
    print(f"\nBoth versions came back byte for byte. {_mb(changed.size)} of weights had changed.")


class Script:
    """Runs the commands of a tool in a new repository, and prints them as a user would type them."""

    def __init__(self, kind: Kind, folder: Path, *, quiet: bool = False) -> None:
        self.kind = kind
        self.repository = Repository(folder, kind, NAME)
        self.outcome = Outcome()
        self._quiet = quiet

    def run(self, *argv: str, step: str | None = None) -> None:
        """Run a command; with `step`, keep its seconds under that name."""
        seconds = self.repository.timed(*argv)
        typed = " ".join(f'"{word}"' if set(word) & set(" *") else word for word in argv if word != "--quiet")
        if step:
            self.outcome.seconds[step] = seconds
        self.say(f"$ {typed:<60}{f'{seconds:6.2f} s' if step else ''}")

    def say(self, line: str) -> None:
        if not self._quiet:
            print(line.rstrip(), flush=True)


def _play(script: Script, first: Path, second: Path, changed: models.Tensor) -> Outcome:
    """The main job: track, commit, train, commit, go back, and return."""
    repository = script.repository
    script.run("git", "init", "--quiet")
    script.run("git", script.kind, "install")
    script.run("git", script.kind, "track", "*.safetensors")

    repository.put(first)
    script.run("git", "add", ".gitattributes", NAME, step="git add, first version")
    repository.check_filtered()
    script.run("git", "commit", "--quiet", "-m", "base model")
    script.outcome.stored.append(repository.stored()[0])

    repository.put(second)
    script.say(f"  ... train: {changed.name} changes ...")
    script.run("git", "add", NAME, step="git add, one layer changed")
    script.run("git", "commit", "--quiet", "-m", "train layer 3")
    script.outcome.stored.append(repository.stored()[0])

    repository.settle()
    script.run("git", "checkout", "--quiet", "HEAD~1", step="git checkout HEAD~1")
    repository.check_equal(first)
    script.say("  ... the same bytes as at first")
    repository.settle()
    script.run("git", "checkout", "--quiet", "main", step="git checkout main")
    repository.check_equal(second)
    script.say("  ... the same bytes as after training")
    return script.outcome


def _print_table(outcomes: dict[str, Outcome]) -> None:
    print("\n" + " " * 30 + "".join(f"{TITLES[kind]:>14}" for kind in outcomes))
    for step in outcomes["theta"].seconds:
        print(f"{step:<30}" + "".join(f"{outcome.seconds[step]:>12.2f} s" for outcome in outcomes.values()))
    first = "".join(f"{_mb(outcome.stored[0]):>14}" for outcome in outcomes.values())
    more = "".join(f"{'+' + _mb(outcome.stored[1] - outcome.stored[0]):>14}" for outcome in outcomes.values())
    print(f"{'stored, first version':<30}{first}\n{'stored, second version':<30}{more}")
    if "lfs" not in outcomes:
        print("(git-lfs is not installed, so there is nothing to compare with)")


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
