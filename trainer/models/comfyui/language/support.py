"""Which of the text encoders that ComfyUI loads can be trained as language models, and which cannot, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.sd1_clip

from ....errors import CrucibleError
from ....messages.wording import listed
from ..language_layers import class_name

WRITES = {
    "QWEN3_06B": "Qwen3_06B",
    "QWEN3_4B": "Qwen3_4B",
    "QWEN3_8B": "Qwen3_8B",
    "QWEN3VL_4B": "Qwen3VL",
    "QWEN3VL_8B": "Qwen3VL",
    "QWEN35_08B": "Qwen35",
    "QWEN35_2B": "Qwen35",
    "QWEN35_4B": "Qwen35",
    "QWEN35_9B": "Qwen35",
    "QWEN35_27B": "Qwen35",
    "GEMMA_3_4B": "Gemma3_4B",
    "GEMMA_3_4B_VISION": "Gemma3_4B_Vision",
    "GEMMA_3_12B": "Gemma3_12B",
    "MINISTRAL_3_3B": "Ministral3_3B",
}
"""What can be trained, and writes in ComfyUI's Generate Text: ComfyUI's names of the files that it recognizes
(`comfy.sd.TEModel`), and of the classes that it makes of them."""

TRAINS_ONLY = {
    "LLAMA3_8": ("Llama2", 128009),
    "MISTRAL3_24B": ("Mistral3Small24B", 2),
    "QWEN25_3B": ("Qwen25_3B", 151645),
    "QWEN25_7B": ("Qwen25_7BVLI", 151645),
    "QWEN3_2B": ("Ovis25_2B", 151645),
}
"""What can be trained, but Generate Text fails with it: the classes, and the id of the token that ends an answer, which
ComfyUI only has for those that write."""

_ONLY_ENCODES = "turns prompts into numbers for a picture model and cannot write"
REFUSED = {
    "CLIP_L": ("CLIPTextModel", _ONLY_ENCODES),
    "CLIP_H": ("CLIPTextModel", _ONLY_ENCODES),
    "CLIP_G": ("CLIPTextModel", _ONLY_ENCODES),
    "T5_XXL": ("T5", _ONLY_ENCODES),
    "T5_XL": ("T5", _ONLY_ENCODES),
    "T5_BASE": ("T5", _ONLY_ENCODES),
    "T5_XXL_OLD": ("T5", _ONLY_ENCODES),
    "BYT5_SMALL_GLYPH": ("T5", _ONLY_ENCODES),
    "T5_GEMMA": ("T5GemmaModel", _ONLY_ENCODES),
    "JINA_CLIP_2": ("XLMRobertaModel", _ONLY_ENCODES),
    "GEMMA_2_2B": (
        "Gemma2_2B",
        "is computed by ComfyUI without the bounds on attention and logits (soft-capping) that Gemma 2 was made with, "
        "so a LoRA would learn to make up for that, and be wrong everywhere else",
    ),
    **dict.fromkeys(
        ("GEMMA_4_E2B", "GEMMA_4_E4B", "GEMMA_4_12B", "GEMMA_4_31B"),
        ("Gemma4Base", "is computed by ComfyUI with fused operations that have no gradients"),
    ),
    "GPT_OSS_20B": (
        "GptOssModel",
        "is a mixture of experts whose weights are stored in one piece, where LoRA has no place, and ComfyUI loads it "
        "without the layer that predicts words",
    ),
    "MISTRAL3_24B_PRUNED_FLUX2": ("", "has lost its last layers, which only pictures can do without"),
    "QWEN3VL_32B": ("", "has lost its last layers, which only pictures can do without"),
}
"""What cannot be trained: the classes, or "" for those that are recognized by their lack of a last norm, and why."""

OTHERS = {
    "Qwen3_06B_ACE15": "writes codes of music, not words",
    "Qwen3_2B_ACE15_lm": "writes codes of music, not words",
    "Qwen3_4B_ACE15_lm": "writes codes of music, not words",
    "BertModel": _ONLY_ENCODES,
}
"""Classes that ComfyUI makes only of several files together, with the reason why they cannot be trained."""

_WITHOUT_HEAD = ("Llama2", "Mistral3Small24B", "Qwen25_7BVLI")
"""Classes of models with a last layer of their own, which ComfyUI does not load."""


@dataclass(frozen=True)
class LanguageEncoder:
    """The language model of a CLIP.

    Attributes:
        name: its name in the CLIP and in what the CLIP's tokenizer returns; "" if the CLIP is nothing else.
        module: ComfyUI's `SDClipModel`.
        tokenizer: its `SDTokenizer`.
        stop_tokens: the ids of the tokens that end an answer.
        writes: whether ComfyUI can write with it.
    """

    name: str
    module: Any
    tokenizer: Any
    stop_tokens: tuple[int, ...]
    writes: bool

    @property
    def transformer(self) -> Any:
        """The model with its head and whatever it sees pictures with."""
        return self.module.transformer

    @property
    def title(self) -> str:
        """The name of its class, for messages."""
        return class_name(self.transformer)

    @property
    def lacks_head(self) -> bool:
        """Whether ComfyUI predicts with the word embeddings, although the model was made with a head of its own."""
        return bool(_names(self.transformer) & set(_WITHOUT_HEAD))

    def of_clip(self, tokens: Any) -> Any:
        """Return what a CLIP's tokenizer returned for this model: the tokens of one or more texts with weights."""
        return tokens[self.name] if self.name else tokens

    def for_clip(self, tokens: Any) -> Any:
        """Return tokens in the form in which the CLIP takes them; the opposite of `of_clip`."""
        return {self.name: tokens} if self.name else tokens


