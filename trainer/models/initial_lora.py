"""Training that continues from a LoRA file, made by any trainer, instead of starting from zero."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import TrainingConfig
from ..config.contradictions import contradictions
from ..errors import CrucibleError
from ..formats.adapter_folder import lora_name, lora_path
from ..formats.delta import delta_weight, kind_of, rank_of, scale_of, without_middle
from ..formats.identify import architecture_names, candidates
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import ALPHA, DORA_SCALE, MAGNITUDE, UP, LayerTensors, read_lora
from ..formats.universal import read_layers
from ..merging.to_rank import resized
from .base import BaseModel

DECIDED_BY_FILE = ("lora_rank", "lora_alpha", "target_modules")
"""Settings that take the file's value if they are on auto."""

MOST_RANK, MOST_ALPHA = 512, 1024.0
"""The largest rank and alpha that the settings allow."""

SHOWN = 3
"""The number of names that a message lists."""

_TITLES = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}

_UNTRAINABLE = {
    ".diff_b": "bias differences",
    ".diff": "full differences",
    ".w_norm": "norms",
    ".b_norm": "norms",
    ".lora_B.bias": "biases",
    ".a1": "GLoRA",
    ".oft_blocks": "OFT",
    ".oft_diag": "OFT",
    ".boft_blocks": "BOFT",
    ".lokr_t2": "LoKr in Tucker form",  # ComfyUI's loader logs an error and skips it
}
"""The methods that cannot be trained further, by suffix without "default" and "weight"."""


@dataclass(frozen=True)
class InitialLora:
    """A LoRA that a run starts from.

    Attributes:
        name: the name of its file, without extension.
        sha256: the hash of the whole file.
        layers: the layers that training starts from, by file key, float32.
        rank, alpha: the rank and alpha of most layers.
        algorithm: the algorithm of most layers.
        trigger_word: the trigger word that the file names, or "".
        notes: sentences for the report.
    """

    name: str
    sha256: str
    layers: dict[str, LayerTensors]
    rank: int
    alpha: float
    algorithm: str
    trigger_word: str
    notes: tuple[str, ...]

    @property
    def metadata(self) -> dict[str, str]:
        """The entry about this LoRA in the metadata of the LoRA trained from it."""
        return {"crucible.continued_from": json.dumps({"name": self.name, "sha256": self.sha256}, ensure_ascii=False)}

    def settings(self, config: TrainingConfig) -> TrainingConfig:
        """Return the config with the settings that the file decides.

        Raises:
            CrucibleError: the config has settings that the file's algorithm does not support.
        """
        plain_rslora = config.algorithm == "rslora" and self.algorithm == "lora"
        decided = {
            "lora_rank": self.rank,
            "lora_alpha": self.alpha * math.sqrt(self.rank) / self.rank if plain_rslora else self.alpha,
            "algorithm": config.algorithm if plain_rslora else self.algorithm,
            "train_text_encoder": config.train_text_encoder or any(map(is_of_text_encoder, self.layers)),
        }
        config = config.model_copy(update=decided)
        problems = [text for _, text in contradictions(config, {})]
        if problems:
            raise CrucibleError(
                f"The LoRA to continue from, {self.name}, is a {_TITLES[self.algorithm]}: {'; '.join(problems)}."
            )
        return config


