"""Adapters as peft saves them, and what it makes of a base with them: python adapters.py FOLDER.

Each of `CASES` is a folder with `base`, `adapter` and `merged`. It is a program of its own: what it imports takes
seconds, and stays out of the tests' process.
"""

import copy
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

BERT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}
QKV = ["query", "value"]


class Mixed(nn.Module):
    """Layers of the other kinds: an embedding, convolutions, a square and an oblong linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.point = nn.Conv2d(16, 20, 1)
        self.kernel = nn.Conv2d(16, 20, 3)
        self.line = nn.Conv1d(16, 20, 5)
        self.square = nn.Linear(32, 32)
        self.oblong = nn.Linear(32, 48)


def bert() -> nn.Module:
    return BertForSequenceClassification(BertConfig(**BERT))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=16, n_embd=32, n_layer=2, n_head=2))


def bert_half() -> nn.Module:
    return bert().to(torch.float16)


def bert_brain() -> nn.Module:
    return bert().to(torch.bfloat16)


def mixed_brain() -> nn.Module:
    return Mixed().to(torch.bfloat16)


def lora(targets: list[str], **others: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False, **others)


PATTERNS: dict[str, Any] = {
    "rank_pattern": {"layer.0.attention.self.query": 2, r"^bert\.encoder\.layer\.1\..*value": 6},
    "alpha_pattern": {"query": 3, "layer.(0|1).attention.self.value": 5},
}
MIXED = ["words", "point", "kernel", "line", "square", "oblong"]

CASES: Mapping[str, tuple[Any, Any, Any]] = {
    # name: what makes the base, the configuration, the dtype of the adapter on the disk
    "plain": (bert, lora(QKV), None),
    "patterns": (bert, lora([*QKV, "dense"], use_rslora=True, **PATTERNS), None),
    "whole": (bert, lora(QKV, bias="lora_only", modules_to_save=["classifier"]), None),
    "conv1d": (gpt2, lora(["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True), None),
    "embedding": (gpt2, lora(["wte"]), None),
    "mixed": (Mixed, lora(MIXED), None),
    "bf16-base": (bert_brain, lora([*QKV, "word_embeddings"]), torch.float32),
    "bf16-both": (mixed_brain, lora(MIXED), torch.bfloat16),
    "bf16-adapter": (bert, lora(QKV), torch.bfloat16),
    "f16-base": (bert_half, lora(QKV), None),
    "ia3": (
        bert,
        IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
        None,
    ),
    "ia3-conv1d": (gpt2, IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]), None),
    "ia3-mixed": (
        mixed_brain,
        IA3Config(target_modules=["point", "kernel", "square"], feedforward_modules=["kernel"]),
        None,
    ),
}


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    for number, (name, (build, config, dtype)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        base = build()
        place = folder / name
        tuned = get_peft_model(copy.deepcopy(base), config)
        with torch.no_grad():
            for key, parameter in tuned.named_parameters():
                if parameter.requires_grad or "ia3" in key:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        tuned.save_pretrained(str(place / "adapter"))
        if dtype is not None:
            _convert(place / "adapter" / "adapter_model.safetensors", dtype)
        _save(base, place / "base.safetensors")
        merged = PeftModel.from_pretrained(copy.deepcopy(base), str(place / "adapter")).merge_and_unload()
        _save(merged, place / "merged.safetensors")
        if name in ("plain", "embedding"):
            torch.save({"epoch": 3, "model": base.state_dict()}, place / "base.pt")
            torch.save({"epoch": 3, "model": merged.state_dict()}, place / "merged.pt")
        if name == "plain":
            torch.save(load_file(place / "adapter" / "adapter_model.safetensors"), place / "adapter_model.bin")


def _save(model: nn.Module, path: Path) -> None:
    """The parameters of a model, tied ones once, in the order in which the model has them."""
    tensors = {}
    seen = set()
    for key, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            tensors[key] = value.contiguous()
    save_file(tensors, path, {"format": "pt"})


def _convert(path: Path, dtype: torch.dtype) -> None:
    save_file({key: value.to(dtype) for key, value in load_file(path).items()}, path, {"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
