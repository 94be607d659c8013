"""Reading facts about a language model from its folder, without loading any weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...errors import CrucibleError
from ...messages.wording import counted, listed, size_text
from .refusals import kind_of_file, pickled, refuse_model, weights_in_other_formats

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""Files of which every tokenizer has one."""

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class LanguageFolder:
    """A folder with a language model in transformers' format.

    Attributes:
        path: the folder.
        name: the name to show to the user.
        config: the contents of its config.json.
        weights: its safetensors files.
    """

    path: Path
    name: str
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The size of its weights in bytes."""
        return sum(path.stat().st_size for path in self.weights)

    @property
    def longest(self) -> int | None:
        """The most tokens that the model can read; None if its config does not say."""
        inner = self.config.get("text_config")
        for config in (self.config, inner if isinstance(inner, dict) else {}):
            for key in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"):
                if isinstance(config.get(key), int):
                    return int(config[key])
        return None


def read_folder(folder: Path, name: str = "") -> LanguageFolder:
    """Read the facts about a language model from its folder, and check that all of its files are there.

    Args:
        folder: a folder with config.json, safetensors and a tokenizer.
        name: the name to show to the user; the folder's by default.

    Raises:
        CrucibleError: the folder holds something else, its files are missing or incomplete, or it needs code or pickles
            that are not run.
    """
    folder = folder.absolute()
    if folder.is_file():
        raise _a_file(folder)
    if (folder / "model_index.json").is_file():
        raise CrucibleError(
            f"{folder} contains a diffusers pipeline, a model that makes images, but task_type is text-generation. Set "
            "task_type to text-to-image, or base_model to the folder of a language model."
        )
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path") or "the model it was trained on"
        raise CrucibleError(
            f"{folder} contains a PEFT adapter and no model, so there is nothing to train on. Set base_model to "
            f"{base}, and continue_from to the adapter if training is to start from it."
        )
    if not (folder / "config.json").is_file():
        raise weights_in_other_formats(folder) or CrucibleError(
            f"There is no config.json in {folder} ({_contents(folder)}), so it is not known which model it contains. "
            "base_model must be the folder of a language model in transformers' format, with config.json, safetensors "
            "files and a tokenizer."
        )
    config = _read(folder / "config.json")
    refuse_model(folder, config)
    weights = _weights(folder)
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise CrucibleError(
            f"{folder} has no tokenizer (such as tokenizer.json or tokenizer.model), so no text can be turned into "
            "what the model reads. Copy the tokenizer's files from the place that the model came from."
        )
    return LanguageFolder(folder, name or folder.name, config, weights)


def _weights(folder: Path) -> tuple[Path, ...]:
    if (folder / _INDEX).is_file():
        names = set(_read(folder / _INDEX).get("weight_map", {}).values())
        shards = [folder / name for name in sorted(map(str, names)) if "/" not in name and "\\" not in name]
    else:
        shards = [folder / "model.safetensors"]
        if not shards[0].is_file():
            parts = sorted(folder.glob("model-*-of-*.safetensors"))
            if parts:
                raise CrucibleError(
                    f"{folder} has {counted(len(parts), 'part')} of a model's weights, but no {_INDEX}, which says "
                    "what is in which. Copy it from the place that the model came from."
                )
            raise (
                pickled(folder)
                or weights_in_other_formats(folder)
                or CrucibleError(
                    f"There are no weights (model.safetensors) in {folder} ({_contents(folder)}), so there is nothing "
                    "to train on. Download or copy the model again, with all of its .safetensors files."
                )
            )
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise CrucibleError(
            f"{counted(len(missing), 'file')} of the {len(shards)} with the weights of {folder} "
            f"{'is' if len(missing) == 1 else 'are'} missing: {listed(missing)}. Without all of them the model would "
            "be loaded with random numbers in the gaps. Download or copy what is missing."
        )
    for shard in shards:
        _require_whole(shard)
    return tuple(shards)


def _require_whole(path: Path) -> None:
    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        kind = kind_of_file(path)
        what = f"is not a safetensors file but {kind}, under the wrong name" if kind else "is not complete"
        raise CrucibleError(
            f"{path} ({size_text(path.stat().st_size)}) {what} ({error}), so the model cannot be loaded. Its download "
            "or copy was probably interrupted. Download or copy the file again."
        ) from error


def _a_file(path: Path) -> CrucibleError:
    kind = kind_of_file(path)
    if kind is None and path.suffix.lower() == ".safetensors":
        kind = "a single file of weights"
    if kind and kind.startswith(("a GGUF", "a GGML")):
        return weights_in_other_formats(path.parent, path) or CrucibleError(str(path))
    return CrucibleError(
        f"base_model is {path}, which is {kind or 'a file'}, but a language model is a folder: beside its weights it "
        "needs config.json and a tokenizer. Set base_model to the folder with all of these."
    )


def _contents(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return f"found: {listed(names)}" if names else "the folder is empty"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CrucibleError(
            f"{path} is damaged ({error}), so the model cannot be loaded. Download or copy the file again."
        ) from error
    return content if isinstance(content, dict) else {}


def weight_tensors(weights: Iterable[Path]) -> Iterable[tuple[str, Any]]:
    """Yield the name and the tensor of each weight in safetensors files, one at a time."""
    for path in weights:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a dictionary
                yield name, file.get_tensor(name)
