"""Taggers in the manner of WD: the tags of an image board, each with a probability."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import CrucibleError
from ..files.text import read_text
from .base import Captioner, Check, pretrained
from .options import CaptionStyle

TAGS_FILE = "selected_tags.csv"
CATEGORIES = {"0": "general", "4": "character", "9": "rating"}
"""The image board's numbers; it has more, which no tagger is trained on."""


@dataclass(frozen=True)
class Tags:
    """What a tagger sees: names with probabilities, each kind by itself, the most probable first."""

    general: dict[str, float]
    character: dict[str, float]
    rating: dict[str, float]

    def text(self, with_rating: bool) -> str:
        """One line: characters, general tags and, if asked for, the most probable rating."""
        names = [*self.character, *self.general]
        if with_rating and self.rating:
            names.append(next(iter(self.rating)))
        return ", ".join(names)


class TaggerCaptioner(Captioner):
    supported = "taggers for timm (SmilingWolf/wd-vit-tagger-v3 and its relatives, with selected_tags.csv)"
    writes_tags = True
    # Probabilities are compared with thresholds; the models are small.
    needs_float32 = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: list[tuple[str, str]] = []

    @classmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        return "pretrained_cfg" in config and "architecture" in config

    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        return style.general_threshold, style.character_threshold, style.rating_tag

    def _load(self, dtype: torch.dtype) -> Any:
        self.names = read_tags(self.folder / TAGS_FILE)
        from transformers import TimmWrapperForImageClassification

        model = TimmWrapperForImageClassification.from_pretrained(self.folder, **pretrained(dtype))
        if model.config.num_labels != len(self.names):
            raise CrucibleError(
                f"{self.folder / TAGS_FILE} lists {len(self.names)} tags, and the model beside it knows "
                f"{model.config.num_labels}, so no tag could be trusted. Fetch both files from the same place."
            )
        return model

    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        return [tags.text(style.rating_tag) for tags in self.tags(images, style, check)]

    @torch.inference_mode()
    def tags(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[Tags]:
        """The tags of each image that reach the thresholds, and all of its ratings."""
        check()
        pixels = torch.stack([self._pixels(image) for image in images])
        probabilities = self._module(pixels.to(self.device, self.dtype)).logits.sigmoid().float().cpu()
        check()
        return [self._sorted(row.tolist(), style) for row in probabilities]

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        """(3, height, width) as the model was trained: padded to a square with white, scaled, normalised."""
        config = self._module.config.pretrained_cfg
        side = max(image.size)
        square = Image.new("RGB", (side, side), (255, 255, 255))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        _, height, width = config["input_size"]
        values = np.array(square.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        values = (values - np.float32(config["mean"])) / np.float32(config["std"])
        if self._is_blue_first(config):
            values = values[..., ::-1].copy()
        return torch.from_numpy(values).permute(2, 0, 1)

    def _is_blue_first(self, config: dict[str, Any]) -> bool:
        """The WD series was trained on blue-green-red pixels in -1..1, which no file of it says. Its relatives in
        other orders describe themselves in preprocess.json, or use ImageNet's mean."""
        return not (self.folder / "preprocess.json").exists() and set(config["mean"]) == {0.5}

    def _sorted(self, probabilities: list[float], style: CaptionStyle) -> Tags:
        thresholds = {"general": style.general_threshold, "character": style.character_threshold, "rating": 0.0}
        found: dict[str, dict[str, float]] = {"general": {}, "character": {}, "rating": {}}
        pairs = zip(self.names, probabilities, strict=True)
        for (name, kind), probability in sorted(pairs, key=lambda pair: -pair[1]):
            if kind in thresholds and probability >= thresholds[kind]:
                found[kind][name] = probability
        return Tags(**found)


def read_tags(path: Path) -> list[tuple[str, str]]:
    """Reads a tagger's list of tags.

    Returns:
        Name and category ("general", "character", "rating" or "") of each of the model's outputs, in order.

    Raises:
        CrucibleError: the file is missing, or has not the columns `name` and `category`.
    """
    if not path.is_file():
        raise CrucibleError(
            f"{path} is missing. It lists the names of the tagger's outputs, without which they are mere numbers. "
            "Fetch it from where the model comes from."
        )
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"name", "category"} <= rows[0].keys():
        raise CrucibleError(
            f"{path} has not the columns name and category, so the tagger's outputs have no names. Fetch the file "
            "anew from where the model comes from."
        )
    return [(readable(row["name"]), CATEGORIES.get(row["category"], "")) for row in rows]


def readable(tag: str) -> str:
    """A tag with spaces for underscores, unless the underscore is the mouth of a face: long_hair, but ^_^."""
    is_face = re.fullmatch(r"[\W_]*[^\W_]?[\W_]*_[\W_]*[^\W_]?[\W_]*", tag) is not None
    return tag if is_face else tag.replace("_", " ")
