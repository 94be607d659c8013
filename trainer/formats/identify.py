"""Identify the architecture that a LoRA file is for, and the program that made it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .adapter_keys import Shapes, layer_sizes
from .architectures import ARCHITECTURES, Architecture
from .header import FileShapes
from .language_names import are_of_language_model
from .names import clip_count
from .signatures import Match, Size, match_tables
from .spelling import flat, names_text_encoder
from .stated_architecture import stated_architectures
from .unet_signatures import is_of_unet, match_unet


@dataclass(frozen=True)
class Identified:
    """What the layers and the metadata of a LoRA say about its architecture.

    Attributes:
        architectures: the architectures that it can be for; empty if they are unknown.
        published: whether its sizes are those of published models, rather than of a toy, for which only names count.
        contradiction: a sentence about metadata that names another architecture than the layers do; empty if there is
            none.
    """

    architectures: tuple[Architecture, ...]
    published: bool
    contradiction: str


def identify(shapes: Shapes, metadata: Mapping[str, str]) -> Architecture | None:
    """Return the architecture that a LoRA is for; None if it is unknown or there are several candidates."""
    found = candidates(shapes, metadata)
    return found[0] if len(found) == 1 else None


def candidates(shapes: Shapes, metadata: Mapping[str, str]) -> tuple[Architecture, ...]:
    """Return the architectures that a LoRA can be for; for the arguments see `identified`."""
    return identified(shapes, metadata).architectures


def identified(shapes: Shapes, metadata: Mapping[str, str]) -> Identified:
    """Return what a LoRA's layers and metadata say about its architecture.

    Names and sizes of layers decide. Some architectures have the same layers (Flux.1 and Chroma, Anima and
    Cosmos-Predict2), or the same in the few blocks that a LoRA changes: the metadata decides between them, and if it
    does not, all of them are returned. The metadata also decides alone if the layers are unknown.

    Args:
        shapes: the shape of each tensor, by key.
        metadata: the file's metadata.
    """
    found = _remembered(shapes)
    stated = stated_architectures(metadata)
    ids, contradiction = found.ids, ""
    if not ids:
        ids = tuple(stated) if len(stated) == 1 else ()
    elif both := tuple(id for id in ids if id in stated):
        ids = both
    elif not found.certain:
        ids = ()
    elif stated:
        contradiction = (
            f"Its metadata says {_names(stated)}, but its layers have the names and sizes of {_names(ids)}. The layers "
            "decide; the metadata may have been copied from another file."
        )
    return Identified(tuple(ARCHITECTURES[id] for id in ids), found.published, contradiction)


def candidates_of_checkpoint(shapes: Shapes) -> tuple[Architecture, ...]:
    """Return the architectures that a checkpoint can have, by its own layers; empty if they are unknown.

    Args:
        shapes: the shape of each tensor, by name.
    """
    sizes: dict[str, Size] = {
        name.removesuffix(".weight"): (int(shape[0]), int(shape[1]))
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) >= 2 and not name.startswith(_BESIDE_THE_DENOISER)
    }
    return tuple(ARCHITECTURES[id] for id in _by_layers(sizes).ids)


_BESIDE_THE_DENOISER = ("cond_stage_model.", "conditioner.", "first_stage_model.", "vae.", "text_encoders.")


def _names(ids: Iterable[str]) -> str:
    return architecture_names(ARCHITECTURES[id] for id in ids)


_known: dict[bytes, Match] = {}
"""What the layers of files say, by their digest."""


def _remembered(shapes: Shapes) -> Match:
    if not isinstance(shapes, FileShapes):
        return _by_layers(layer_sizes(shapes))
    if shapes.digest not in _known:
        _known[shapes.digest] = _by_layers(layer_sizes(shapes))
    return _known[shapes.digest]


def _by_layers(sizes: Mapping[str, Size]) -> Match:
    of_text = {flat(name): size for name, size in sizes.items() if names_text_encoder(name)}
    if are_of_language_model(sizes):
        return Match(("language", "anima") if _is_of_anima(sizes) else ("language",))
    others = {name: size for name, size in sizes.items() if not names_text_encoder(name) and any(size)}
    if not others:
        return Match(_by_text_encoders(of_text))
    spelled = {flat(name): size for name, size in others.items()}
    if 2 * sum(map(is_of_unet, spelled)) > len(spelled):
        found = Match(match_unet(spelled) or _by_text_encoders(of_text))
    else:
        found = match_tables(others)
    return Match(tuple(id for id in found.ids if _has_clips(id, of_text)), found.published, found.certain)


def _has_clips(id: str, of_text: Iterable[str]) -> bool:
    """Return whether an architecture has the CLIP models that a file's layers are of."""
    clips = {name[2] for name in of_text if name.startswith(("te1:text_model_encoder", "te2:text_model_encoder"))}
    return int(max(clips, default="0")) <= clip_count(ARCHITECTURES[id])


def _is_of_anima(sizes: Mapping[str, Size]) -> bool:
    """Return whether layers of a language model can be those of Anima's text encoder in kohya's names, which is Qwen3
    with a width of 1,024."""
    of_queries = {columns for name, (_, columns) in sizes.items() if name.endswith(("q_proj", "k_proj", "v_proj"))}
    return all(name.startswith("lora_te_layers_") for name in sizes) and of_queries <= {None, 1024}


def _by_text_encoders(layers: Mapping[str, Size]) -> tuple[str, ...]:
    if any(name.startswith("te3:") for name in layers):
        return ("sd3",)
    if any(name.startswith("te2:encoder_block") for name in layers):  # T5
        return ("flux1", "chroma")
    if any(name.startswith("te2:") for name in layers):
        return ("sdxl", "sd3")
    widths = {columns for name, (_, columns) in layers.items() if columns and "self_attn" in name}
    return {128: ("demo",), 768: ("sd15",), 1024: ("sd2", "sd2_v")}.get(max(widths, default=0), ())


def trainer_name(metadata: Mapping[str, str]) -> str:
    """Return the name of the program that made a file, according to its metadata; empty if it is unknown."""
    if version := metadata.get("crucible.version"):
        return f"LoRA Crucible {version}"
    if software := _object(metadata.get("software")):
        return " ".join(str(software[key]) for key in ("name", "version") if software.get(key))
    if any(key.startswith("ot_") for key in metadata):
        return "OneTrainer"
    module = metadata.get("ss_network_module", "")
    if module.startswith("lycoris"):
        return "kohya's trainer with LyCORIS"
    if module or "ss_sd_scripts_commit_hash" in metadata:
        return "kohya's trainer (sd-scripts or musubi-tuner)"
    if "lora_adapter_metadata" in metadata:
        return "diffusers"
    return ""


def _object(text: str | None) -> dict:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def architecture_names(architectures: Iterable[Architecture]) -> str:
    """Return the names of architectures as shown to users: "Flux.1 or Chroma"."""
    return " or ".join(row.name for row in architectures) or "an unknown architecture"