def load_initial_lora(config: TrainingConfig, base_model: BaseModel) -> InitialLora | None:
    """Load the LoRA that `continue_from` names; return None if it is empty.

    It is a file, or a folder that PEFT wrote. Layers, ranks, alphas and algorithm are kept. Only if `lora_rank` or
    `lora_alpha` is set are LoRA and DoRA layers converted to it first, by SVD if the rank decreases.

    Raises:
        CrucibleError: the file does not exist, is for another base model, uses methods that cannot be trained, or has
            NaN or infinite weights; or settings contradict it.
    """
    if not config.continue_from:
        return None
    path = lora_path(Path(config.continue_from))
    tensors, metadata = read_lora(path)
    lora = read_layers(tensors, base_model.place_of)
    made_for = candidates({key: tuple(tensor.shape) for key, tensor in tensors.items()}, metadata)
    layers, unplaced = _with_a_place(path, architecture_names(made_for), lora.layers, base_model)
    _require_trainable(path, layers)
    _require_agreement(path, layers, config)
    plain = {
        key: {suffix: tensor.float() for suffix, tensor in without_middle(layer).items()}
        for key, layer in layers.items()
    }
    layers, lost = resized(plain, config.lora_rank, config.lora_alpha, config.algorithm == "rslora", config.seed)
    rank, alpha = _usual_rank_and_alpha(layers)
    if rank > MOST_RANK:
        raise CrucibleError(
            f"{path} has rank {rank}, but {MOST_RANK} is the highest that can be trained. Set lora_rank to have it "
            "resized first."
        )
    trigger_word = metadata.get("modelspec.trigger_phrase", "").strip()
    notes = [_what_it_is(lora_name(path), layers)]
    if lost is not None:
        without = f", which lost {lost:.1%} of its effect" if lost else ""
        notes.append(f"It was resized to rank {rank} before the first step{without}.")
    notes += _on_settings(config, layers)
    left_out = [*unplaced, *lora.leftover]
    if left_out:
        notes.append(
            f"{len(left_out)} of its parts were skipped, because {base_model.name} does not have them or has them in a "
            f"different size: {_shown(left_out)}."
        )
    if trigger_word:
        notes.append(
            f'Its trigger word "{trigger_word}" is kept in the new file if the dataset has none; captions are used '
            "unchanged."
        )
    return InitialLora(
        lora_name(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        layers,
        rank,
        alpha,
        _usual_algorithm(layers),
        trigger_word,
        tuple(notes),
    )


def _with_a_place(
    path: Path, made_for: str, layers: Mapping[str, LayerTensors], base_model: BaseModel
) -> tuple[dict[str, LayerTensors], list[str]]:
    """Return the layers that the model has, and the keys of the others.

    Args:
        path: the LoRA's file.
        made_for: the name of the file's architecture, as shown to users.
        layers: the layers of the file.
        base_model: the model to train on.

    Raises:
        CrucibleError: the model has fewer than half of the layers.
    """
    shapes = base_model.layer_shapes()
    known = [key for key in layers if key in shapes]
    placed = {key: layers[key] for key in known if fits(layers[key], shapes[key])}
    unplaced = [key for key in layers if key not in placed]
    of_model = [key for key in layers if not is_of_text_encoder(key)]
    if not layers or 2 * sum(key in placed for key in of_model or layers) < len(of_model or layers):
        raise CrucibleError(_misfit(path, made_for, len(layers), len(known), len(placed), base_model))
    return placed, unplaced


def fits(adapter: LayerTensors, shape: tuple[int, ...]) -> bool:
    """Return whether the adapter's ΔW has the shape of a weight; also True for unknown methods."""
    parts = {
        suffix: tensor if suffix == ALPHA else tensor.to("meta")
        for suffix, tensor in adapter.items()
        if suffix not in (DORA_SCALE, MAGNITUDE)
    }
    try:
        found = delta_weight(parts).shape
    except CrucibleError:
        return True
    except RuntimeError:  # the shapes of the factors do not match
        return False
    return len(found) > 1 and found[0] == shape[0] and found.numel() == math.prod(shape)


def _misfit(path: Path, made_for: str, layers: int, known: int, placed: int, base_model: BaseModel) -> str:
    sizes = f", and {known - placed} of these have a different size" if known > placed else ""
    return (
        f"{path} cannot be continued on {base_model.name} ({base_model.architecture.name}), which has {known} of its "
        f"{layers} layers{sizes}. It is for {made_for}. Train on the model that it was made for or on one derived "
        "from it, or leave continue_from empty."
    )


def _require_trainable(path: Path, layers: Mapping[str, LayerTensors]) -> None:
    """Check that all layers use methods that can be trained.

    Raises:
        CrucibleError: some layers use another method.
    """
    others = {key: found for key, layer in layers.items() if (found := _untrainable(layer))}
    if not others:
        return
    todo = f"Convert it to a LoRA first: python -m trainer resize {path.name} --rank 32."
    if any(kind_of(layers[key]) in ("other", "dora") for key in others):
        todo = "Apply it to the model with a LoRA loader instead, and train a new LoRA on top of it."
    raise CrucibleError(
        f"{path} has {', '.join(sorted(set(others.values())))} in {len(others)} of its {len(layers)} layers "
        f"({_shown(others)}), which cannot be trained further; only LoRA, DoRA, LoHa and LoKr can. {todo}"
    )


def _untrainable(layer: LayerTensors) -> str:
    """Return the name of the method in a layer that cannot be trained, as shown to users; "" if there is none."""
    suffixes = [suffix.removesuffix(".weight").removesuffix(".default") for suffix in layer]
    found = dict.fromkeys(_UNTRAINABLE[suffix] for suffix in suffixes if suffix in _UNTRAINABLE)
    if found:
        return ", ".join(found)
    kind = kind_of(layer)
    if DORA_SCALE in layer and kind != "dora":
        return "LoHa or LoKr with DoRA"
    if kind == "dora" and DORA_SCALE in layer and len(layer[DORA_SCALE]) != len(layer[UP]):
        return "DoRA with scales per input"
    if MAGNITUDE in layer and (DORA_SCALE in layer or layer[MAGNITUDE].isnan().any()):
        return "DoRA in a part of their outputs"
    return "" if kind in _TITLES else "an unknown method"


def _require_agreement(path: Path, layers: Mapping[str, LayerTensors], config: TrainingConfig) -> None:
    """Check that the config does not contradict the file.

    Raises:
        CrucibleError: the config asks for another algorithm, or for a rank or alpha that these layers cannot be given.
    """
    kinds = {kind_of(layer) for layer in layers.values()}
    asked = "lora" if config.algorithm == "rslora" else config.algorithm
    titles = " and ".join(_TITLES[kind] for kind in sorted(kinds))
    if config.algorithm != "lora" and asked not in kinds:
        raise CrucibleError(
            f"algorithm is {config.algorithm}, but {path} is {titles}, and continued training keeps the algorithm of "
            f"the file. Set algorithm back to lora, which lets the file decide, or leave continue_from empty."
        )
    for key, layer in layers.items():
        rank = rank_of(layer)
        if kind_of(layer) not in ("loha", "lokr") or rank is None:
            continue
        for name, wanted, has in (
            ("lora_rank", config.lora_rank, rank),
            ("lora_alpha", config.lora_alpha, rank * scale_of(layer)),
        ):
            if wanted is not None and not math.isclose(wanted, has, rel_tol=1e-3):
                raise CrucibleError(
                    f"{name} is {wanted:g}, but {key} in {path} has {has:g}, and a {_TITLES[kind_of(layer)]} cannot be "
                    f"resized. Leave {name} on auto, or convert the file to a LoRA first: python -m trainer resize "
                    f"{path.name} --rank 32."
                )


def _usual_rank_and_alpha(layers: Mapping[str, LayerTensors]) -> tuple[int, float]:
    """Return the rank and alpha of most layers; rank 1 if all are LoKr of whole matrices, which have no rank."""
    found = Counter((rank, rank * scale_of(layer)) for layer in layers.values() if (rank := rank_of(layer)) is not None)
    rank, alpha = found.most_common(1)[0][0] if found else (1, 1.0)
    return rank, alpha if 0 < alpha <= MOST_ALPHA else float(rank)


def _usual_algorithm(layers: Mapping[str, LayerTensors]) -> str:
    return Counter(kind_of(layer) for layer in layers.values()).most_common(1)[0][0]


def _what_it_is(name: str, layers: Mapping[str, LayerTensors]) -> str:
    kinds = " and ".join(_TITLES[kind] for kind in sorted({kind_of(layer) for layer in layers.values()}))
    ranks = sorted({rank for layer in layers.values() if (rank := rank_of(layer)) is not None})
    by_layer = f"ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"rank {ranks[0]}" if ranks else "no rank"
    return (
        f"Continued from {name}: {kinds}, {by_layer}, {len(layers)} layers. Training started from these and their "
        "alphas, and the first sample shows what the file did before."
    )


def _on_settings(config: TrainingConfig, layers: Mapping[str, LayerTensors]) -> Iterator[str]:
    of_text = [is_of_text_encoder(key) for key in layers]
    ignored = [name for name in ("target_modules", "layer_patterns") if getattr(config, name)]
    if all(of_text):
        yield "The file only has layers for the text encoder, so the layers of the model itself start from zero."
    elif ignored:
        yield f"{' and '.join(ignored)}: no effect, because the layers are those of the file."
    if any(of_text) and not config.train_text_encoder:
        yield "train_text_encoder was switched on, because the file has layers for the text encoder."
    if config.train_text_encoder and not any(of_text):
        yield "The file has no layers for the text encoder, so the text encoder starts from zero."


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
