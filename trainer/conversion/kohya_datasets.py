"""The dataset files of kohya's trainers: [general], [[datasets]] and [[datasets.subsets]]."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from ..config.foreign_keys import ELSEWHERE
from .conversion import Conversion, as_number, is_off, is_on, plain_number
from .images import set_resolutions, sides_of

Datasets = Mapping[str, Any]
"""A dataset file as TOML reads it."""

FOLDERS = ("image_dir", "image_directory", "video_directory")

OF_CAPTIONS = {
    "shuffle_caption": "shuffle_caption",
    "keep_tokens": "keep_tokens",
    "caption_prefix": "caption_prefix",
    "caption_suffix": "caption_suffix",
    "caption_dropout_rate": "caption_dropout_rate",
    "enable_wildcard": "captions_per_line",
    "flip_aug": "horizontal_flip",
    "random_crop": "random_crop",
}
"""Our setting of each key that a subset may have for itself. Here it is the same for all images."""

_WITHOUT_MEANING = (
    "cache_directory",
    "cache_info",
    "debug_dataset",
    "network_multiplier",
    "custom_attributes",
    "resize_interpolation",
)


@dataclass(frozen=True)
class Subset:
    """A folder of images with its settings, those of its dataset and the general ones."""

    values: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The folder, or "" if there is none."""
        return next((str(self.values[key]) for key in FOLDERS if not is_off(self.values.get(key))), "")

    @property
    def repeats(self) -> int:
        """How often the images are shown in an epoch."""
        return int(as_number(self.values.get("num_repeats")) or 1)


def subsets_of(datasets: Datasets) -> Iterator[Subset]:
    """Yield every subset. What a subset does not say its dataset says, and else the general section."""
    general = datasets.get("general", {})
    for dataset in datasets.get("datasets", []):
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        for subset in dataset.get("subsets", [{}]) or [{}]:
            yield Subset({**general, **own, **subset})


def set_datasets(conversion: Conversion, datasets: Datasets, outside: Mapping[str, Any]) -> None:
    """Translate all datasets of a file into the settings of one dataset.

    Args:
        outside: the values of the training's own arguments, which hold where the file says nothing.
    """
    found = [
        Subset({**{key: value for key, value in outside.items() if not is_off(value)}, **one.values})
        for one in subsets_of(datasets)
    ]
    trained = [one for one in found if not is_on(one.values.get("is_reg"))]
    regularization = [one for one in found if is_on(one.values.get("is_reg"))]
    _set_sizes(conversion, trained)
    _set_folders(conversion, trained)
    if regularization:
        first = regularization[0]
        conversion.set("reg_data_dir", first.folder, "the subset with is_reg")
        if first.repeats > 1:
            conversion.differ(
                "num_repeats of is_reg", first.repeats, "reg_ratio says how many are shown for each image"
            )
        for other in regularization[1:]:
            conversion.lose("image_dir with is_reg", other.folder, "put all of these images into the first such folder")
    _set_common(conversion, trained)
    _set_rest(conversion, found)


def _set_sizes(conversion: Conversion, trained: Sequence[Subset]) -> None:
    sizes = [sides for one in trained if (sides := sides_of(one.values.get("resolution", "")))]
    if sizes:
        set_resolutions(conversion, "resolution", list(map(list, dict.fromkeys(map(tuple, sizes)))))
    batches = list(
        dict.fromkeys(
            int(as_number(one.values.get("batch_size")) or 1) for one in trained if "batch_size" in one.values
        )
    )
    if batches:
        conversion.set("batch_size", batches[0], "batch_size of the dataset")
        if len(batches) > 1:
            conversion.differ("batch_size", batches, "all datasets have the first of these batch sizes")
    buckets = [is_on(one.values.get("enable_bucket", False)) for one in trained]
    no_upscale = all(is_on(one.values.get("bucket_no_upscale", False)) for one in trained)
    conversion.set("aspect_ratio_buckets", any(buckets), "enable_bucket")
    conversion.set("allow_upscaling", not (any(buckets) and no_upscale), "bucket_no_upscale")
    if len(set(buckets)) > 1:
        conversion.differ("enable_bucket", buckets, "all images keep their aspect ratio")


