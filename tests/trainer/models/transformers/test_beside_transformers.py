"""Twenty steps beside transformers' Trainer: with the same rows, order and first weights, the losses are equal."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.demo.text import model_folder
from lora_crucible.demo.text.world import Exchange, exchanges
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.run import run_training
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
)

STEPS, BATCH, RANK, RATE = 20, 2, 4, 2e-3
ROWS = exchanges(Random(3), 48)
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 with random weights and the tokenizer of the demo language model."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def flat(path: str) -> str:
    """Return the end of the key that a layer of a PEFT model has in our adapters."""
    return re.sub(r"^(base_model\.)?(model\.)*", "", path).replace(".", "_")


def ours(folder: Path, data: Path, accumulation: int, output: Path) -> tuple[list[float], list[list[int]], Weights]:
    """Train with this package; return the losses, the rows of each batch, and the weights that it began with."""
    from lora_crucible.data.text.chat_rendering import ChatRenderer
    from lora_crucible.data.text.load import load_text_dataset
    from lora_crucible.models.transformers.model import TransformersBaseModel

    batches: list[list[int]] = []
    first: Weights = {}

    class Watched(TransformersBaseModel):
        @contextmanager
        def attached(self, *arguments: Any, **named: Any) -> Any:
            with super().attached(*arguments, **named) as self.watched:
                yield self.watched

        def losses(self, rows: Any, seeds: Any, timesteps: Any = None) -> Any:
            if timesteps is None:
                if not first:
                    first.update({
                        f"{key}.{part}": weight.detach().clone()
                        for key, part, weight in self.watched.named_parameters()
                    })  # fmt: skip
                batches.append([int(re.findall(r"\d+", row.name)[-1]) - 1 for row in rows])
            return super().losses(rows, seeds, timesteps)

    config = parse_config({
        "task_type": "text-generation", "base_model": str(folder), "train_data_dir": str(data), "lora_rank": RANK,
        "lora_alpha": 2 * RANK, "lora_dropout": 0, "target_modules": "linear", "batch_size": BATCH,
        "gradient_accumulation_steps": accumulation, "max_train_steps": STEPS, "learning_rate": RATE,
        "lr_scheduler": "constant", "lr_warmup_steps": 0, "weight_decay": 0, "mixed_precision": "fp32",
        "validation_percent": 0, "measure": "never", "gradient_checkpointing": False,
    })  # fmt: skip
    base = Watched(str(folder), make_renderer=ChatRenderer)
    result = run_training(base, plan_run(base, load_text_dataset(config), config), RunFiles.claim("x", output, output))
    return result.losses, batches[-STEPS * accumulation :], first  # those before it were only tried for their memory


def theirs(folder: Path, batches: list[list[int]], first: Weights, accumulation: int, output: Path) -> list[float]:
    """Train with transformers' Trainer on the same batches from the same weights, and return its losses."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def example(row: Exchange) -> dict[str, list[int]]:
        turns = [{"role": "user", "content": row.prompt}]
        prompt = tokenizer.encode(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        answer = [*tokenizer.encode(row.answer), tokenizer.eos_token_id]
        return {
            "input_ids": prompt + answer,
            "attention_mask": [1] * len(prompt + answer),
            "labels": [-100] * len(prompt) + answer,
        }

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    found = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            path, part = re.fullmatch(r"(.*)\.(lora_[AB])\.default\.weight", name).groups()
            keys = [key for key in first if key.endswith(f"_{flat(path)}.{part}")]
            parameter.data.copy_(first[keys[0]])
            found += 1
    assert found == len(first)

    losses: list[float] = []

    class InOrder(Trainer):
        """Takes the rows as they come, and keeps the losses before they are rounded for the log."""

        def _get_train_sampler(self, *arguments: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, *arguments: Any, **named: Any) -> Any:
            loss = super().training_step(*arguments, **named)
            losses.append(loss.item())
            return loss

    arguments = TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=BATCH, gradient_accumulation_steps=accumulation,
        max_steps=STEPS, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    InOrder(
        model=model,
        args=arguments,
        train_dataset=[example(ROWS[row]) for batch in batches for row in batch],
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    ).train()
    return [sum(losses[step : step + accumulation]) for step in range(0, len(losses), accumulation)]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_twenty_steps_have_the_losses_of_transformers_trainer(folder: Path, tmp_path: Path, accumulation: int):
    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": row.prompt, "completion": row.answer}) + "\n" for row in ROWS]
    data.write_text("".join(lines), encoding="utf-8")
    losses, batches, first = ours(folder, data, accumulation, tmp_path / "ours")
    assert len(losses) == STEPS
    assert [len(batch) for batch in batches] == [BATCH] * STEPS * accumulation
    expected = theirs(folder, batches, first, accumulation, tmp_path / "theirs")
    assert losses == pytest.approx(expected, abs=1e-4)
    assert abs(losses[0] - losses[-1]) > 1e-2  # it has learned something
