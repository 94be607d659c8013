"""A language model in a folder of transformers, as a target of LoRAs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..formats.header import LoraHeader, read_header
from ..formats.layer_names import language_key
from ..messages.wording import counted, listed
from .merge import BaseWeight

INDEX, WEIGHTS, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"


@dataclass(frozen=True)
class ModelFolder:
    """A folder with config.json and weights in safetensors.

    Attributes:
        path: the folder.
        config: the content of its config.json.
        shards: the headers of its weights.
    """

    path: Path
    config: dict[str, Any]
    shards: tuple[LoraHeader, ...]

    @cached_property
    def shard_of(self) -> dict[str, LoraHeader]:
        """The file that has a tensor, by the tensor's name."""
        return {name: shard for shard in self.shards for name in shard.entries}

    @property
    def size(self) -> int:
        """The size of the weights in bytes."""
        return sum(shard.size for shard in self.shards)

    @property
    def is_tied(self) -> bool:
        """Whether the output layer shares its weights with the embeddings."""
        inner = self.config.get("text_config")
        configs = (self.config, inner if isinstance(inner, dict) else {})
        return any(config.get("tie_word_embeddings") for config in configs) and "lm_head.weight" not in self.shard_of

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the values of each tensor, one at a time."""
        for shard in self.shards:
            with safe_open(shard.path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    yield name, file.get_tensor(name)

    @contextmanager
    def base_weights(self) -> Iterator[BaseWeight]:
        """Yield a function that returns a layer's weight, in float32, by the layer's key in memory; None for others."""
        names = {layer_of(name)[0]: name for name in self.shard_of if name.endswith(".weight")}
        with ExitStack() as opened:
            files = {shard.path: opened.enter_context(safe_open(shard.path, "pt")) for shard in self.shards}

            def base_weight(key: str) -> Tensor | None:
                name = names.get(key)
                return None if name is None else files[self.shard_of[name].path].get_tensor(name).float()

            yield base_weight


def layer_of(tensor: str) -> tuple[str, str]:
    """Return the key in memory of the layer that a model's tensor belongs to, and what it is: weight, bias, …"""
    path, _, kind = tensor.rpartition(".")
    return language_key(path), kind


def read_model_folder(folder: Path) -> ModelFolder:
    """Read the headers of a language model's weights.

    Raises:
        CrucibleError: the folder has no config.json or no weights in safetensors, or lacks some of its files.
    """
    if not (folder / CONFIG).is_file():
        raise CrucibleError(
            f"{folder} has no {CONFIG}, so it is no language model of transformers, and it is unclear what its files "
            "are. Name the folder of the model that the LoRA was trained on: with config.json, safetensors and a "
            "tokenizer."
        )
    config = _read_json(folder / CONFIG)
    if (folder / INDEX).is_file():
        names = sorted({str(name) for name in _read_json(folder / INDEX).get("weight_map", {}).values()})
    else:
        names = [WEIGHTS]
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".gguf", ".pt", ".pth"))
        raise CrucibleError(
            f"{folder} lacks {counted(len(missing), 'file')} with weights: {listed(missing)}. "
            + (
                f"It has {listed(others)}, which are pickles or GGUF: the first can run code, the second are mostly "
                "rounded to few bits. Use the model in safetensors"
                if others
                else "The merged model would be incomplete. Download or copy the model again"
            )
            + "."
        )
    return ModelFolder(folder, config, tuple(read_header(folder / name) for name in names))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CrucibleError(
            f"{path} cannot be read ({error}), so it is not known what the model is. Download or copy it again."
        ) from error
    return found if isinstance(found, dict) else {}
