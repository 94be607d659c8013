"""Datasets made from images in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ...config.data_settings import DataSettings
from ...errors import CrucibleError
from ..findings import Finding
from .captioned import complete_captions
from .captions import finished
from .dataset import ImageDataset, split_dataset
from .image_facts import find_facts
from .training_image import TrainingImage

NAME = "from images"

NOT_IN_FOLDER = (
    "The images of this dataset come from other nodes and are not in a folder with their captions. To run from the "
    "YAML, put them into one and set train_data_dir to it."
)


def dataset_from_images(
    images: Sequence[Tensor], texts: Sequence[str], settings: DataSettings, folder: Path
) -> ImageDataset:
    """Save images as files named by their content, and return a dataset of these files.

    Args:
        images: batches of shape (count, height, width, channels), float in 0..1, with three channels or, with
            transparency, four.
        texts: a caption for each image, one for all of them, or none.
        settings: the settings of the dataset.
        folder: the folder for the files. Files that already exist are not written again.

    Raises:
        CrucibleError: there are no images, or the numbers of captions and images differ.
    """
    pictures = [_picture(picture) for batch in images for picture in batch]
    if not pictures:
        raise CrucibleError("Dataset from Images got no images, so there is nothing to train on. Connect some to it.")
    captions = [" ".join(text.split()) for text in texts]
    if len(captions) == 1:
        captions *= len(pictures)
    if captions and len(captions) != len(pictures):
        raise CrucibleError(
            f"Dataset from Images got {len(pictures)} images and {len(captions)} texts, so it is not clear which text "
            "belongs to which image. Connect as many texts as images, or a single one for all of them."
        )
    trigger_word = " ".join(settings.trigger_word.split())
    settings = settings.model_copy(update={"trigger_word": trigger_word, "train_data_dir": str(folder)})
    made = []
    for index, picture in enumerate(pictures):
        path = _stored(picture, folder)
        own = (finished(captions[index], settings),) if captions and captions[index] else ()
        made.append(TrainingImage(path, f"image {index + 1}", own, find_facts(path), settings.repeats))
    findings: list[Finding] = []
    made = complete_captions(made, [image.name for image in made if not image.captions], settings, findings)
    dataset = ImageDataset(NAME, folder, settings, tuple(made), findings=tuple(findings), not_in_folder=NOT_IN_FOLDER)
    return split_dataset(dataset)


def _picture(pixels: Tensor) -> Image.Image:
    values = (pixels * 255).round().clamp(0, 255).byte().cpu().numpy()
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def _stored(picture: Image.Image, folder: Path) -> Path:
    """Save an image if its file does not exist yet, in one piece because runs may share the folder; return its path."""
    content = f"{picture.mode}|{picture.size}|".encode() + np.asarray(picture).tobytes()
    path = folder / f"{hashlib.sha256(content).hexdigest()[:40]}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            picture.save(file, "PNG", compress_level=1)
        os.replace(temporary, path)
    return path
