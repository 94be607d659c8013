"""The settings that say which images are trained, with which captions and at which sizes."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting

CaptionSource = Literal["auto", "sidecar", "metadata", "file_name", "folder_name"]
MaskSource = Literal["none", "alpha", "file"]

OPEN_IN_DATASETS = ("resolution", "caption_dropout_rate", "validation_percent")
"""Settings that a dataset may leave open for the training to decide."""


class DataSettings(BaseModel):
    """The settings of a dataset, which are part of every `TrainingConfig` and stored with every dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_data_dir: str | None = setting(
        None,
        "Image folder",
        "Folder with the training images and their captions, or `demo` for the built-in dataset. kohya-style "
        "subfolders (10_cat) are included, and their images are repeated as often as the number says. For a language "
        "model, a file or a folder of texts.",
        group="dataset",
        aliases=("train_file", "data_path", "dataset_path"),
        path="path",
    )
    trigger_word: str = setting(
        "",
        "Trigger word",
        "The word that calls up what the LoRA has learned. It is added to the front of every caption that lacks it, "
        "and becomes the caption of images that have none.",
        group="dataset",
        task="text-to-image",
        instead="write the word into the rows that it belongs to",
    )
    resolution: int | None = setting(
        None,
        "Resolution",
        "Images are trained at about resolution x resolution pixels, in their own aspect ratio: 512 for SD1.5, 1024 "
        "for SDXL and newer. Lower needs less memory and time, but learns less detail.",
        group="dataset",
        task="text-to-image",
        instead="max_seq_length says how long rows may be, in tokens",
        step=64,
        ge=64,
        le=4096,
    )
    caption_source: CaptionSource = setting(
        "auto",
        "Captions from",
        "auto uses what each image has: a text file of the same name (.txt, then .caption), otherwise its line in "
        "metadata.jsonl or metadata.csv. The image's file name or folder name can serve as the caption too.",
        group="dataset",
        task="text-to-image",
        instead="text_columns names the keys of your rows",
    )
    metadata_path: str | None = setting(
        None,
        "Metadata file",
        "A metadata.csv or metadata.jsonl file with captions that is not in the image folder.",
        group="run",
        task="text-to-image",
        instead="train_data_dir may name a file of rows itself",
        path="path",
    )
    missing_captions: Literal["trigger_word", "skip"] = setting(
        "trigger_word",
        "Images without caption",
        "Use the trigger word as the caption of images that have none (without a trigger word, training does not "
        "start), or skip these images.",
        group="captions",
    )
    caption_prefix: str = setting("", "Caption prefix", "Text added to the front of every caption.", group="captions")
    caption_suffix: str = setting("", "Caption suffix", "Text added to the end of every caption.", group="captions")
    captions_per_line: bool = setting(
        False,
        "One caption a line",
        "Treat each line of a caption file as a separate caption, and draw one of them each time. Off: all lines "
        "together are one caption.",
        group="captions",
        aliases=("enable_wildcard",),
    )
    shuffle_caption: bool = setting(
        False,
        "Shuffle tags",
        "Shuffle the comma-separated tags of a caption each time it is used, so that no tag depends on its position.",
        group="captions",
    )
    keep_tokens: int = setting(
        0,
        "Kept tags",
        "Number of tags at the start of a caption that stay in place when tags are shuffled. A leading trigger word "
        "always stays and is not counted.",
        group="captions",
        step=1,
        ge=0,
        le=100,
    )
    caption_dropout_rate: float | None = setting(
        None,
        "Caption dropout",
        "Fraction of the time that an image is trained without its caption. 0.05 to 0.1 helps a style work without "
        "its trigger word; 0 ties what is learned to the captions. auto drops captions only for styles.",
        group="captions",
        step=0.05,
        ge=0.0,
        le=1.0,
    )
    repeats: int = setting(
        1,
        "Repeats",
        "How many times each image or row is shown per epoch.",
        group="dataset",
        step=1,
        aliases=("num_repeats", "dataset_repeats"),
        ge=1,
        le=1000,
    )
    extra_resolutions: str = setting(
        "",
        "More resolutions",
        "Additional resolutions at which every image is trained, for example 512, 768.",
        group="images",
    )
    aspect_ratio_buckets: bool = setting(
        True,
        "Aspect buckets",
        "Train each image in its own aspect ratio. Off: crop each to the square in its center.",
        group="images",
        aliases=("enable_bucket",),
    )
    bucket_step: int = setting(
        64,
        "Bucket step",
        "Image sides are multiples of this many pixels. Smaller steps crop less: as low as 8 for SD1.5 and SDXL, 16 "
        "for most others. For resolutions below 256, at most 16 is used.",
        group="images",
        step=8,
        aliases=("bucket_reso_steps",),
        ge=8,
        le=256,
    )
    allow_upscaling: bool = setting(
        False,
        "Enlarge small images",
        "Upscale images that are smaller than the resolution instead of training them at their own size. Upscaling "
        "adds blur, which the LoRA learns.",
        group="images",
    )
    horizontal_flip: bool = setting(
        False,
        "Mirror",
        "Mirror images at random, half of the time. Not for text, faces or anything else whose left and right differ.",
        group="images",
        aliases=("flip_aug",),
    )
    random_crop: bool = setting(
        False,
        "Random crop",
        "Crop images at a random position each time instead of at the center.",
        group="images",
    )
    mask_source: MaskSource = setting(
        "none",
        "Masks from",
        "Train only part of each image: the area that its alpha channel covers, or the white area of a mask file "
        "beside it, named <name>.mask.png or <name>-masklabel.png, or of a file of its name in a subfolder masks.",
        group="images",
    )
    validation_percent: float | None = setting(
        None,
        "Validation",
        "Percentage of the images or rows to hold out from training and use to detect overfitting. auto holds out "
        "some when training starts, if there are at least 30.",
        group="dataset",
        step=1.0,
        aliases=("validation_split_percentage",),
        ge=0.0,
        le=50.0,
    )
    validation_seed: int = setting(
        42,
        "Validation seed",
        "Change this to hold out different images or rows for validation.",
        group="images",
        task="all",
        step=1,
        ge=0,
        le=2**31 - 1,
    )
    reg_data_dir: str | None = setting(
        None,
        "Regularization folder",
        "Folder with images of what the model should not forget, captioned without the trigger word. They are mixed "
        "in with the training images.",
        group="dataset",
        path="path",
    )
    prior_loss_weight: float = setting(
        1.0,
        "Regularization weight",
        "Weight of regularization images or rows in the loss, relative to those that are trained. Higher preserves "
        "more of what the model already knows.",
        group="images",
        task="all",
        step=0.1,
        ge=0.0,
        le=10.0,
    )
    reg_ratio: float = setting(
        1.0,
        "Regularization share",
        "Number of regularization images or rows shown for each one that is trained. Higher preserves more of what "
        "the model already knows.",
        group="images",
        task="all",
        step=0.1,
        ge=0.0,
        le=10.0,
    )

    @field_validator("resolution", mode="before")
    @classmethod
    def _is_one_number(cls, value: Any) -> Any:
        """Read the width and height that other trainers ask for, such as 512,512 or 512x512, as one number."""
        sides = [side.strip() for side in value.replace("x", ",").split(",")] if isinstance(value, str) else value
        if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(str(side).isdigit() for side in sides):
            return value
        width, height = (int(side) for side in sides)
        if width != height:
            raise ValueError(
                "images are trained in their own aspect ratio, with about the area of resolution x resolution pixels; "
                f"write one number, such as {round(math.sqrt(width * height) / 64) * 64}"
            )
        return width

    @field_validator("extra_resolutions")
    @classmethod
    def _are_resolutions(cls, text: str) -> str:
        for part in text.replace(",", " ").split():
            if not part.isdigit() or not 64 <= int(part) <= 4096:
                raise ValueError(f"it must be sizes from 64 to 4096 pixels, separated by commas; {part} is not one")
        return text

    def resolutions(self, default: int) -> tuple[int, ...]:
        """Return all resolutions that images are trained at, without duplicates.

        Args:
            default: the first resolution if `resolution` is on auto.
        """
        more = map(int, self.extra_resolutions.replace(",", " ").split())
        return tuple(dict.fromkeys((self.resolution or default, *more)))
