"""Files as users have them, written by transformers, accelerate and peft: python hugging_face.py FOLDER.

A tiny classifier is trained for two steps (`trained/checkpoint-2`), saved in shards (`sharded`), and given a LoRA
adapter (`adapter`). It is a program of its own: what it imports takes seconds, and stays out of the tests' process.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
}


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES))
    data = [{"input_ids": torch.randint(0, 100, (8,)), "labels": torch.tensor(index % 2)} for index in range(8)]
    arguments = TrainingArguments(
        str(folder / "trained"), max_steps=2, save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(model, arguments, train_dataset=data).train()
    model.save_pretrained(folder / "sharded", max_shard_size="100KB")
    lora = LoraConfig(r=4, target_modules=["query", "value"], task_type="SEQ_CLS")
    get_peft_model(model, lora).save_pretrained(str(folder / "adapter"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
