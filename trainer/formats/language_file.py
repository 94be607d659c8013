"""LoRAs of language models in the form of files: with ComfyUI's names, or as an adapter of PEFT."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import CrucibleError
from ..messages.wording import listed
from .architectures import Form
from .delta import kind_of, method_of, rank_of, scale_of, without_middle
from .language_names import OF_COMFYUI, OF_PEFT, language_path
from .layer_names import text_path
from .lora_file import ALPHA, BIAS, DORA_SCALE, DOWN, MAGNITUDE, UP, LayerTensors, to_state_dict
from .portable import Part, to_portable
from .universal import Layers

_PARTS_IN_PEFT = {DOWN: ".lora_A.weight", UP: ".lora_B.weight", BIAS: ".lora_B.bias"}


def paths_of(lora: Layers) -> dict[str, str]:
    """Return the path in transformers of each layer of a language model's LoRA, by key in memory.

    Raises:
        CrucibleError: the path of a layer is not known.
    """
    found = {key: language_path(lora.dotted.get(key, key)) for key in lora.layers}
    if unknown := [key for key, path in found.items() if path is None]:
        raise CrucibleError(
            f"The layers {listed(unknown)} have names that belong to no language model of transformers, so no program "
            "would find them in a new file. Use the file as it is in the program that made it."
        )
    return {key: path for key, path in found.items() if path is not None}


def to_language_form(lora: Layers, form: Form, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the tensors of a language model's LoRA in a format that programs read.

    Args:
        lora: the layers.
        form: auto or comfyui for ComfyUI's names, or peft for the tensors of PEFT's adapter_model.safetensors, with
            alpha multiplied in.
        dtype: the precision of the file.

    Raises:
        CrucibleError: the format has no place for language models or for the method of a layer, or a value does not
            fit into `dtype`.
    """
    if form in ("kohya", "diffusers"):
        raise CrucibleError(
            f"This LoRA is for a language model, and {form}'s programs have none, so no program would read the file. "
            "Convert it --to comfyui for ComfyUI, or --to peft for transformers, PEFT and vLLM."
        )
    paths = paths_of(lora)
    if form == "peft":
        adapter = peft_adapter({paths[key]: layer for key, layer in lora.layers.items()}, scale=1.0)
        return to_state_dict({"": adapter.tensors}, dtype)
    if found := [key for key, layer in lora.layers.items() if MAGNITUDE in layer]:
        raise CrucibleError(
            f"{len(found)} of its {len(lora.layers)} layers are a DoRA in PEFT's form ({listed(found)}), whose "
            "magnitudes cannot be converted to ComfyUI's form without the base model. Merge it into that model "
            "(python -m trainer merge FILE --into FOLDER), or convert it --to peft, which keeps it as it is."
        )
    return in_comfyui_names(to_state_dict(lora.layers, dtype), paths)


def in_comfyui_names(state_dict: Mapping[str, Tensor], paths: Mapping[str, str]) -> dict[str, Tensor]:
    """Convert a language model's LoRA from the format in memory to the one that ComfyUI's loaders read.

    LoRA and DoRA get PEFT's suffixes, with alpha multiplied into lora_B; LoHa and LoKr keep those of LyCORIS.

    Args:
        state_dict: the tensors; each key is a layer's key, which has no dot, and a suffix.
        paths: the path in transformers of each layer, by key.
    """
    names = {key: f"{OF_COMFYUI}{text_path(path)}" for key, path in paths.items()}
    found = {}
    for name, tensor in to_portable(state_dict, {key: [Part(one)] for key, one in names.items()}).items():
        key, dot, suffix = name.partition(".")
        found[f"{names[key]}{dot}{suffix}" if key in names else name] = tensor
    return found


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter as PEFT stores it.

    Attributes:
        tensors: the content of adapter_model.safetensors.
        config: the content of adapter_config.json.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]


