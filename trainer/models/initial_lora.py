"""Training that starts from a LoRA file, of any trainer, instead of from zero."""

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
from ..formats.delta import delta_weight, kind_of, rank_of, scale_of, without_middle
from ..formats.identify import architecture_names, candidates
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import ALPHA, DORA_SCALE, UP, LayerTensors, read_lora
from ..formats.universal import read_layers
from ..merging.to_rank import resized
from .base import BaseModel

DECIDED_BY_FILE = ("lora_rank", "lora_alpha", "target_modules")
"""Settings that are the file's where they are on auto."""

MOST_RANK, MOST_ALPHA = 512, 1024.0
"""What the settings can say."""

SHOWN = 3
"""Names that a message lists."""

_TITLES = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}

_UNTRAINABLE = {
    ".diff_b": "differences of biases",
    ".diff": "whole differences",
    ".w_norm": "norms",
    ".b_norm": "norms",
    ".lora_B.bias": "biases",
    ".lora_magnitude_vector": "DoRA in PEFT's form",
    ".a1": "GLoRA",
    ".oft_blocks": "OFT",
    ".oft_diag": "OFT",
    ".boft_blocks": "BOFT",
    ".lokr_t2": "LoKr in Tucker's form",  # for which ComfyUI's loader logs an error and goes on without
}
"""What nothing can be trained on, by suffixes without "default" and "weight"."""


@dataclass(frozen=True)
class Continued:
    """A LoRA that a run starts from.

    Attributes:
        name: of its file, without the ending.
        sha256: of the whole file.
        layers: what training starts from, by file key, float32.
        rank, alpha: of most layers.
        algorithm: of most layers.
        trigger_word: that the file names; or "".
        notes: sentences about it.
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
        """For the file of what becomes of it."""
        return {"crucible.continued_from": json.dumps({"name": self.name, "sha256": self.sha256}, ensure_ascii=False)}

    def settings(self, config: TrainingConfig) -> TrainingConfig:
        """The config with what the file decides.

        Raises:
            CrucibleError: settings that the file's algorithm does not have.
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