def _set_folders(conversion: Conversion, trained: Sequence[Subset]) -> None:
    """Translate the folders: one is train_data_dir, several become its subfolders, named by their repeats."""
    folders = {one.folder: one for one in trained if one.folder}
    tables = [str(one.values["metadata_file"]) for one in trained if not is_off(one.values.get("metadata_file"))]
    if len(folders) == 1:
        (folder, only), *_ = folders.items()
        conversion.set("train_data_dir", folder, "image_dir")
        conversion.set("repeats", only.repeats, "num_repeats")
        if re.match(r"\d+_", _path(folder).name):
            conversion.guess(
                f"the number in front of the name of {folder} is no number of repeats, there as here, because "
                "the folder itself is named"
            )
    elif folders:
        names = {
            folder: f"{one.repeats}_{re.sub(r'^[0-9]+_', '', _path(folder).name)}" for folder, one in folders.items()
        }
        parents = {str(_path(folder).parent) for folder in folders}
        if len(parents) == 1 and all(_path(folder).name == name for folder, name in names.items()):
            conversion.set(
                "train_data_dir", parents.pop(), "the folder of all image_dirs, whose names hold the repeats"
            )
        else:
            common = _common_folder(list(folders))
            conversion.set("train_data_dir", common, "a folder for all image_dirs; make it as said below")
            for folder, name in names.items():
                conversion.differ(
                    "image_dir", folder, f"put it into {common} under the name {name}; the number is its repeats"
                )
    if tables:
        conversion.set("metadata_path", tables[0], "metadata_file")
        for other in tables[1:]:
            conversion.lose("metadata_file", other, "write all rows into one file")


def _set_common(conversion: Conversion, trained: Sequence[Subset]) -> None:
    for key, name in OF_CAPTIONS.items():
        given = [one.values.get(key) for one in trained]
        said = [value for value in given if not is_off(value)]
        if not said:
            continue
        value = is_on(said[0]) if isinstance(said[0], bool) else said[0]
        conversion.set(name, value, key)
        if len({str(one) for one in given}) > 1:
            conversion.differ(key, given, f"{name} is the same for all images")
    words = list(
        dict.fromkeys(str(one.values["class_tokens"]) for one in trained if not is_off(one.values.get("class_tokens")))
    )
    if words:
        conversion.set("trigger_word", words[0], "class_tokens")
        conversion.differ("class_tokens", words[0], "trigger_word also goes in front of captions that lack it")
        for other in words[1:]:
            conversion.lose("class_tokens", other, "there is one trigger_word; write others into the captions")
    weights = {one.values.get("prior_loss_weight") for one in trained} - {None}
    for weight in weights:
        conversion.set("prior_loss_weight", as_number(weight), "prior_loss_weight")
    steps = {plain_number(number) for one in trained if (number := as_number(one.values.get("bucket_reso_steps")))}
    for step in sorted(steps)[:1]:
        conversion.set("bucket_step", step, "bucket_reso_steps")
    shares = {number for one in trained if (number := as_number(one.values.get("validation_split")))}
    if shares:
        conversion.set("validation_percent", 100 * max(shares), "validation_split")
    if any(not is_off(one.values.get("conditioning_data_dir")) for one in trained):
        conversion.set("mask_source", "file", "conditioning_data_dir")
        conversion.differ("conditioning_data_dir", True, "put the masks into a subfolder masks of the images")
    elif any(is_on(one.values.get("alpha_mask")) for one in trained):
        conversion.set("mask_source", "alpha", "alpha_mask")


def _set_rest(conversion: Conversion, found: Sequence[Subset]) -> None:
    """Answer the keys that are not translated, each once."""
    known = {
        *OF_CAPTIONS,
        *FOLDERS,
        "resolution",
        "batch_size",
        "enable_bucket",
        "bucket_no_upscale",
        "num_repeats",
        "is_reg",
    }
    known |= {
        "metadata_file",
        "class_tokens",
        "prior_loss_weight",
        "bucket_reso_steps",
        "validation_split",
        "alpha_mask",
    }
    known |= {"conditioning_data_dir"}
    rest = {key: value for one in found for key, value in one.values.items() if key not in known}
    for key, value in rest.items():
        if key in _WITHOUT_MEANING:
            conversion.tidy(key)
        elif key in ("caption_extension", "caption_extention"):
            if str(value).strip(".").lower() in ("txt", "caption", ""):
                conversion.tidy(key)
            else:
                conversion.lose(key, value, "captions are read from .txt and .caption files; rename them")
        elif key in ("target_frames", "frame_extraction", "frame_stride", "frame_sample", "source_fps"):
            conversion.lose(key, value, "images are trained as single frames")
        elif key.startswith(("control_", "qwen_image_edit", "flux_kontext", "fp_", "no_resize_control")):
            conversion.lose(key, value, "pairs of a control image and a result are not trained from a config file")
        else:
            conversion.lose(key, value, ELSEWHERE.get(key, "LoRA Crucible does not know this key"))


def _path(folder: str) -> PurePath:
    return PureWindowsPath(folder) if "\\" in folder else PurePosixPath(folder)


def _common_folder(folders: Sequence[str]) -> str:
    """Return a folder for all folders: beside them if they share a parent, else beside the first."""
    parents = [str(_path(folder).parent) for folder in folders]
    try:
        parent = os.path.commonpath(parents)
    except ValueError:
        parent = parents[0]
    return str(_path(parent or ".") / "all_images") if parent else "all_images"
