"""WD-style taggers, which give each tag of an image board a probability."""

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
from ..files.pretrained import pretrained
from ..files.text import read_text
from .base import Captioner, Check
from .options import CaptionStyle

TAGS_FILE = "selected_tags.csv"
CATEGORIES = {"0": "general", "4": "character", "9": "rating"}
"""The image board's category numbers; it has others, but taggers are not trained on them."""


@dataclass(frozen=True)
class Tags:
    """The tags of an image by category, as names with probabilities, the most probable first."""

    general: dict[str, float]
    character: dict[str, float]
    rating: dict[str, float]

    def text(self, with_rating: bool) -> str:
        """Return one line with the characters, the general tags and, if requested, the most probable rating."""
        names = [*self.character, *self.general]
        if with_rating and self.rating:
            names.append(next(iter(self.rating)))
        return ", ".join(names)


class TaggerCaptioner(Captioner):
    """A tagger in timm's format; its caption is the list of tags that reach the thresholds."""

    supported = "taggers for timm (SmilingWolf/wd-vit-tagger-v3 and related models, with selected_tags.csv)"
    writes_tags = True
    # Probabilities are compared with thresholds, and the models are small enough for full precision.
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
                f"{self.folder / TAGS_FILE} lists {len(self.names)} tags, but the model beside it knows "
                f"{model.config.num_labels}, so no tag could be trusted. Download both files from the same repository."
            )
        return model

    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        return [tags.text(style.rating_tag) for tags in self.tags(images, style, check)]

    @torch.inference_mode()
    def tags(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[Tags]:
        """Return, for each image, the tags that reach the thresholds and all of its ratings."""
        check()
        pixels = torch.stack([self._pixels(image) for image in images])
        probabilities = self._module(pixels.to(self.device, self.dtype)).logits.sigmoid().float().cpu()
        check()
        return [self._sorted(row.tolist(), style) for row in probabilities]

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        """Return the model's input (3, height, width): the image padded to a white square, resized and normalized."""
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
        """Return whether the model expects the channel order blue, green, red.

        The WD series was trained on blue-green-red pixels in -1..1, but none of its files says so. Related models with
        another order either describe it in preprocess.json or use ImageNet's mean.
        """
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
    """Read a tagger's list of tags.

    Returns:
        The name and category ("general", "character", "rating" or "") of each of the model's outputs, in order.

    Raises:
        CrucibleError: the file is missing or lacks one of the columns `name` and `category`.
    """
    if not path.is_file():
        raise CrucibleError(
            f"{path} is missing. It lists the names of the tags, without which the tagger's outputs are mere numbers. "
            "Download it from the model's repository."
        )
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"name", "category"} <= rows[0].keys():
        raise CrucibleError(
            f"{path} does not have the columns name and category, so the tagger's outputs have no names. Download the "
            "file again from the model's repository."
        )
    return [(readable(row["name"]), CATEGORIES.get(row["category"], "")) for row in rows]


def readable(tag: str) -> str:
    """Return a tag with spaces for underscores, except in emoticons: long_hair changes, ^_^ does not."""
    is_face = re.fullmatch(r"[\W_]*[^\W_]?[\W_]*_[\W_]*[^\W_]?[\W_]*", tag) is not None
    return tag if is_face else tag.replace("_", " ")
