"""A folder with a trained adapter in the form of PEFT, which transformers, PEFT and vLLM load."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lokr.layer import factorization

from ...adapters.adapters import Adapters
from ...errors import CrucibleError
from ...files.atomic import TEMPORARY, explained, sync_folder
from ...formats.adapter_folder import WEIGHTS
from ...formats.delta import kind_of, rank_of
from ...formats.language_file import PeftAdapter, peft_adapter
from ...formats.language_names import language_path
from ...formats.layer_names import language_key
from ...formats.lora_file import LayerTensors, read_lora, to_state_dict
from ...formats.names import Place
from ...formats.peft_scale import CONFIG
from ...formats.read_back import same_effect
from ...formats.tensor_file import data_parts, file_parts
from ...formats.universal import read_layers
from ...messages.wording import listed


def save_adapter_folder(
    folder: Path,
    adapters: Adapters,
    paths: Mapping[str, str],
    *,
    base_model: str,
    dtype: torch.dtype,
    tokenizer: Any,
    chat_template: str | None,
) -> None:
    """Write trained adapters as an adapter of PEFT, with the tokenizer and the chat template that they need.

    Args:
        folder: the folder to write, which is replaced if it exists.
        adapters: the adapters.
        paths: the path in the model of each layer that can have an adapter, by key in memory.
        base_model: the folder of the base model, or its id on the hub.
        dtype: the precision of the weights; DoRA's magnitudes stay in float32.
        tokenizer: the tokenizer of the base model.
        chat_template: the template that conversations were trained with, in Jinja; None if there is none.

    Raises:
        CrucibleError: PEFT has no form for these adapters, or the folder cannot be written.
    """
    layers = {paths[key]: layer for key, layer in adapters.layers_in_peft().items()}
    _require_factors_of_peft(layers)
    adapter = peft_adapter(layers, base_model=base_model, others=set(paths.values()))
    write_adapter_folder(folder, adapter, dtype, tokenizer, chat_template)
    tensors, _ = read_lora(folder / WEIGHTS)
    written = read_layers(tensors, _place_of).layers
    wrong = [
        path
        for path, layer in layers.items()
        if (key := language_key(path)) not in written or not same_effect(layer, written[key])
    ]
    if wrong:
        shutil.rmtree(folder, ignore_errors=True)
        raise CrucibleError(
            f"The adapter for PEFT was not saved to {folder}: read back, {len(wrong)} of its {len(layers)} layers "
            f"would not do what was trained ({listed(wrong)}), so it was deleted. The LoRA file itself is whole. "
            "Please report this with the names of the layers."
        )


def write_adapter_folder(
    folder: Path, adapter: PeftAdapter, dtype: torch.dtype, tokenizer: Any = None, chat_template: str | None = None
) -> None:
    """Write an adapter of PEFT, completely or not at all; for the arguments see `save_adapter_folder`.

    Raises:
        CrucibleError: a value does not fit into `dtype`, or the folder cannot be written.
    """
    magnitudes = {name: one.float() for name, one in adapter.tensors.items() if name.endswith("magnitude_vector")}
    others = {name: one for name, one in adapter.tensors.items() if name not in magnitudes}
    tensors = to_state_dict({"": others}, dtype) | magnitudes
    config = json.dumps(adapter.config, indent=2, ensure_ascii=False)
    unfinished = folder.with_name(f"{TEMPORARY}{secrets.token_hex(4)}.tmp")
    with explained(folder, "The adapter for PEFT"):
        try:
            unfinished.mkdir(parents=True)
            with open(unfinished / WEIGHTS, "wb") as file:
                for part in file_parts(tensors, data_parts(tensors), {"format": "pt"}):
                    file.write(part)
            (unfinished / CONFIG).write_text(config, encoding="utf-8")
            if tokenizer is not None:
                _save_tokenizer(unfinished, tokenizer, chat_template)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(folder.parent)


def _require_factors_of_peft(layers: Mapping[str, LayerTensors]) -> None:
    """Check that LoKr layers, which may come from another program, are factored as PEFT would factor them.

    Raises:
        CrucibleError: some are not.
    """
    others = []
    for path, layer in layers.items():
        if kind_of(layer) != "lokr":
            continue
        sizes = [_factor_size(layer, number) for number in (1, 2)]
        dimensions = [sizes[0][side] * sizes[1][side] for side in (0, 1)]
        wanted = [factorization(dimension, -1) for dimension in dimensions]
        rank = rank_of(layer)
        whole = [f".lokr_w{number}" in layer for number in (1, 2)]
        of_peft = [rank is None or rank >= max(one[number] for one in wanted) / 2 for number in (0, 1)]
        if sizes != list(zip(*wanted, strict=True)) or whole != of_peft:
            others.append(path)
    if others:
        raise CrucibleError(
            f"No adapter for PEFT was written: {len(others)} of the {len(layers)} layers are a LoKr with other factors "
            f"than PEFT's ({listed(others)}), as the LoRA has them that training started from, and PEFT would not load "
            "them. The LoRA file itself is whole. For PEFT, make it a LoRA: python -m trainer resize FILE --rank 32."
        )


def _factor_size(layer: LayerTensors, number: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of one of LoKr's two matrices."""
    if (whole := layer.get(f".lokr_w{number}")) is not None:
        return whole.shape[0], whole.shape[1]
    return layer[f".lokr_w{number}_a"].shape[0], layer[f".lokr_w{number}_b"].shape[1]


def _save_tokenizer(folder: Path, tokenizer: Any, chat_template: str | None) -> None:
    own = tokenizer.chat_template
    tokenizer.chat_template = chat_template or own
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = own


def _place_of(name: str) -> Place | None:
    path = language_path(name)
    return None if path is None else Place(language_key(path))
