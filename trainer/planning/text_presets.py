"""The settings that suit a language model by its size: how much a LoRA has to learn, and how much fits into memory."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.facts import DatasetFacts, ModelFacts
from ..config.schema import TrainingConfig
from ..messages.wording import counted, size_text
from .auto_values import AutoValues
from .run_length import OF_TEXTS, choose_batch

MANY_ROWS = 1000
"""The number of rows from which the higher rank of a size is used."""

BATCHES = ((256, 8), (512, 4), (1024, 2))
"""Pairs of a length in tokens and the number of rows of at most that length that are trained at once."""

ADAPTER_BYTES = 16
"""The bytes for each number of an adapter: weight, gradient and the two moments of AdamW, in float32."""

MOST_OF_SPARE = 0.25
"""The most of the memory beside the model that adapters on all layers may take; a step needs the rest."""

QUERIES_AND_VALUES = "q_proj, v_proj"
"""The layers that get an adapter when memory is short."""

LEAST_LENGTH = 8
"""The lowest `max_seq_length` that the settings allow."""


@dataclass(frozen=True)
class TextPreset:
    """The settings that suit language models of a size.

    Attributes:
        most: the most billions of parameters of such a model.
        name: the size as a phrase, such as "under 7B".
        ranks: the rank for few and for many rows.
        dropout: the dropout.
        learning_rate: the learning rate for AdamW.
    """

    most: float
    name: str
    ranks: tuple[int, int]
    dropout: float
    learning_rate: float


# Models are named by rounded sizes: Llama 2 7B has 6.7 billion parameters, and its 13B has 13.02.
# Learning rates: Dettmers et al. 2023 (arXiv:2305.14314), table 9: 2e-4 for 7B and 13B, 1e-4 for 33B and 65B.
PRESETS = (
    TextPreset(6.5, "under 7B", (8, 16), 0.1, 2e-4),
    TextPreset(13.5, "from 7B to 13B", (16, 32), 0.05, 2e-4),
    TextPreset(float("inf"), "above 13B", (32, 64), 0.01, 1e-4),
)


def preset_of(model: ModelFacts) -> TextPreset:
    """Return the preset for a language model; the one for small models if its size is not known."""
    return next(preset for preset in PRESETS if model.parameters / 1e9 <= preset.most)


def choose_for_texts(choices: AutoValues, dataset: DatasetFacts, model: ModelFacts) -> tuple[int, int]:
    """Choose the adapter, the length of rows and the batch; return batch size and gradient accumulation."""
    choices.values["task_type"] = "text-generation"
    _choose_adapter(choices, dataset, preset_of(model))
    _choose_layers(choices, model)
    longest = max(LEAST_LENGTH, dataset.longest)
    if dataset.longest:
        choices.take("max_seq_length", longest, f"the longest {choices.unit} has {dataset.longest} tokens")
    # There are no noise levels and no captions.
    choices.values |= {"loss_weighting": "none", "caption_dropout_rate": 0.0, "sample_cfg": 1.0}
    length = choices.value("max_seq_length")
    return choose_batch(choices, dataset.examples, *_batch(length), OF_TEXTS)


def usual_text_rate(model: ModelFacts) -> tuple[float, str]:
    """Return the usual learning rate of AdamW for a language model, with the models that it is usual for."""
    preset = preset_of(model)
    return preset.learning_rate, f"language models {preset.name}"


def _choose_adapter(choices: AutoValues, dataset: DatasetFacts, preset: TextPreset) -> None:
    config: TrainingConfig = choices.config
    rank = choices.take(
        "lora_rank",
        preset.ranks[dataset.examples >= MANY_ROWS],
        f"for models {preset.name} and {counted(dataset.examples, choices.unit)}",
    )
    if config.algorithm == "rslora":
        choices.take(
            "lora_alpha", rank / 2, "half the rank, because rslora divides by only the square root of the rank"
        )
    else:
        choices.take("lora_alpha", 2.0 * rank, "twice the rank, as is usual for language models")
    choices.take_dropout(preset.dropout, f"for models {preset.name}; larger ones overfit less")


def _choose_layers(choices: AutoValues, model: ModelFacts) -> None:
    """Choose all linear layers, or only those of queries and values if adapters on all would fill the memory."""
    config = choices.config
    # A LoRA to continue from has its layers.
    is_open = config.target_modules is None and not config.layer_patterns and not config.continue_from
    # Dettmers et al. 2023, figure 2: with adapters on all linear layers, LoRA is as good as full fine-tuning.
    choices.take("target_modules", "linear", "all linear layers of the blocks learn more than attention alone")
    if config.layer_patterns:
        choices.reasons.pop("target_modules", None)  # the layers by name decide
    needed = choices.value("lora_rank") * model.linear_sizes * ADAPTER_BYTES
    if is_open and model.spare_memory is not None and needed > MOST_OF_SPARE * model.spare_memory:
        choices.set(
            "layer_patterns",
            QUERIES_AND_VALUES,
            f"a LoRA on all linear layers would need {size_text(needed)}, too much of the "
            f"{size_text(max(0, model.spare_memory))} that the model leaves free",
        )
        del choices.reasons["target_modules"]


def _batch(length: int | None) -> tuple[int, str]:
    if length is None:
        return 1, "a single row fits into memory on most devices"
    for longest, rows in BATCHES:
        if length <= longest:
            return rows, f"{rows} rows of up to {length:,} tokens fit into memory on most devices"
    return 1, f"rows of up to {length:,} tokens need a lot of memory"
