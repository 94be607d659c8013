"""Convert layers in memory to the file formats and names that other programs read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CrucibleError
from ..messages.wording import counted, listed
from .architectures import Architecture, Form
from .delta import BIASES, changes_nothing, kind_of, method_of, without_middle
from .language_file import to_language_form
from .layer_names import is_of_text_encoder
from .lora_file import DORA_SCALE, DOWN, MAGNITUDE, RESHAPE, SET, UP, LayerTensors, to_state_dict
from .names import layer_names, names_in_form
from .portable import Part, to_portable
from .universal import Layers

_READERS = {"diffusers": "diffusers", "peft": "PEFT"}


def to_form(
    lora: Layers, architecture: Architecture, form: Form, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return the tensors of a LoRA file in the given format and in `dtype`.

    The kohya format has "lora_unet_…" names with lora_down, lora_up and alpha. The others have dotted names with lora_A
    and lora_B, and alpha multiplied into lora_B: comfyui has "diffusion_model." and ComfyUI's names, diffusers has
    "unet." or "transformer." and diffusers' names, and peft has "base_model.model." and diffusers' names.

    LoHa, LoKr, full differences and whole weights keep kohya's format, the only one that programs read; diffusers and
    peft read none of them. A LoRA on the flattened weight of a UNet's convolution, which only ComfyUI reads, is
    reshaped to one on the convolution itself, and a middle factor is multiplied in for diffusers and peft.

    For LoRAs of language models see `language_file.to_language_form`.

    Raises:
        CrucibleError: the format has no name for a layer or does not support its method, or a value does not fit into
            `dtype`.
    """
    if architecture.id == "language":
        return to_language_form(lora, form, dtype)
    if form in _READERS:
        layers = {key: layer for key, layer in lora.layers.items() if not changes_nothing(layer)}
        _require_read(layers, form)
        lora = replace(lora, layers={key: _for_peft(layer) for key, layer in layers.items()})
    else:
        _require_no_peft_dora(lora.layers, form)
    # A difference of a parameter that is not a layer's weight is only recognized by its dotted name.
    differences = {
        key: name
        for key, name in lora.dotted.items()
        if key in lora.layers
        and name.startswith(_NATIVE)
        and (SET in lora.layers[key] or kind_of(lora.layers[key]) == "diff")
    }
    layers = {
        differences.get(key, key): _as_convolution(layer, architecture, key) for key, layer in lora.layers.items()
    }
    state_dict = to_state_dict(layers, dtype)
    if form == "kohya":
        for key, name in lora.dotted.items():
            if key not in differences and not name.startswith(_NATIVE):
                raise _unknown(key, architecture, form)
        return state_dict
    if form == "peft" and len(_models(lora.layers)) > 1:
        raise CrucibleError(
            "This LoRA also changes the text encoder, and a file in PEFT's format can only hold one model. Choose the "
            "diffusers format, which can hold both."
        )
    parts = {key: list(_parts(key, layer, lora.dotted, architecture, form)) for key, layer in lora.layers.items()}
    known = {key: found for key, found in parts.items() if found}
    return to_portable(state_dict, known, has_biases=form in _READERS)


def _as_convolution(layer: LayerTensors, architecture: Architecture, key: str) -> LayerTensors:
    names = layer_names(architecture).get(key)
    if names is None or not names.kernel or kind_of(layer) != "lora" or layer[DOWN].ndim != 2:
        return layer
    down, up, kernel = layer[DOWN], layer[UP], names.kernel
    if down.shape[1] % kernel**2:  # made for another model, which the program that loads the file will report
        return layer
    return layer | {DOWN: down.reshape(len(down), -1, kernel, kernel), UP: up.reshape(*up.shape, 1, 1)}


def _models(keys: Iterable[str]) -> set[str]:
    """Return the models of a pipeline that the layers belong to: "lora_te1", …, and "" for the denoiser."""
    return {key.partition("_text_")[0] if is_of_text_encoder(key) else "" for key in keys}


