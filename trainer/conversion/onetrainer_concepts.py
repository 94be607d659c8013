"""OneTrainer's concepts: folders of images, and what is done to their images and captions.

The defaults are those of modules/util/config/ConceptConfig.py in Nerogar/OneTrainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from .conversion import Conversion, as_number, is_off, is_on


def set_concepts(conversion: Conversion, concepts: Sequence[Mapping[str, Any]]) -> None:
    """Translate the concepts: the folders of images, with their repeats and what is done to images and captions."""
    used = [one for one in concepts if is_on(one.get("enabled", True)) and not is_off(one.get("path"))]
    trained = [one for one in used if _kind(one) not in ("VALIDATION", "PRIOR_PREDICTION")]
    for one in used:
        if _kind(one) == "PRIOR_PREDICTION":
            conversion.set("reg_data_dir", one["path"], "a concept of type PRIOR_PREDICTION")
            conversion.differ(
                "type", "PRIOR_PREDICTION", "trained towards the images themselves, not the model's own answers"
            )
        elif _kind(one) == "VALIDATION":
            conversion.lose(
                "type", "VALIDATION", f"{one['path']} is not measured; validation_percent holds out training images"
            )
    if not trained:
        return
    first = trained[0]
    conversion.set("train_data_dir", first["path"], "the path of the concept")
    counts = [as_number(one.get("balancing", 1)) or 1 for one in trained]
    if len(trained) == 1:
        if str(first.get("balancing_strategy", "REPEATS")) == "SAMPLES":
            conversion.lose("balancing", counts[0], "repeats says how often each image is shown, not how many images")
        else:
            conversion.set("repeats", max(1, round(counts[0])), "balancing")
            if counts[0] != max(1, round(counts[0])):
                conversion.differ("balancing", counts[0], "repeats is a whole number")
    else:
        conversion.set("train_data_dir", "all_images", "a folder for all concepts; make it as said below")
        for one, count in zip(trained, counts, strict=True):
            name = f"{max(1, round(count))}_{one.get('name') or PurePosixPath(str(one['path'])).name}"
            conversion.differ(
                "path", one["path"], f"put it into all_images under the name {name}; the number is its repeats"
            )
    _set_texts(conversion, [dict(one.get("text") or {}) for one in trained])
    _set_pictures(conversion, [dict(one.get("image") or {}) for one in trained])
    for one in trained:
        if (as_number(one.get("loss_weight", 1)) or 1) != 1:
            conversion.lose("loss_weight", one["loss_weight"], "all training images count the same")
        for key in ("image_variations", "text_variations"):
            if (as_number(one.get(key, 1)) or 1) > 1:
                conversion.tidy(key)
        if is_on(one.get("include_subdirectories", False)):
            conversion.guess("include_subdirectories: subfolders named like 10_cat are read here, others are not")
    known = {
        "name",
        "path",
        "enabled",
        "type",
        "text",
        "image",
        "balancing",
        "balancing_strategy",
        "loss_weight",
        "seed",
    }
    known |= {"image_variations", "text_variations", "include_subdirectories", "concept_stats", "__version"}
    for key in sorted({key for one in concepts for key in one} - known):
        conversion.lose(
            f"concepts, {key}", next(one[key] for one in concepts if key in one), "LoRA Crucible does not know this key"
        )


def _kind(concept: Mapping[str, Any]) -> str:
    return str(concept.get("type", "STANDARD")).upper()


def _set_texts(conversion: Conversion, texts: Sequence[dict[str, Any]]) -> None:
    for text in texts:
        source = text.pop("prompt_source", "sample")
        if source == "filename":
            conversion.set("caption_source", "file_name", "text.prompt_source")
        elif source == "concept":
            conversion.lose("text.prompt_source", source, "write the caption beside each image, or as trigger_word")
        if is_on(text.pop("enable_tag_shuffling", False)):
            conversion.set("shuffle_caption", True, "text.enable_tag_shuffling")
            conversion.set("keep_tokens", text.get("keep_tags_count", 1), "text.keep_tags_count")
        text.pop("keep_tags_count", None)
        for key, usual in (("tag_delimiter", ","), ("prompt_path", None)):
            if str(text.pop(key, usual)).strip() not in (str(usual), "", "None"):
                conversion.lose(
                    f"text.{key}", True, "tags are separated by commas, and captions found by the image's name"
                )
        for key, value in text.items():
            is_mode = "mode" in key or "special_tags" in key or key == "__version"
            (conversion.off.append(f"text.{key}") if is_mode else conversion.lose(f"text.{key}", value))


def _set_pictures(conversion: Conversion, images: Sequence[dict[str, Any]]) -> None:
    for image in images:
        if is_on(image.pop("enable_random_flip", False)) or is_on(image.pop("enable_fixed_flip", False)):
            conversion.set("horizontal_flip", True, "image.enable_random_flip")
        if is_on(image.pop("enable_crop_jitter", True)):
            conversion.lose(
                "image.enable_crop_jitter", True, "images are cropped around their center; random_crop is stronger"
            )
        if is_on(image.pop("enable_resolution_override", False)):
            override = image.pop("resolution_override", "512")
            conversion.lose(
                "image.resolution_override", override, "all images are trained at resolution and extra_resolutions"
            )
        for key, value in image.items():
            is_amount = key.endswith(("_strength", "_angle", "resolution_override", "__version", "enable_fixed_flip"))
            (conversion.off.append(f"image.{key}") if is_amount else conversion.lose(f"image.{key}", value))
