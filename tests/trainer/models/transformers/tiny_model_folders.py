"""Language models with random weights, small enough to be made in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)
WORDS = ("<unk>", "<s>", "</s>", "user", "assistant", "a", "red", "blue", "heart", "star", "sun", "moon")

_SHARED = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3": ("Qwen3Config", {"head_dim": 8, "tie_word_embeddings": True}),
    "Qwen2": ("Qwen2Config", {}),
    "Llama": ("LlamaConfig", {}),
    "Mistral": ("MistralConfig", {}),
    "Gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": 16}),
    "Phi3": ("Phi3Config", {}),
}
"""The class and the values of the config of each kind of model."""


def tiny_model(kind: str, seed: int = 0) -> Any:
    """Return a model of this kind with random weights, in float32."""
    name, values = CONFIGS[kind]
    config = getattr(transformers, name)(**_SHARED | values)
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Return a tokenizer of twelve words."""
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made


def tiny_folder(folder: Path, kind: str = "Qwen3", seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a model of this kind and its tokenizer to a folder, in several shards."""
    tiny_model(kind, seed).to(dtype).save_pretrained(folder, max_shard_size="20KB")
    tokenizer().save_pretrained(folder)
    return folder
