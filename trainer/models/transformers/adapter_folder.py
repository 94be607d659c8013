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

from ...adapters.adapters import Adapters
from ...errors import CrucibleError
from ...files.atomic import TEMPORARY, explained, sync_folder
from ...formats.adapter_folder import WEIGHTS
from ...formats.language_file import PeftAdapter, peft_adapter
from ...formats.language_names import language_path
from ...formats.layer_names import language_key
from ...formats.lora_file import read_lora, to_state_dict
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
