"""Later versions of the real model, each really trained: with torch, transformers and peft, on text that is everywhere.

The task is to tell what a function of Python's standard library does from its name: its sentence embedding is to be
nearest to that of its documentation, among those of a batch (van den Oord et al., arXiv:1807.03748). For merges there
is another one: which line of code stands under a comment. Versions are made once and kept, as training takes minutes.
"""

import ast
import random
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import models

if TYPE_CHECKING:
    import torch

__all__ = ["FULL", "LORA", "ONE_LAYER", "TASKS", "Task", "Training", "fisher", "gram", "loss", "train", "train_adapter"]

Pair: TypeAlias = tuple[str, str]

BATCH = 16
MOST_TOKENS = 64
SHARPNESS = 20.0
SHORTEST = 16  # characters of a line of code
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


@cache
def _function_pairs() -> frozenset[Pair]:
    """Names of functions, in words, and what their documentation says first."""
    return frozenset(_documented())


@cache
def _comment_pairs() -> frozenset[Pair]:
    """Comments of one line, and the lines of code under them."""
    return frozenset(_commented())


def _documented() -> Iterator[Pair]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
            if text and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield f"{path.stem} {' '.join(_WORDS.findall(node.name)).lower()}", text.partition("\n\n")[0]


def _commented() -> Iterator[Pair]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        lines = ["", *(line.strip() for line in path.read_text("utf-8", "replace").splitlines())]
        for before, comment, code in zip(lines, lines[1:], lines[2:], strict=False):
            if comment.startswith("# ") and not before.startswith("#") and len(code) >= SHORTEST and code[0] != "#":
                yield comment[2:], code


@dataclass(frozen=True, slots=True)
class Task:
    """Pairs of texts that belong together; a quarter of them is not trained on, but tells how well it went."""

    title: str
    pairs: Callable[[], Iterable[Pair]]

    def seen(self) -> Iterator[Pair]:
        return (pair for pair in self.pairs() if zlib.crc32(pair[0].encode()) % 4)

    def unseen(self) -> Iterator[Pair]:
        return (pair for pair in self.pairs() if not zlib.crc32(pair[0].encode()) % 4)


TASKS = (Task("names", _function_pairs), Task("comments", _comment_pairs))


@dataclass(frozen=True, slots=True)
class Training:
    """AdamW at a learning rate; `part` is what the names of the parameters that it trains contain."""

    learning_rate: float
    part: str = ""
    pairs: Callable[[], Iterable[Pair]] = _function_pairs


FULL = Training(2e-5)
ONE_LAYER = Training(2e-5, "encoder.layer.3.")
LORA = Training(2e-4)
RANK = 8


def train(source: Path, target: Path, training: Training, steps: int, seed: int) -> None:
    """Write the model of a safetensors file, trained, to `target`, in the dtype that it has."""
    model = _load(source)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = training.part in name
    _fit(model, training, steps, seed)
    _save(model, target)


def train_adapter(source: Path, adapter: Path, merged: Path, steps: int, seed: int) -> None:
    """Train a LoRA adapter on query and value; write it to the folder `adapter`, and the merged model to `merged`."""
    import peft
    import torch

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["query", "value"])
    model: Any = peft.get_peft_model(_load(source), config)
    _fit(model, LORA, steps, seed)
    model.save_pretrained(adapter)
    _save(model.merge_and_unload(), merged)


def _load(source: Path) -> Any:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    tensors = load_file(source)
    config: Any = AutoConfig.from_pretrained(models.real_model().parent)
    make: Any = AutoModel.from_config
    model = make(config).to(tensors["embeddings.word_embeddings.weight"].dtype)
    # The published file has a buffer besides, "embeddings.position_ids", that later versions of transformers make.
    if absent := model.load_state_dict(tensors, strict=False).missing_keys:
        raise SystemExit(f"{source}: it lacks {absent[0]}")
    return model.train()


def _save(model: Any, target: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), target, metadata={"format": "pt"})


def _fit(model: Any, training: Training, steps: int, seed: int) -> None:
    import torch

    tokenizer = _tokenizer()
    torch.manual_seed(seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=training.learning_rate)
    for batch in _batches(training.pairs(), steps, seed):
        batch_loss = _loss(model, tokenizer, *batch)
        optimizer.zero_grad()
        batch_loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()


def fisher(source: Path, target: Path, task: Task, batches: int) -> None:
    """Write the diagonal Fisher information of a model on a task that it was trained on (arXiv:2111.09832)."""
    import torch
    from safetensors.torch import save_file

    model, tokenizer = _load(source).eval(), _tokenizer()
    squares = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for batch in _batches(task.seen(), batches, seed=0):
        model.zero_grad()
        _loss(model, tokenizer, *batch).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name] += parameter.grad**2 / batches
    save_file(squares, target)


def gram(source: Path, target: Path, task: Task, batches: int) -> None:
    """Write X^T X of the inputs X of each linear layer, on a task that the model was trained on (arXiv:2212.09849)."""
    import torch
    from safetensors.torch import save_file

    model, tokenizer = _load(source).eval(), _tokenizer()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    grams = {f"{name}.weight": torch.zeros(2 * (layer.in_features,)) for name, layer in layers.items()}

    def add(name: str, inputs: "torch.Tensor") -> None:
        rows = inputs.reshape(-1, inputs.shape[-1])
        grams[f"{name}.weight"] += rows.T @ rows

    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0]))
    with torch.inference_mode():
        for batch in _batches(task.seen(), batches, seed=0):
            _loss(model, tokenizer, *batch)
    save_file(grams, target)


def loss(file: Path, task: Task, batches: int) -> float:
    """How badly the model of a safetensors file tells the pairs of a task apart that nobody trained on."""
    import torch

    model, tokenizer = _load(file).eval(), _tokenizer()
    with torch.inference_mode():
        losses = [_loss(model, tokenizer, *batch).item() for batch in _batches(task.unseen(), batches, seed=0)]
    return sum(losses) / len(losses)


@cache
def _tokenizer() -> Callable[..., Any]:
    from transformers import AutoTokenizer

    made: Callable[..., Any] = AutoTokenizer.from_pretrained(models.real_model().parent)
    return made


def _loss(model: Any, tokenizer: Callable[..., Any], left: list[str], right: list[str]) -> "torch.Tensor":
    """The cross entropy of guessing which of the batch's right texts belongs to each left one."""
    import torch
    from torch.nn.functional import cross_entropy

    scores = SHARPNESS * _embed(model, tokenizer, left) @ _embed(model, tokenizer, right).T
    return cross_entropy(scores.float(), torch.arange(BATCH))


def _embed(model: Any, tokenizer: Callable[..., Any], texts: list[str]) -> "torch.Tensor":
    """A unit vector for each text: the mean of those of its tokens."""
    from torch.nn.functional import normalize

    tokens = tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None].to(states.dtype)
    return normalize((states * mask).sum(1) / mask.sum(1))


def _batches(pairs: Iterable[Pair], count: int, seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Batches drawn from the pairs: the left texts, and those that belong to them."""
    drawn = sorted(set(pairs))
    numbers = random.Random(seed)
    for _ in range(count):
        left, right = zip(*numbers.sample(drawn, BATCH), strict=True)
        yield list(left), list(right)