def language_encoder(clip: Any) -> LanguageEncoder:
    """Return the language model of a CLIP.

    Raises:
        CrucibleError: it has none, or one that cannot be trained.
    """
    encoders = _encoders(clip.cond_stage_model)
    refused = []
    for name, module in encoders.items():
        classes = _names(module.transformer)
        stop = next((stop for one, stop in TRAINS_ONLY.values() if one in classes), None)
        if stop is None and not classes & set(WRITES.values()):
            refused.append(f"{class_name(module.transformer)} {_reason(classes)}")
            continue
        config = module.transformer.model.config
        if not config.final_norm:
            refused.append(f"{class_name(module.transformer)} {REFUSED['QWEN3VL_32B'][1]}")
            continue
        return LanguageEncoder(
            name,
            module,
            getattr(clip.tokenizer, name) if name else clip.tokenizer,
            tuple(config.stop_tokens) if stop is None else (stop,),
            stop is None and hasattr(clip.cond_stage_model, "generate"),
        )
    what = "; ".join(refused) or f"it is a {type(clip.cond_stage_model).__name__}, which is not known here"
    raise CrucibleError(
        f"The connected CLIP has no language model that can be trained: {what}. Load one that writes, such as Qwen3 4B "
        "(qwen_3_4b.safetensors), Qwen3.5, Gemma 3 or Ministral 3, with Load CLIP, and connect that."
    )


def warnings_of(encoder: LanguageEncoder, file_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the user should know about a language model before it is trained.

    Args:
        encoder: the language model.
        file_names: the files that it was loaded from, as far as they are known.
    """
    found = []
    if not encoder.writes:
        found.append(
            f"ComfyUI's Generate Text cannot write with {encoder.title}, so the LoRA can be heard only in the samples "
            "of this run, not in the graph. Train Qwen3, Qwen3.5, Gemma 3 or Ministral 3 to use what they write there."
        )
    if encoder.lacks_head:
        found.append(
            f"ComfyUI loads {encoder.title} without the layer that predicts words (lm_head) and predicts with the word "
            "embeddings instead, which this model was not made for. It writes poorly, and a LoRA learns to make up for "
            "that, so the LoRA is of no use in other programs. Train Qwen3, Qwen3.5, Gemma 3 or Ministral 3 instead."
        )
    longer = [name for name in file_names if "2507" in name]
    if longer and "Qwen3_4B" in _names(encoder.transformer):
        found.append(
            f"{listed(longer)} seems to be a Qwen3 2507, whose positions are computed in another way (rope_theta 5e6) "
            "than ComfyUI computes those of any Qwen3 4B (1e6). The longer the texts, the worse it writes here. Use "
            "the Qwen3 4B of the picture models (qwen_3_4b.safetensors)."
        )
    return tuple(found)


def _encoders(model: Any) -> dict[str, Any]:
    """Return the text encoders of a CLIP by name."""
    if isinstance(model, comfy.sd1_clip.SDClipModel):
        return {"": model}
    return {name: child for name, child in model.named_children() if hasattr(child, "transformer")}


def _names(transformer: Any) -> set[str]:
    return {kind.__name__ for kind in type(transformer).__mro__}


def _reason(classes: set[str]) -> str:
    reasons = {**dict(REFUSED.values()), **OTHERS}
    return next((reason for name, reason in reasons.items() if name in classes), "is not known here")
