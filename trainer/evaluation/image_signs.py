"""What drawn images say about a run."""

from __future__ import annotations

from .advice import against_memorising, longer
from .evidence import Evidence, Signs
from .image_metrics import ImageMeasures

LITTLE_EFFECT = 0.25
"""The effect (see `ImageMeasures`) below which a change of images is hard to see. The demo's style has 0.7."""

STRAY = 0.8
"""The drift (see `ImageMeasures`) above which images of unrelated prompts no longer show what was asked for. On the
demo model, a good run has 0.5, and one of ten times its learning rate 1.3."""

SAME = 0.4
"""The variety (see `ImageMeasures`) below which all images look the same. On the demo model, a run on 16 images has 0.6
to 0.8, and one that has memorised 5 images 0.3."""

COPY = 0.95
"""The likeness (see `ImageMeasures`) above which images are copies of training images, on average over several
seeds."""

COPY_OF_ITS_OWN = 0.1
"""The least distance of the base model's likeness below `COPY`, because simple images are alike without training."""

LEAKS = 0.5
"""The effect without the trigger word, as a share of that with it, above which the word is hardly needed."""


def judge_images(evidence: Evidence, measures: ImageMeasures, too_much: Signs, too_little: Signs) -> None:
    """Add the signs of too much and of too little that the images show."""
    fewer = f"Train for {max(1, evidence.config.max_train_steps // 2)} steps."
    if measures.effect < LITTLE_EFFECT:
        remedy = longer(evidence, "longer", evidence.config.learning_rate * 3)
        known = bool(too_little.advice)  # the advice for the errors helps here too
        too_little.add(f"Images of the captions changed by only {measures.effect:.2f}.", *([] if known else [remedy]))
    if measures.variety < SAME:
        too_much.add(
            f"Images of different seeds look alike: they differ {measures.variety:.0%} as much as without the LoRA.",
            fewer,
            *against_memorising(evidence),
        )
    if measures.likeness > COPY and measures.base_likeness < COPY - COPY_OF_ITS_OWN:
        too_much.add(
            f"Its images are copies of training images, such as {measures.nearest}.",
            fewer,
            *against_memorising(evidence),
        )
    if measures.drift > STRAY:
        too_much.add(
            f"Images of unrelated prompts changed too much: by {measures.drift:.2f}.",
            f"Lower learning_rate to {evidence.config.learning_rate / 2:g}.",
            "Add a regularization folder (reg_data_dir).",
        )


def advice_about_the_trigger_word(measures: ImageMeasures) -> list[str]:
    """Return advice for a good LoRA that hardly needs its trigger word; empty if it does or has none."""
    if measures.without_word is None or measures.without_word <= LEAKS * measures.effect:
        return []
    return ["It also acts without its trigger word; regularization images (reg_data_dir) would tie it to the word."]