def _parts(
    key: str, layer: LayerTensors, dotted: Mapping[str, str], architecture: Architecture, form: Form
) -> Iterator[Part]:
    """Yield the parts of a layer in the file; none for a layer that stays in kohya's format."""
    names = layer_names(architecture).get(key)
    if form == "auto" and names is None:  # what reads the source file also reads its names here
        if key in dotted:
            yield Part(dotted[key])
        return
    if form == "auto" and architecture.is_kohya:
        return
    if names is None:
        name = dotted.get(key, "")
        if not name.startswith(_NATIVE if form == "comfyui" else _DIFFUSERS):
            raise _unknown(key, architecture, form)
        yield Part(name)
        return
    total = layer[UP].shape[0] if UP in layer else 0
    for name, place in names_in_form(names, architecture, form):
        rows = None
        if place.reorder is not None:
            rows = torch.argsort(place.reorder(torch.arange(total)))
        elif not place.is_whole:
            rows = torch.arange(total)[place.rows(total)]
        yield Part(name, rows)


_NATIVE = ("diffusion_model.", "text_encoders.")
_DIFFUSERS = ("transformer.", "unet.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")
"""The possible starts of layer names in ComfyUI's and in diffusers' format."""


def _unknown(key: str, architecture: Architecture, form: Form) -> CrucibleError:
    return CrucibleError(
        f"{key} has no known name in the {form} format for {architecture.name}, so the file cannot be converted to it. "
        "Use the auto format, which keeps unknown names as they are, or name the architecture that the LoRA was made "
        "for with --architecture."
    )


def _for_peft(layer: LayerTensors) -> LayerTensors:
    """Return a LoRA without what PEFT's programs find out by themselves or have no place for."""
    return without_middle({suffix: tensor for suffix, tensor in layer.items() if suffix != RESHAPE})


def _require_read(layers: Mapping[str, LayerTensors], form: Form) -> None:
    """Check that the programs for a form of PEFT's read the methods of all layers.

    Raises:
        CrucibleError: they do not; the error says which way there is.
    """
    found: dict[str, list[str]] = {}
    for key, layer in layers.items():
        plain = kind_of(layer) == "lora" or (kind_of(layer) == "dora" and DORA_SCALE not in layer)
        if not plain or ".b_norm" in layer:
            found.setdefault(method_of(layer.keys() - {".b_norm"} if plain else layer), []).append(key)
    if not found:
        return
    keys = [key for several in found.values() for key in several]
    told = "; ".join(f"{method}: {listed(several)}" for method, several in found.items())
    if all(DORA_SCALE in layers[key] and kind_of(layers[key]) == "dora" for key in keys):
        todo = "Merge it with its base model, which makes a LoRA of it: python -m trainer merge FILE --base MODEL"
    elif all(_becomes_a_lora(layers[key]) for key in keys):
        todo = "Make it a LoRA first: python -m trainer resize FILE --rank 32"
    else:
        todo = (
            "There is no way to express that in this format: use the file in ComfyUI, which reads it, or convert it "
            "--to comfyui or --to kohya, which keep everything"
        )
    raise CrucibleError(
        f"{counted(len(keys), 'layer')} of the file {'is' if len(keys) == 1 else 'are'} not LoRA ({told}), and "
        f"{_READERS[form]} has no place for {'it' if len(keys) == 1 else 'them'}, so the new file would do less or "
        f"something else. {todo}."
    )


def _becomes_a_lora(layer: LayerTensors) -> bool:
    if kind_of(layer) in ("loha", "lokr"):
        return not any(suffix in layer for suffix in BIASES)
    return kind_of(layer) == "diff" and layer.keys() == {".diff"} and layer[".diff"].ndim > 1


def _require_no_peft_dora(layers: Mapping[str, LayerTensors], form: Form) -> None:
    found = [key for key, layer in layers.items() if MAGNITUDE in layer]
    if found:
        raise CrucibleError(
            f"{counted(len(found), 'layer')} of the file {'is' if len(found) == 1 else 'are'} a DoRA in PEFT's form "
            f"({listed(found)}), whose magnitudes (lora_magnitude_vector) have no place in the {form} format: its "
            "programs would scale by another norm or apply a plain LoRA. Merge it with its base model, which makes a "
            "LoRA of it (python -m trainer merge FILE --base MODEL), or convert it --to diffusers or --to peft, which "
            "keep it as it is. Load LoRA applies the file without being converted."
        )
