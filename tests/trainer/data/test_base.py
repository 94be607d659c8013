"""A dataset that is not made of images leaves everything about images at values that change nothing."""

from __future__ import annotations

from lora_crucible.config import parse_config
from lora_crucible.training.plan import plan_run
from toy import Numbers, Toy


def test_at_a_lower_resolution_a_dataset_without_images_keeps_all_its_examples():
    plan = plan_run(Toy(), Numbers((1.0, 2.0, 4.0), held_out=(8.0,)), parse_config({"resolution": 512}))
    lower = plan.at_resolution(384)
    assert lower.plan.examples == plan.plan.examples == [1.0, 2.0, 4.0]
    assert lower.dataset.validation_names == ("8.0",)