def peft_adapter(
    layers: Mapping[str, LayerTensors],
    *,
    base_model: str = "",
    others: Collection[str] | None = None,
    scale: float | None = None,
) -> PeftAdapter:
    """Return the adapter of PEFT that does what these layers do.

    LoRA and DoRA get one rank and one alpha for all layers, because programs that ignore PEFT's patterns of ranks and
    alphas, such as vLLM and llama.cpp, would scale the layers wrongly. Lower ranks are filled up with zeros, and where
    a layer has another scale, its lora_B makes up for it.

    Args:
        layers: the layers by path in transformers; a DoRA has `MAGNITUDE`.
        base_model: the folder or the hub id of the base model.
        others: the paths of the base model's layers that could have an adapter, so that the config can name layers by
            the ends of their paths; None if they are not known.
        scale: the alpha / rank of LoRA and DoRA; None for that of most layers.

    Raises:
        CrucibleError: PEFT has no adapter with the methods of these layers.
    """
    kinds = {kind_of(layer.keys() - {BIAS}) for layer in layers.values()}
    kind = next(iter(kinds), "other")
    if len(kinds) > 1 or kind not in ("lora", "dora", "loha", "lokr"):
        methods = " and ".join(sorted({method_of(layer) for layer in layers.values()}))
        raise CrucibleError(
            f"The layers of this LoRA are {methods}, and an adapter of PEFT is all LoRA, all DoRA, all LoHa or all "
            "LoKr. Make it a LoRA first: python -m trainer resize FILE --rank 32."
        )
    if found := [path for path, layer in layers.items() if DORA_SCALE in layer]:
        raise CrucibleError(
            f"This LoRA is a DoRA in ComfyUI's form ({listed(found)}), and PEFT scales by another norm, so it cannot "
            "be converted without the base model. A run on a language model writes PEFT's form too, into the folder "
            "adapter; or merge it into the base model: python -m trainer merge FILE --into FOLDER."
        )
    ranks = {path: rank_of(layer) or _least_rank_of_whole(layer) for path, layer in layers.items()}
    scales = {path: scale_of(layer) for path, layer in layers.items()}
    usual_rank = max(ranks.values()) if kind in ("lora", "dora") else _most_frequent(ranks.values())
    tensors: dict[str, Tensor] = {}
    if kind in ("lora", "dora"):
        usual_scale = scale or _most_frequent(scales.values()) or 1.0
        biased = any(BIAS in layer for layer in layers.values())
        for path, layer in layers.items():
            tensors |= _of_peft(path, _filled_up(layer, usual_rank), scales[path], usual_scale, biased)
        scales, ranks = dict.fromkeys(scales, usual_scale), dict.fromkeys(ranks, usual_rank)
        extra = {"use_dora": kind == "dora", "use_rslora": False, "lora_bias": biased, "lora_dropout": 0.0}
    else:
        usual_scale = _most_frequent(scales.values())
        for path, layer in layers.items():
            tensors |= {f"{OF_PEFT}{path}{suffix}": one for suffix, one in layer.items() if suffix != ALPHA}
        extra = {"decompose_both": True, "decompose_factor": -1} if kind == "lokr" else {}
    usual_alpha = usual_scale * usual_rank
    alphas = {path: scales[path] * ranks[path] for path in layers}
    config = {
        "peft_type": {"loha": "LOHA", "lokr": "LOKR"}.get(kind, "LORA"),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "bias": "none",
        "r": usual_rank,
        "alpha" if kind in ("loha", "lokr") else "lora_alpha": _whole(usual_alpha),
        "target_modules": _targets(layers, others),
        "rank_pattern": {path: rank for path, rank in ranks.items() if rank != usual_rank},
        "alpha_pattern": {path: _whole(one) for path, one in alphas.items() if abs(one - usual_alpha) > 1e-6 * one},
        **extra,
    }
    if kind in ("loha", "lokr"):
        del config["bias"]
    return PeftAdapter(tensors, config)


def _filled_up(layer: LayerTensors, rank: int) -> LayerTensors:
    """Return a LoRA or DoRA with zeros in place of the ranks that it lacks; its `ALPHA` no longer counts."""
    whole = without_middle(layer)
    lacking = rank - len(whole[DOWN])
    down, up = whole[DOWN].flatten(1), whole[UP].flatten(1)
    return whole | {DOWN: pad(down, (0, 0, 0, lacking)), UP: pad(up, (0, lacking))}


def _of_peft(path: str, layer: LayerTensors, scale: float, usual: float, biased: bool) -> dict[str, Tensor]:
    """Return a LoRA or DoRA layer in PEFT's names, with lora_B scaled so that `usual` is the layer's alpha / rank."""
    up = layer[UP]
    ratio = scale / usual
    found = {DOWN: layer[DOWN], UP: up if ratio == 1 else (up.float() * ratio).to(up.dtype)}
    if biased:
        bias = layer.get(BIAS, torch.zeros(len(up), dtype=up.dtype))
        found[BIAS] = (bias.float() / usual).to(bias.dtype)
    tensors = {f"{OF_PEFT}{path}{_PARTS_IN_PEFT[suffix]}": tensor.contiguous() for suffix, tensor in found.items()}
    if MAGNITUDE in layer:
        tensors[f"{OF_PEFT}{path}.lora_magnitude_vector"] = layer[MAGNITUDE]
    return tensors


def _least_rank_of_whole(lokr: LayerTensors) -> int:
    """Return the lowest rank at which PEFT keeps both matrices of this LoKr whole."""
    return math.ceil(max(*lokr[".lokr_w1"].shape, *lokr[".lokr_w2"].shape) / 2)


def _targets(layers: Collection[str], others: Collection[str] | None) -> list[str]:
    """Return the shortest names that PEFT finds these layers by, and no others."""
    ends = sorted({path.rpartition(".")[2] for path in layers})
    if others is not None and {path for path in others if path.rpartition(".")[2] in ends} == set(layers):
        return ends
    return sorted(layers)


def _most_frequent(values: Collection[Any]) -> Any:
    values = list(values)
    return max(values, key=values.count)


def _whole(alpha: float) -> float:
    """Return alpha as an int where it is one, as programs in other languages expect it."""
    rounded = round(alpha)
    return rounded if abs(alpha - rounded) <= 1e-6 * abs(alpha) else alpha
