"""Tiny language models of transformers' own classes with random weights, saved like their repositories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.data.text.rows import Turn
from lora_crucible.models.examples import CachedExample
from lora_crucible.models.transformers.model import TransformersBaseModel
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("<unk>", "<s>", "</s>", "user", "assistant", "a", "red", "blue", "heart", "star", "sun", "moon")
"""The words of the tokenizer that mean something to tests; word12, word13, … follow."""

VOCABULARY = 96
START, END, USER, ASSISTANT = 1, 2, 3, 4

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": END,
    "bos_token_id": START,
    "eos_token_id": END,
}
_OWN: dict[str, dict[str, Any]] = {
    "Qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "Qwen2": {},
    "Llama": {},
    "Mistral": {"sliding_window": 6},
    "Gemma3": {"head_dim": 8, "final_logit_softcapping": 10.0, "sliding_window": 6, "query_pre_attn_scalar": 8},
    "Phi3": {},
}
ALL = tuple(_OWN)


def config_of(kind: str, **changes: Any) -> Any:
    """Return the config of a tiny model."""
    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    return getattr(transformers, name)(**{**_COMMON, **_OWN.get(kind, {}), **changes})


def make_model(kind: str, seed: int = 1, **changes: Any) -> Any:
    """Return a tiny model whose predictions differ from place to place."""
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForCausalLM")(config_of(kind, **changes))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25, generator=draw)
    return model.eval()


def tokenizer(template: str | None = TEMPLATE) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer that splits at spaces."""
    words = [*WORDS, *(f"word{number}" for number in range(len(WORDS), VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = template
    return made


def save(
    folder: Path,
    kind: str = "Qwen3",
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **changes: Any,
) -> Path:
    """Save a tiny model with its tokenizer."""
    make_model(kind, seed, **changes).to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer().save_pretrained(folder)
    return folder


def save_in_shards(folder: Path, kind: str = "Qwen3", seed: int = 1, dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny model in several files, as large ones are."""
    return save(folder, kind, seed, dtype, max_shard_size="20KB")


class PlainRenderer:
    """Renders a conversation as user … assistant … </s>."""

    name, stop_token, chat_template = "a template of the tests", END, ""

    def __init__(self, words: Any) -> None:
        self._words = words

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._words(text, add_special_tokens=False)["input_ids"])

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        ids: tuple[int, ...] = ()
        for turn in turns:
            ids += ((USER if turn.role == "user" else ASSISTANT), *self._ids(turn.text))
        return (*ids, ASSISTANT)

    def conversation(self, turns: Sequence[Turn]) -> Rendered:
        prompt, answer = self.prompt(turns[:-1]), (*self._ids(turns[-1].text), END)
        return Rendered((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))

    def text(self, text: str) -> Rendered:
        ids = (*self._ids(text), END)
        return Rendered(ids, (True,) * len(ids))

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._words.decode(list(tokens)))


def open_model(folder: Path, **settings: Any) -> TransformersBaseModel:
    return TransformersBaseModel(str(folder), make_renderer=PlainRenderer, **settings)


def example(length: int, prompt: int, seed: int = 0, name: str = "row") -> TextExample:
    draw = torch.Generator().manual_seed(seed + length)
    tokens = torch.randint(5, VOCABULARY, (length,), generator=draw).tolist()
    return TextExample(name, Rendered((*tokens[:-1], END), (False,) * prompt + (True,) * (length - prompt)), 64)


ROWS = [example(9, 3), example(20, 12), example(14, 0), example(5, 4)]


def cached(model: TransformersBaseModel, rows: list[TextExample] = ROWS) -> list[CachedExample]:
    return model.cache_inputs(rows, TensorCache(None), 0.0, True, lambda *_: None)
