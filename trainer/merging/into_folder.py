"""Bake LoRAs into a copy of a language model's folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch

from ..errors import CrucibleError
from ..files.atomic import TEMPORARY, explained, sync_folder
from ..files.names import check_output_name, unused_name
from ..formats.names import Place
from ..formats.tensor_file import BYTES
from ..messages.wording import counted, listed
from .baking import FLOATS, Baked, Target, add_change, changes_of, lacking_layers, write_baked
from .merge import Ingredient, JointLayer, layers_of_all
from .model_folder import CONFIG, ModelFolder, layer_of
from .recipe import Recipe

TEMPLATE = "chat_template.jinja"
"""The file with a chat template, which comes before one in tokenizer_config.json."""

_BASE = "crucible.base_model"
"""The metadata of a LoRA that has the hash of the weights that it was trained on."""

_NOT_COPIED = (".safetensors", ".bin", ".gguf", ".ggml", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".py")
"""The endings of files that are not copied: weights in this and other formats, which would be those of the base, and
code."""


@torch.no_grad()
def bake_into_folder(
    folder: ModelFolder,
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    output: Path,
    metadata: Mapping[str, str],
    *,
    chat_template: str = "",
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> Baked:
    """Add the changes of LoRAs to the weights of a language model, and write them with everything else in its folder.

    The files of weights are written one after the other, tensor by tensor. The result is exact up to the precision of
    the weights.

    Args:
        folder: the base model, which stays unchanged.
        ingredients: the LoRAs and their strengths.
        recipe: how the LoRAs are merged.
        output: the folder to write; an existing one is left alone, and a number appended to the name.
        metadata: entries to add to the metadata of each file of weights.
        chat_template: the chat template that the LoRA was trained with, in Jinja; "" for that of the base model.
        progress: a function called with the number of tensors written and of all tensors; it may raise to stop.
        check: a function that looks at the finished folder, still under a temporary name, and raises an error if it is
            not right; then nothing appears under `output`.

    Raises:
        CrucibleError: the model is quantized, lacks a layer of the LoRAs or has it in another size; or the output
            cannot be written or is, read back, not what was computed.
    """
    require_floats(folder)
    output = output.expanduser()
    output = output.with_name(unused_name(check_output_name(output.name), lambda one: output.with_name(one).exists()))
    with folder.base_weights() as base_weight:
        layers = {layer.key: layer for layer in layers_of_all(ingredients, recipe, base_weight)}
        changes = changes_of({name: list(_targets(name)) for name in folder.shard_of}, layers)
        _require_fitting(folder, changes, layers)
        unfinished = output.with_name(f"{TEMPORARY}{secrets.token_hex(4)}.tmp")
        done, total = count(), len(folder.shard_of)

        def stepped(_: str) -> None:
            if progress is not None:
                progress(next(done), total)

        with explained(output, "The merged model", folder.size):
            try:
                unfinished.mkdir(parents=True)
                _copy_others(folder.path, unfinished, chat_template)
                size = 0
                for shard in folder.shards:
                    size += write_baked(
                        shard,
                        unfinished / shard.path.name,
                        {name: changes[name] for name in changes.keys() & shard.entries.keys()},
                        layers,
                        {"format": "pt", **shard.metadata, **metadata},
                        what="A part of the merged model",
                        progress=stepped,
                    )
                if check is not None:
                    check(unfinished)
                os.replace(unfinished, output)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(output.parent)
    return Baked(output, size, len(changes))


def require_floats(folder: ModelFolder) -> None:
    """Check that the weights are floats of at least 16 bits.

    Raises:
        CrucibleError: they are quantized.
    """
    quantization = folder.config.get("quantization_config")
    weights = ((name, kind) for shard in folder.shards for name, (kind, _) in shard.entries.items())
    types = {kind for name, kind in weights if name.endswith("weight") and kind not in FLOATS}
    if not quantization and not types:
        return
    method = quantization.get("quant_method", "few bits") if isinstance(quantization, dict) else listed(sorted(types))
    raise CrucibleError(
        f"{folder.path} is quantized ({method}), and its weights are too coarse to keep what a LoRA adds: merged "
        "into 4 bits, the logits of a test model were off by 0.18, where base and LoRA side by side are exact. Merge "
        "into the model in bf16, fp16 or fp32 that it was made from; a LoRA that was trained in 4 bits here fits that "
        "one. If there is none, write a copy in floats first: load it with transformers, and call "
        "model.dequantize().save_pretrained(FOLDER). Quantize the merged model again afterwards if you need that."
    )


def require_same_base(
    names_and_metadata: Sequence[tuple[str, Mapping[str, str]]],
    folder: ModelFolder,
    identities: Callable[[], Sequence[str]],
) -> None:
    """Check that LoRAs were trained on the weights in a folder, as far as they say what they were trained on.

    Args:
        names_and_metadata: the name and the metadata of each LoRA.
        folder: the folder to merge into.
        identities: a function that returns the hashes that runs on the folder's weights write into their LoRAs.

    Raises:
        CrucibleError: a LoRA was trained on other weights.
    """
    stated = [(name, metadata) for name, metadata in names_and_metadata if metadata.get(_BASE)]
    found = identities() if stated else ()
    for name, metadata in stated:
        if metadata[_BASE] not in found:
            raise CrucibleError(
                f"{name} was trained on {metadata.get('ss_sd_model_name') or 'another model'} (weights "
                f"{metadata[_BASE][:8]}), and the weights in {folder.path} are others ({found[0][:8]}), even if they "
                "have the same sizes. A LoRA corrects the weights that it was trained on; merged into others, it does "
                "something else. Merge it into the folder that it was trained on. If this is a copy of that model in "
                "another precision, or one that you know to be close enough, add --other_base."
            )


def _targets(tensor: str) -> Iterator[Target]:
    key, kind = layer_of(tensor)
    if kind in ("weight", "bias"):
        yield Target(Place(key), is_bias=kind == "bias")


def _require_fitting(
    folder: ModelFolder, changes: Mapping[str, Sequence[Target]], layers: Mapping[str, JointLayer]
) -> None:
    shared = [key for key in layers if key in ("lora_te_lm_head", "lora_te_model_embed_tokens")]
    if folder.is_tied and shared:
        raise CrucibleError(
            f"The LoRA changes {listed(shared)}, and in {folder.path} the output layer and the embeddings are one "
            "tensor (tie_word_embeddings), so a change of one would change the other as well. Use base and LoRA side "
            "by side, or merge without that layer."
        )
    for name, targets in changes.items():
        add_change(torch.zeros(folder.shard_of[name].entries[name][1]), targets[0], layers[targets[0].place.key], name)
    unknown = [name for name, shard in folder.shard_of.items() if shard.entries[name][0] not in BYTES]
    lacking = lacking_layers(changes, layers)
    if unknown or lacking:
        classes = [str(one) for one in folder.config.get("architectures") or ["of an unknown class"]]
        raise CrucibleError(
            f"{folder.path} has no place for {counted(len(lacking), 'layer')} of {len(layers)} that the LoRA changes "
            f"({listed(lacking)}), so the result would do less than the LoRA does, and nothing was written. Merge into "
            f"the model that the LoRA was trained on; {CONFIG} says that this one is {listed(classes)}."
        )


def _copy_others(source: Path, target: Path, chat_template: str) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix.lower() not in _NOT_COPIED and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
    if chat_template:
        (target / TEMPLATE).write_text(chat_template, encoding="utf-8")


def trained_template(lora: Path) -> str:
    """Return the chat template that a LoRA was trained with, from the folder in PEFT's form; "" if there is none.

    It is beside the LoRA if the LoRA itself is in PEFT's form, and otherwise in the folder of its run.
    """
    for folder in (lora.parent, lora.parent / lora.stem / "adapter"):
        if (folder / "adapter_config.json").is_file() and (folder / TEMPLATE).is_file():
            return (folder / TEMPLATE).read_text(encoding="utf-8")
    return ""
