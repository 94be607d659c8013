"""A demonstration of what a LoRA has learned from the demo dataset of texts: answers before and after, and counts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import held_out, model_folder, unrelated_prompts

LONGEST = 48
"""The most tokens of an answer, twice as many as any right one has."""

EXAMPLES = (0, 7, 13, 19, 28)
"""The held-out prompts whose answers are shown: plain, on another background, of things that exist and that do not."""


@dataclass(frozen=True)
class Outcome:
    """Answers of the base model and of the LoRA to held-out and unrelated prompts, in the order of the prompts."""

    base_held_out: tuple[str, ...]
    lora_held_out: tuple[str, ...]
    base_unrelated: tuple[str, ...]
    lora_unrelated: tuple[str, ...]

    @property
    def right_before(self) -> int:
        """The number of held-out prompts that the base model answers rightly."""
        return _right(self.base_held_out)

    @property
    def right(self) -> int:
        """The number of held-out prompts that the LoRA answers rightly."""
        return _right(self.lora_held_out)

    @property
    def kept(self) -> int:
        """The number of unrelated prompts that the LoRA answers as the base model does."""
        return sum(before == after for before, after in zip(self.base_unrelated, self.lora_unrelated, strict=True))

    def text(self) -> str:
        """Return five answers before and after, and the counts."""
        asked = held_out()
        lines = ["Prompts with the new words, in phrasings that were not in the training data:"]
        for number in EXAMPLES:
            lines += [
                f"  {asked[number].prompt}",
                f"    before: {self.base_held_out[number]}",
                f"    after:  {self.lora_held_out[number]}",
            ]
        lines.append(
            f"Right answers to {len(asked)} such prompts: {self.right_before} before, {self.right} after. Answers to "
            f"{len(self.base_unrelated)} prompts about other things: {self.kept} are as before."
        )
        return "\n".join(lines)


def measure(adapter: Path) -> Outcome:
    """Ask the demo language model with and without a LoRA, through the public interface of transformers and PEFT.

    Args:
        adapter: a folder in the form of PEFT.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModelForCausalLM.from_pretrained(model_folder()).float().eval()
    known, others = [exchange.prompt for exchange in held_out()], unrelated_prompts()
    before = answers(tokenizer, model, known), answers(tokenizer, model, others)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for a name that transformers has given up
        adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    after = answers(tokenizer, adapted, known), answers(tokenizer, adapted, others)
    return Outcome(before[0], after[0], before[1], after[1])


@torch.inference_mode()
def answers(tokenizer: Any, model: Any, prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the likeliest answer to each prompt."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=LONGEST,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    length = batch["input_ids"].shape[1]
    return tuple(tokenizer.decode(tokens[length:], skip_special_tokens=True) for tokens in written)


def _right(given: Sequence[str]) -> int:
    return sum(answer == exchange.answer for answer, exchange in zip(given, held_out(), strict=True))
