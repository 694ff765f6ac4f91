"""What two sides say beside their parameters: merged one by one, settled by rules, and loaded by torch again."""

import io
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from git_theta.depot import Depot
from git_theta.formats import archive
from git_theta.outcome import Outcome
from git_theta.rules import SKELETON, Rule
from git_theta.source import BytesSource
from git_theta.threeway import Action, Case
from tests.checkpoints import content_of, opened
from tests.test_outcome import LARGE, many, outcome_of


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path / "theta") as made:
        yield made


class Trained:
    """A model and its optimizer after a step, as a training loop saves them, in one of torch's formats."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def save(
        self, step: float, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), **scalars: object
    ) -> bytes:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=betas)
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        saved = {"epoch": 1, "best": 0.25, "arch": "resnet", "done": False, **scalars}
        tensors = {"a": torch.from_numpy(LARGE + np.float32(step)), "empty": torch.ones(0)}
        buffer = io.BytesIO()
        checkpoint = {**saved, "model": model.state_dict(), **tensors, "optimizer": optimizer.state_dict()}
        torch.save(checkpoint, buffer, **self.options)
        return buffer.getvalue()


TRAINED = pytest.mark.parametrize(
    "trained",
    [
        Trained(),
        Trained(_use_new_zipfile_serialization=False),
        Trained(pickle_protocol=4),
        Trained(_use_new_zipfile_serialization=False, pickle_protocol=5),
    ],
    ids=["torch", "legacy", "torch with protocol 4", "legacy with protocol 5"],
)


def reloaded(made: Outcome, depot: Depot, **options: Any) -> Any:
    content = content_of(made.manifest, depot)
    if content.startswith(b"PK"):
        entries = archive.read(BytesSource(content))
        assert {entry.offset % 64 for entry in entries} == {0}
        assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    # Of protocol 4 and 5 torch's own unpickler warns.
    return torch.load(io.BytesIO(content), weights_only="pickle_protocol" not in options)


@TRAINED
@pytest.mark.parametrize("epoch", [2, 300, 70_000, -1, 2**40, 0.5, True, None, "later" * 100])
def test_scalars_of_a_pickle_are_merged_one_by_one(trained: Trained, epoch: object, depot: Depot) -> None:
    ours = trained.save(1, epoch=epoch, best=0.125, lr=1e-4)
    theirs = trained.save(2, best=0.125, done=True, betas=(0.9, 0.95), arch="vit")
    made = outcome_of(depot, trained.save(0), ours, theirs)
    assert made.conflicts == ()
    found = reloaded(made, depot, **trained.options)
    assert (found["epoch"], type(found["epoch"])) == (epoch, type(epoch))
    assert (found["best"], found["arch"], found["done"]) == (0.125, "vit", True)
    [group] = found["optimizer"]["param_groups"]
    assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.95))
    assert found["a"].numpy().tobytes() == (((LARGE + 1) + (LARGE + 2)) * np.float32(0.5)).tobytes()
    unchanged = torch.load(io.BytesIO(ours), weights_only=False)
    assert found["model"]["weight"].tolist() == unchanged["model"]["weight"].tolist()
    assert found["optimizer"]["state"][0]["step"].item() == 1


@pytest.mark.parametrize("force_zip64", [False, True])
def test_an_archive_that_zipfile_wrote(force_zip64: bool, depot: Depot) -> None:
    """Its headers say sizes and checksums, nothing pads them, and there is no end record for zip64."""

    def repacked(content: bytes) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
            for name in old.namelist():
                with new.open(name, "w", force_zip64=force_zip64 and name.endswith("pkl")) as file:
                    file.write(old.read(name))
        return made.getvalue()

    save = Trained().save
    base = repacked(save(0))
    made = outcome_of(depot, base, repacked(save(1, epoch=300)), repacked(save(2, best=70_000, done=None)))
    content = content_of(made.manifest, depot)
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    found = torch.load(io.BytesIO(content))
    [entry] = [row for row in zipfile.ZipFile(io.BytesIO(base)).infolist() if row.filename.endswith("data.pkl")]
    (size,) = struct.unpack_from("<L", base, entry.header_offset + 22)
    if size == 0xFFFFFFFF:  # Python 3.11.4 and newer: the sizes stand in an extra field, which is left alone
        assert force_zip64
        assert [(one.name, "do not stand in its header" in one.reason) for one in made.conflicts] == [(SKELETON, True)]
        assert (found["epoch"], found["best"]) == (300, 0.25)
    else:
        assert made.conflicts == ()
        assert (found["epoch"], found["best"], found["done"]) == (300, 70_000, None)


@TRAINED
def test_a_side_whose_scalars_are_the_results_keeps_its_file(trained: Trained, depot: Depot) -> None:
    theirs = trained.save(1, epoch=70_000)
    made = outcome_of(depot, trained.save(0), trained.save(0), theirs)
    assert content_of(made.manifest, depot) == theirs


@TRAINED
def test_scalars_that_both_sides_changed_are_conflicts_by_name(trained: Trained, depot: Depot) -> None:
    versions = (
        trained.save(0),
        trained.save(1, epoch=2, lr=1e-4, best=0.5),
        trained.save(2, epoch=300, lr=1e-5, done=True),
    )
    made = outcome_of(depot, *versions)
    assert {one.name: one.reason for one in made.conflicts} == {
        "~skeleton/epoch": "both sides changed it, from 1 to 2 and to 300",
        "~skeleton/optimizer/param_groups/0/lr": "both sides changed it, from 0.001 to 0.0001 and to 1e-05",
    }
    found = reloaded(made, depot, **trained.options)
    assert (found["epoch"], found["best"], found["done"]) == (2, 0.5, True)
    rules = (Rule("~skeleton/*/lr", "average"), Rule("~skeleton/epoch", "max"))
    made = outcome_of(depot, *versions, rules)
    assert made.conflicts == ()
    found = reloaded(made, depot, **trained.options)
    assert (found["epoch"], found["best"], found["done"]) == (300, 0.5, True)
    assert found["optimizer"]["param_groups"][0]["lr"] == (1e-4 + 1e-5) / 2
    settled = {one.name: (one.action, one.strategy) for one in made.decisions if one.case is Case.SKELETON}
    assert settled == {
        "~skeleton/epoch": (Action.MERGE, "max"),
        "~skeleton/optimizer/param_groups/0/lr": (Action.MERGE, "average"),
    }


@TRAINED
def test_a_rule_for_parameters_computes_with_no_scalar(trained: Trained, depot: Depot) -> None:
    versions = trained.save(0), trained.save(1, best=0.5), trained.save(2, best=0.75)
    assert len(outcome_of(depot, *versions, (Rule("*", "average"),)).conflicts) == 1
    made = outcome_of(depot, *versions, (Rule("*", "theirs"),))
    assert (made.conflicts, reloaded(made, depot, **trained.options)["best"]) == ((), 0.75)


@pytest.mark.parametrize(
    ("sides", "rule", "reason"),
    [
        ((2, 3), "average", "from 1 to 2 and to 3"),
        ((2**70, 2**71), "max", "argument out of range"),
        ((10**5000, 3), "ours", None),
        ((10**5000, 3), "average", "to a long number and to 3"),
        (("x", "y"), "average", "from 1 to 'x' and to 'y'"),
        ((float("nan"), 2.5), "average", "ours has NaN or infinite values; take a side"),
    ],
)
def test_what_cannot_be_computed_stays_a_conflict(
    sides: tuple[object, object], rule: str, reason: str | None, depot: Depot
) -> None:
    save = Trained().save
    ours, theirs = (save(step, epoch=value) for step, value in enumerate(sides, 1))
    made = outcome_of(depot, save(0), ours, theirs, (Rule("~skeleton/epoch", rule),))
    assert [(reason or "none") in one.reason for one in made.conflicts] == ([] if reason is None else [True])
    if not made.conflicts:
        assert reloaded(made, depot, pickle_protocol=2)["epoch"] == sides[0]  # torch's unpickler has no such numbers


def test_a_key_that_one_side_added_and_a_scalar_that_the_other_changed(depot: Depot) -> None:
    save = Trained().save
    made = outcome_of(depot, save(0), save(1, epoch=2), save(2, extra={"steps": [1, 2]}))
    assert made.conflicts == ()
    found = reloaded(made, depot)
    assert (found["epoch"], found["extra"]) == (2, {"steps": [1, 2]})
    made = outcome_of(depot, save(0, extra=1), save(1, extra=2), save(2))
    assert [(one.name, one.reason) for one in made.conflicts] == [
        (SKELETON, "one side took away the scalar 'extra', and the other changed it")
    ]
    assert reloaded(made, depot)["extra"] == 2
    made = outcome_of(depot, save(0), save(1, one=1), save(2, other=1))
    assert [one.name for one in made.conflicts] == [SKELETON]


@TRAINED
def test_a_long_sequence_of_numbers_is_one_scalar(trained: Trained, depot: Depot) -> None:
    """The state of a random generator is of one side, not of both."""

    def state(seed: int) -> object:
        return random.Random(seed).getstate()

    base, theirs = trained.save(0, random=state(0)), trained.save(2, random=state(2), losses=[0.5] * 20)
    made = outcome_of(depot, trained.save(0, random=state(0), losses=[]), trained.save(1, losses=[1.0] * 40), theirs)
    assert [one.name for one in made.conflicts] == [SKELETON]
    made = outcome_of(depot, base, trained.save(1, random=state(0), epoch=2), trained.save(2, random=state(2)))
    assert made.conflicts == ()
    found = reloaded(made, depot, **trained.options)
    assert (found["random"], found["epoch"]) == (state(2), 2)
    sides = trained.save(1, random=state(1), epoch=2), trained.save(2, random=state(2), done=True)
    made = outcome_of(depot, base, *sides)
    assert [(one.name, one.reason) for one in made.conflicts] == [("~skeleton/random/1", "both sides changed it")]
    made = outcome_of(depot, base, *sides, (Rule("~skeleton/random/*", "theirs"), Rule("~skeleton/*", "average")))
    found = reloaded(made, depot, **trained.options)
    assert (made.conflicts, found["random"], found["epoch"], found["done"]) == ((), state(2), 2, True)


@TRAINED
def test_scalars_of_several_sides_are_merged_if_each_is_of_one(trained: Trained, depot: Depot) -> None:
    sides = [
        trained.save(1, epoch=300),
        trained.save(4, lr=0.5),
        trained.save(7, best=0.75, done=True),
        trained.save(0, arch="vit"),
    ]
    made = many(depot, trained.save(0), *sides)
    assert made.conflicts == ()
    found = reloaded(made, depot, **trained.options)
    assert (found["epoch"], found["best"], found["done"], found["arch"]) == (300, 0.75, True, "vit")
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.5
    made = many(depot, trained.save(0), *sides, trained.save(1, epoch=4))
    assert [(one.name, one.reason) for one in made.conflicts] == [(SKELETON, "both sides changed 'epoch'")]


def test_the_folder_in_an_archive_may_have_any_name(depot: Depot, tmp_path: Path) -> None:
    """torch.save calls it what the file is called."""
    contents: list[bytes] = []
    for epoch, name in ((1, "base"), (2, "checkpoint-2"), (1, "last")):
        place = tmp_path / f"{name}.pt"
        torch.save({"epoch": epoch, "a": torch.from_numpy(LARGE + np.float32(len(contents)))}, place)
        contents.append(place.read_bytes())
    base, ours, theirs = contents
    made = outcome_of(depot, base, ours, theirs)
    assert (made.conflicts, reloaded(made, depot)["epoch"]) == ((), 2)