def continued_from(config: TrainingConfig, base_model: BaseModel) -> Continued | None:
    """The LoRA that `continue_from` names; None where it names none.

    Its layers, ranks, alphas and algorithm stay as they are. Only where `lora_rank` or `lora_alpha` is set, LoRA and
    DoRA layers are brought to it first, by SVD where the rank falls.

    Raises:
        CrucibleError: there is no such file; it is for another base model; it has methods that cannot be trained, or
            values that are no numbers; or settings contradict it.
    """
    if not config.continue_from:
        return None
    path = Path(config.continue_from).expanduser()
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
            f"{path} has rank {rank}, and {MOST_RANK} is the most that can be trained here. Set lora_rank, to have it "
            "resized first."
        )
    trigger_word = metadata.get("modelspec.trigger_phrase", "").strip()
    notes = [_what_it_is(path.stem, layers)]
    if lost is not None:
        without = f", which left out {lost:.1%} of what it does" if lost else ""
        notes.append(f"It was resized to rank {rank} before the first step{without}.")
    notes += _on_settings(config, layers)
    left_out = [*unplaced, *lora.leftover]
    if left_out:
        notes.append(
            f"{len(left_out)} of its parts have no place on {base_model.name}, or one of another size, and were left "
            f"out: {_shown(left_out)}."
        )
    if trigger_word:
        notes.append(
            f'Its trigger word "{trigger_word}" goes on into the new file where the dataset names none; captions are '
            "trained as they are."
        )
    return Continued(
        path.stem,
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
    """The layers that the model has, and the keys of the others.

    Args:
        made_for: the file's architecture, for people.

    Raises:
        CrucibleError: it has fewer than half of them.
    """
    shapes = base_model.layer_shapes()
    known = [key for key in layers if key in shapes]
    placed = {key: layers[key] for key in known if _fits(layers[key], shapes[key])}
    unplaced = [key for key in layers if key not in placed]
    of_model = [key for key in layers if not is_of_text_encoder(key)]
    if not layers or 2 * sum(key in placed for key in of_model or layers) < len(of_model or layers):
        raise CrucibleError(_misfit(path, made_for, len(layers), len(known), len(placed), base_model))
    return placed, unplaced


def _fits(adapter: LayerTensors, shape: tuple[int, ...]) -> bool:
    """Whether its ΔW is of a weight's shape; also where the method is unknown here."""
    parts = {
        suffix: tensor if suffix == ALPHA else tensor.to("meta")
        for suffix, tensor in adapter.items()
        if suffix != DORA_SCALE
    }
    try:
        found = delta_weight(parts).shape
    except CrucibleError:
        return True
    except RuntimeError:  # factors that do not go together
        return False
    return len(found) > 1 and found[0] == shape[0] and found.numel() == math.prod(shape)


def _misfit(path: Path, made_for: str, layers: int, known: int, placed: int, base_model: BaseModel) -> str:
    sizes = f", and {known - placed} of these are of another size" if known > placed else ""
    return (
        f"{path} cannot be continued on {base_model.name} ({base_model.architecture.name}): that has {known} of its "
        f"{layers} layers{sizes}. It is for {made_for}. Train on the model that it was made for, or on one derived "
        "from that, or leave continue_from empty."
    )


def _require_trainable(path: Path, layers: Mapping[str, LayerTensors]) -> None:
    """
    Raises:
        CrucibleError: some layers are of a method that nothing can be trained on.
    """
    others = {key: found for key, layer in layers.items() if (found := _untrainable(layer))}
    if not others:
        return
    todo = f"Make a LoRA of it first: python -m trainer resize {path.name} --rank 32."
    if any(kind_of(layers[key]) in ("other", "dora") for key in others):
        todo = "Apply it to the model with a LoRA loader instead, and train a new LoRA on top of it."
    raise CrucibleError(
        f"{path} has {', '.join(sorted(set(others.values())))} in {len(others)} of its {len(layers)} layers "
        f"({_shown(others)}), which cannot be trained on: LoRA, DoRA, LoHa and LoKr can. {todo}"
    )


def _untrainable(layer: LayerTensors) -> str:
    """What cannot be trained of a layer, in words; or ""."""
    suffixes = [suffix.removesuffix(".weight").removesuffix(".default") for suffix in layer]
    found = dict.fromkeys(_UNTRAINABLE[suffix] for suffix in suffixes if suffix in _UNTRAINABLE)
    if found:
        return ", ".join(found)
    kind = kind_of(layer)
    if DORA_SCALE in layer and kind != "dora":
        return "LoHa or LoKr with DoRA"
    if kind == "dora" and len(layer[DORA_SCALE]) != len(layer[UP]):
        return "DoRA by inputs"
    return "" if kind in _TITLES else "an unknown method"


def _require_agreement(path: Path, layers: Mapping[str, LayerTensors], config: TrainingConfig) -> None:
    """
    Raises:
        CrucibleError: the config asks for another algorithm, or for a rank or alpha that these layers cannot be given.
    """
    kinds = {kind_of(layer) for layer in layers.values()}
    asked = "lora" if config.algorithm == "rslora" else config.algorithm
    titles = " and ".join(_TITLES[kind] for kind in sorted(kinds))
    if config.algorithm != "lora" and asked not in kinds:
        raise CrucibleError(
            f"algorithm is {config.algorithm}, but {path} is {titles}, and continued training keeps what a file has. "
            f"Set algorithm back to lora, which leaves that to the file, or leave continue_from empty."
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
                    f"resized. Leave {name} on auto, or make a LoRA of it first: python -m trainer resize {path.name} "
                    "--rank 32."
                )


def _usual_rank_and_alpha(layers: Mapping[str, LayerTensors]) -> tuple[int, float]:
    """Of most layers. LoKr of whole matrices have none, and count as rank 1 where there are no others."""
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
        f"Continued from {name}: {kinds}, {by_layer}, {len(layers)} layers. These, with their alphas, are the file's, "
        "and so is the first sample."
    )


def _on_settings(config: TrainingConfig, layers: Mapping[str, LayerTensors]) -> Iterator[str]:
    of_text = [is_of_text_encoder(key) for key in layers]
    ignored = [name for name in ("target_modules", "layer_patterns") if getattr(config, name)]
    if all(of_text):
        yield "The file has a part for the text encoder only, so the layers of the model itself start from zero."
    elif ignored:
        yield f"{' and '.join(ignored)}: without effect, because the layers are those of the file."
    if any(of_text) and not config.train_text_encoder:
        yield "train_text_encoder is on, because the file has a part for the text encoder."
    if config.train_text_encoder and not any(of_text):
        yield "The file has no part for the text encoder, so that one starts from zero."


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
