"""Keys of other trainers of language models that say what a setting here says, or what is always so here.

They are understood only with the values that mean the same; with any other value the user is told what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

YES, NO = ("true", "yes", "1"), ("false", "no", "0", "none", "null", "")


@dataclass(frozen=True)
class ForeignKey:
    """A key of other trainers.

    Attributes:
        instead: what is so here, or what to write for other values, as a sentence without a full stop.
        meanings: the settings that each value stands for, by the value in lower case; empty settings for a value that
            says what happens here anyway.
        any_value: whether every value is one that does not concern the training.
    """

    instead: str
    meanings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    any_value: bool = False


def _only(words: tuple[str, ...], instead: str) -> ForeignKey:
    """Return a key whose value may only be what is so here anyway."""
    return ForeignKey(instead, {word: {} for word in words})


def _switch(on: Mapping[str, Any], instead: str) -> ForeignKey:
    """Return a key that stands for settings when it is on, and for nothing when it is off."""
    return ForeignKey(instead, dict.fromkeys(YES, on) | {word: {} for word in NO})


_IN_4_BITS = "load_in_4bit: true holds the model in 4 bits, the only kind of quantization that is offered"
_NF4 = "4-bit weights are always NF4 with double quantization"
_PRECISION = ForeignKey(
    "the key is mixed_precision, with the value bf16, fp16, fp32 or auto",
    {
        **{name: {"mixed_precision": "bf16"} for name in ("bfloat16", "bf16", "torch.bfloat16")},
        **{name: {"mixed_precision": "fp16"} for name in ("float16", "fp16", "half", "torch.float16")},
        **{name: {"mixed_precision": "fp32"} for name in ("float32", "fp32", "torch.float32")},
        "auto": {},
    },
)
_LOG = ForeignKey("every step is logged", any_value=True)

FOREIGN: dict[str, ForeignKey] = {
    # transformers and TRL
    "fp16": _switch({"mixed_precision": "fp16"}, "the key is mixed_precision"),
    "bf16": ForeignKey(
        "the key is mixed_precision",
        {word: {"mixed_precision": "bf16"} for word in YES} | {word: {} for word in (*NO, "auto")},
    ),
    "max_steps": ForeignKey("the key is max_train_steps", {"-1": {}}),
    "do_train": _only(YES, "train is a command: python -m trainer train"),
    "do_eval": ForeignKey(
        "rows that are held out are always measured; validation_percent says how many", any_value=True
    ),
    "group_by_length": _only(YES, "rows are always grouped by length"),
    "remove_unused_columns": ForeignKey("other keys of rows are ignored", any_value=True),
    "packing": _only(NO, "rows are not packed, so that none sees another; they are grouped by length instead"),
    "sample_packing": _only(NO, "rows are not packed, so that none sees another; they are grouped by length instead"),
    "pad_to_sequence_len": _only(NO, "rows are padded to the longest of their batch"),
    "logging_steps": _LOG,
    "logging_strategy": _LOG,
    "logging_first_step": _LOG,
    "disable_tqdm": _LOG,
    "overwrite_output_dir": ForeignKey("files are never overwritten; a number is added to the name", any_value=True),
    "save_strategy": _only(("steps",), "checkpoints are counted in steps; the key is save_steps"),
    "eval_strategy": _only(("steps",), "measurements are counted in steps; the key is validate_every_n_steps"),
    "evaluation_strategy": _only(("steps",), "measurements are counted in steps; the key is validate_every_n_steps"),
    "load_best_model_at_end": ForeignKey("the best state is always what is saved", {word: {} for word in YES}),
    "trust_remote_code": _only(NO, "code that comes with a model is never run; use a model that transformers knows"),
    # peft
    "peft_type": _only(("lora",), "algorithm says which kind of adapter is trained"),
    "bias": _only(("none",), "biases are not trained"),
    "lora_bias": _only(("none", "false"), "biases are not trained"),
    "inference_mode": _only(NO, "an adapter is trained"),
    "fan_in_fan_out": ForeignKey("it follows from the layers", any_value=True),
    "use_rslora": _switch({"algorithm": "rslora"}, "the key is algorithm"),
    "use_dora": _switch({"algorithm": "dora"}, "the key is algorithm"),
    "modules_to_save": _only((*NO, "[]"), "only adapters are trained, no embeddings and no head"),
    # bitsandbytes
    "quantization_bit": ForeignKey(_IN_4_BITS, {"4": {"load_in_4bit": True}} | {word: {} for word in NO}),
    "quantization_method": _only(("bitsandbytes", "bnb", "bnb_4bit", *NO), _IN_4_BITS),
    "load_in_8bit": _only(NO, _IN_4_BITS),
    "bnb_4bit_compute_dtype": _PRECISION,
    "torch_dtype": _PRECISION,
    "bnb_4bit_quant_type": _only(("nf4",), _NF4),
    "bnb_4bit_use_double_quant": _only(YES, _NF4),
    "double_quantization": _only(YES, _NF4),
    # LLaMA-Factory
    "stage": _only(("sft",), "language models are trained on texts and answers; there is no preference training"),
    "finetuning_type": _only(("lora",), "adapters are trained, never the whole model"),
    "preprocessing_num_workers": ForeignKey("rows are read once, before the first step", any_value=True),
    "overwrite_cache": ForeignKey("rows are read anew when a file has changed", any_value=True),
    "plot_loss": _only(YES, "the loss is always plotted"),
    # axolotl
    "adapter": ForeignKey(
        "adapter: lora and adapter: qlora are what is offered", {"lora": {}, "qlora": {"load_in_4bit": True}}
    ),
    "lora_target_linear": _switch({"target_modules": "linear"}, "target_modules: linear trains all linear layers"),
    "rl": _only(NO, "language models are trained on texts and answers; there is no preference training"),
}
"""The keys of other trainers with their meanings, by name."""


def meaning(key: str, value: Any) -> dict[str, Any] | None:
    """Return the settings that a key of another trainer stands for with this value; None if it is not understood."""
    foreign = FOREIGN.get(key)
    if foreign is None:
        return None
    if foreign.any_value:
        return {}
    found = foreign.meanings.get(_word(value))
    return None if found is None else dict(found)


def _word(value: Any) -> str:
    """Return a value as it is written in the table: a list of a single word counts as the word."""
    if isinstance(value, list | tuple):
        return _word(value[0]) if len(value) == 1 else str(value).lower()
    return "" if value is None else str(value).strip().lower()
