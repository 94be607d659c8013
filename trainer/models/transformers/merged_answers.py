"""Whether a merged model answers as its base model and the LoRA do together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import CrucibleError
from ...formats.layer_names import language_key
from ...hardware.device_memory import free_host_memory
from ...merging.merge import Ingredient, layers_of_all
from ...merging.model_folder import ModelFolder
from ...merging.recipe import Recipe
from ...messages.wording import counted, size_text

PROMPTS = ("Hello! Who are you?", "Write a sentence about the sea.", "1, 2, 3,")
"""The prompts that are answered."""

LONGEST = 16
"""The number of tokens of an answer."""

TOLERANCES = {"F64": 1e-3, "F32": 1e-3, "F16": 0.25, "BF16": 1.0}
"""How much less likely, in logits, the merged model may find a token that base and LoRA choose, by the dtype that its
weights are rounded to."""


@dataclass(frozen=True)
class AnswersOfBase:
    """What base and LoRA answer.

    Attributes:
        tokens: the tokens of each prompt with its answer.
        lengths: the number of tokens of each prompt.
        dtype: the coarsest dtype of the weights in files, as safetensors names it.
    """

    tokens: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    dtype: str


def lack_of_memory(folder: ModelFolder) -> str:
    """Return why a model cannot be loaded to be asked; "" if it can."""
    needed = sum(4 * _count(shape) for shard in folder.shards for _, shape in shard.entries.values())
    free = free_host_memory()
    if needed * 1.2 < free:
        return ""
    return f"that takes {size_text(needed)} of memory, and {size_text(free)} are free"


def _count(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


@torch.no_grad()
def answers_of_base(
    folder: ModelFolder, ingredients: Sequence[Ingredient], recipe: Recipe, prompts: Sequence[str] = PROMPTS
) -> AnswersOfBase:
    """Return the likeliest answers of a base model to which LoRAs are added in memory, in float32."""
    model, tokenizer = _loaded(folder.path)
    weights = {language_key(path): module for path, module in model.named_modules() if hasattr(module, "weight")}
    with folder.base_weights() as base_weight:
        for layer in layers_of_all(ingredients, recipe, base_weight):
            module = weights[layer.key]
            if (change := layer.delta()) is not None:
                module.weight += change
            if (bias := layer.bias()) is not None:
                module.bias += bias
    starts = [_encoded(tokenizer, prompt) for prompt in prompts]
    types = {kind for shard in folder.shards for kind, _ in shard.entries.values()} & TOLERANCES.keys()
    answers = tuple(_continued(model, start) for start in starts)
    return AnswersOfBase(answers, tuple(map(len, starts)), max(types, key=TOLERANCES.__getitem__))


@torch.no_grad()
def require_same_answers(merged: Path, expected: AnswersOfBase) -> str:
    """Ask a merged model for the answers that base and LoRA gave.

    Returns:
        A sentence about how many are the same.

    Raises:
        CrucibleError: it would answer something else, by more than the rounding of its weights explains.
    """
    model, _ = _loaded(merged)
    same = 0
    for tokens, length in zip(expected.tokens, expected.lengths, strict=True):
        logits = model(torch.tensor([tokens])).logits[0, length - 1 : -1].float()
        lost = logits.max(dim=1).values - logits.gather(1, torch.tensor(tokens[length:])[:, None])[:, 0]
        if not lost.max() <= TOLERANCES[expected.dtype]:
            raise CrucibleError(
                f"The merged model was not kept: asked for {counted(len(expected.tokens), 'answer')}, it finds a token "
                f"that base and LoRA choose {float(lost.max()):.2g} less likely (in logits) than another, which the "
                f"rounding to {expected.dtype} does not explain. It would answer something else "
                "than the LoRA does. Please report this with the name of the base model, and use base and LoRA side by "
                "side meanwhile."
            )
        same += int((lost == 0).all())
    others = (
        ""
        if same == len(expected.tokens)
        else (f"; in the others, a token is as likely as another up to the rounding to {expected.dtype}")
    )
    return (
        f"Checked: {same} of {counted(len(expected.tokens), 'answer')} of {LONGEST} tokens are the same as those of "
        f"base and LoRA together{others}."
    )


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **local)
    return model.eval(), AutoTokenizer.from_pretrained(folder, **local)


def _encoded(tokenizer: Any, prompt: str) -> list[int]:
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False).input_ids)
    return list(tokenizer(prompt).input_ids) or [tokenizer.eos_token_id or 0]


def _continued(model: Any, start: Sequence[int]) -> tuple[int, ...]:
    tokens = list(start)
    for _ in range(LONGEST):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tuple(tokens)
