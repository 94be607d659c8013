"""The settings that say which images are trained, with which captions and at which sizes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting

CaptionSource = Literal["auto", "sidecar", "metadata", "file_name", "folder_name"]
MaskSource = Literal["none", "alpha", "file"]


class DataSettings(BaseModel):
    """What a dataset is made of. Part of every `TrainingConfig`, and carried by every dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_data_dir: str | None = setting(
        None,
        "Image folder",
        "Folder with the images and their captions, or `demo`. Subfolders named like kohya's (10_cat) are read too, "
        "their images shown as often as the number says.",
        group="data",
    )
    trigger_word: str = setting(
        "",
        "Trigger word",
        "The word that will call up what is learned. It is put in front of every caption that does not have it, and "
        "is the caption of images that have none.",
        group="data",
    )
    resolution: int | None = setting(
        None,
        "Resolution",
        "Images are trained at about resolution x resolution pixels, in their own aspect. "
        "512 for SD1.5, 1024 for SDXL and later.",
        group="data",
        step=64,
        ge=64,
        le=4096,
    )
    caption_source: CaptionSource = setting(
        "auto",
        "Captions from",
        "auto takes what each image has: a text file of its name (.txt, then .caption), else its line in "
        "metadata.jsonl or metadata.csv. The image's file name or folder name can be its caption too.",
        group="data",
    )
    metadata_path: str | None = setting(
        None,
        "Metadata file",
        "A metadata.csv or metadata.jsonl that lies elsewhere than in the image folder.",
        group="data",
        advanced=True,
    )
    missing_captions: Literal["trigger_word", "skip"] = setting(
        "trigger_word",
        "Images without caption",
        "Give them the trigger word as caption (without a trigger word the training refuses to start), or skip them.",
        group="data",
        advanced=True,
    )
    caption_prefix: str = setting(
        "", "Caption prefix", "Text that is put in front of every caption.", group="data", advanced=True
    )
    caption_suffix: str = setting(
        "", "Caption suffix", "Text that is put behind every caption.", group="data", advanced=True
    )
    captions_per_line: bool = setting(
        False,
        "One caption a line",
        "Each line of a caption file is a caption of its own, and one of them is drawn each time. Off: the lines are "
        "one caption.",
        group="data",
        advanced=True,
        aliases=("enable_wildcard",),
    )
    shuffle_caption: bool = setting(
        False,
        "Shuffle tags",
        "Change the order of the parts between commas each time, so that no tag is tied to its place.",
        group="data",
        advanced=True,
    )
    keep_tokens: int = setting(
        0,
        "Kept tags",
        "How many tags at the front stay where they are when tags are shuffled. The trigger word always does.",
        group="data",
        advanced=True,
        step=1,
        ge=0,
        le=100,
    )
    caption_dropout_rate: float | None = setting(
        None,
        "Caption dropout",
        "Share of the times that an image is shown without its caption. 0.05 to 0.1 helps a style to show without "
        "its trigger word, which auto does for styles.",
        group="data",
        advanced=True,
        step=0.05,
        ge=0.0,
        le=1.0,
    )
    repeats: int = setting(
        1,
        "Repeats",
        "How often an epoch shows each image.",
        group="data",
        advanced=True,
        step=1,
        aliases=("num_repeats", "dataset_repeats"),
        ge=1,
        le=1000,
    )
    extra_resolutions: str = setting(
        "",
        "More resolutions",
        "Every image is trained at these resolutions too, for instance 512, 768.",
        group="data",
        advanced=True,
    )
    aspect_ratio_buckets: bool = setting(
        True,
        "Aspect buckets",
        "Train each image in its own aspect ratio. Off: the square in its middle.",
        group="data",
        advanced=True,
        aliases=("enable_bucket",),
    )
    bucket_step: int = setting(
        64,
        "Bucket step",
        "Every side is a multiple of this many pixels. Smaller steps crop less: down to 8 for SD1.5 and SDXL, 16 for "
        "most others. For resolutions below 256 it is 16 at most.",
        group="data",
        advanced=True,
        step=8,
        aliases=("bucket_reso_steps",),
        ge=8,
        le=256,
    )
    allow_upscaling: bool = setting(
        False,
        "Enlarge small images",
        "Enlarge images that are smaller than the resolution, instead of training them at their own size.",
        group="data",
        advanced=True,
    )
    horizontal_flip: bool = setting(
        False,
        "Mirror",
        "Show each image mirrored half of the time. Not for text, faces or anything that has a left and a right.",
        group="data",
        advanced=True,
        aliases=("flip_aug",),
    )
    random_crop: bool = setting(
        False,
        "Random crop",
        "Crop images at a random place each time instead of in the middle.",
        group="data",
        advanced=True,
    )
    mask_source: MaskSource = setting(
        "none",
        "Masks from",
        "Train only a part of each image: what its alpha channel covers, or what is white in the file <name>.mask.png "
        "or <name>-masklabel.png beside it.",
        group="data",
        advanced=True,
    )
    validation_percent: float | None = setting(
        None,
        "Validation",
        "Percentage of the images that are not trained, to measure the training by. auto keeps some of 30 images and "
        "more, when the training starts.",
        group="data",
        advanced=True,
        step=1.0,
        ge=0.0,
        le=50.0,
    )
    validation_seed: int = setting(
        42,
        "Validation seed",
        "Another number picks other images for validation.",
        group="data",
        advanced=True,
        step=1,
        ge=0,
        le=2**31 - 1,
    )
    reg_data_dir: str | None = setting(
        None,
        "Regularization folder",
        "Images of what the model should not forget, with captions without the trigger word. They are shown between "
        "the training images.",
        group="data",
        advanced=True,
    )
    prior_loss_weight: float = setting(
        1.0,
        "Regularization weight",
        "How much regularization images count against training images.",
        group="data",
        advanced=True,
        step=0.1,
        ge=0.0,
        le=10.0,
    )
    reg_ratio: float = setting(
        1.0,
        "Regularization images",
        "How many regularization images are shown for each training image.",
        group="data",
        advanced=True,
        step=0.1,
        ge=0.0,
        le=10.0,
    )

    @field_validator("extra_resolutions")
    @classmethod
    def _are_resolutions(cls, text: str) -> str:
        for part in text.replace(",", " ").split():
            if not part.isdigit() or not 64 <= int(part) <= 4096:
                raise ValueError(f"it must be numbers of pixels from 64 to 4096 with commas between; {part} is none")
        return text

    def resolutions(self, default: int) -> tuple[int, ...]:
        """All resolutions that images are trained at; `default` is the first where none is set."""
        more = map(int, self.extra_resolutions.replace(",", " ").split())
        return tuple(dict.fromkeys((self.resolution or default, *more)))
