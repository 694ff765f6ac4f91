"""Later versions of the real model, each really trained: with torch, transformers and peft, on text that is everywhere.

The task is to tell what a function of Python's standard library does from its name: its sentence embedding is to be
nearest to that of its documentation, among those of a batch (van den Oord et al., arXiv:1807.03748). Versions are made
once and kept, as training takes minutes.
"""

import ast
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models

if TYPE_CHECKING:
    import torch

__all__ = ["FULL", "LORA", "ONE_LAYER", "Training", "train", "train_adapter"]

BATCH = 16
MOST_TOKENS = 64
SHARPNESS = 20.0
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


@dataclass(frozen=True, slots=True)
class Training:
    """AdamW at a learning rate; `part` is what the names of the parameters that it trains contain."""

    learning_rate: float
    part: str = ""


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
    from torch.nn.functional import cross_entropy
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.real_model().parent)
    torch.manual_seed(seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=training.learning_rate)
    for names, texts in _batches(steps, seed):
        scores = SHARPNESS * _embed(model, tokenizer, names) @ _embed(model, tokenizer, texts).T
        loss = cross_entropy(scores.float(), torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()


def _embed(model: Any, tokenizer: Callable[..., Any], texts: list[str]) -> "torch.Tensor":
    """A unit vector for each text: the mean of those of its tokens."""
    from torch.nn.functional import normalize

    tokens = tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None].to(states.dtype)
    return normalize((states * mask).sum(1) / mask.sum(1))


def _batches(steps: int, seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Names of functions, in words, and what their documentation says first."""
    pairs = sorted(set(_pairs()))
    numbers = random.Random(seed)
    for _ in range(steps):
        names, texts = zip(*numbers.sample(pairs, BATCH), strict=True)
        yield list(names), list(texts)


def _pairs() -> Iterator[tuple[str, str]]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
            if text and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield f"{path.stem} {' '.join(_WORDS.findall(node.name)).lower()}", text.partition("\n\n")[0]
