"""How a batch of images and captions is passed to ComfyUI's model."""

from __future__ import annotations

from pathlib import Path

import models
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import DataSettings
from lora_crucible.data.images.load import load_dataset
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from PIL import Image


def test_each_row_of_a_batch_equals_the_row_alone():
    """Other trainers in ComfyUI apply every caption of a batch to every image of it."""
    model = models.sdxl()
    samples = models.random_samples(model, 3, channels=4, context=models.SDXL_CONTEXT, pooled=models.SDXL_POOLED)
    base_model = models.base_model(model)
    with base_model.session("fp32"), base_model.attached(AdapterSpec(2, 2.0, 0.0, "attention"), False) as adapters:
        adapters.initialise(1)
        together = base_model.losses(samples, [1, 2, 3]).errors
        alone = torch.cat(
            [base_model.losses([row], [seed]).errors for row, seed in zip(samples, [1, 2, 3], strict=True)]
        )
        swapped = base_model.losses([samples[1], samples[0], samples[2]], [2, 1, 3]).errors
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.allclose(swapped, together[[1, 0, 2]], rtol=1e-5)
    assert together.unique().numel() == 3


def test_latents_of_all_sizes_are_scaled(demo, tmp_path: Path):
    """ComfyUI's built-in trainer omits `process_latent_in` when image sizes are mixed."""
    for index, size in enumerate([(64, 64), (128, 64), (64, 128)]):
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a red circle")
    model, clip, vae = demo
    base_model = ComfyUIBaseModel(model, clip, vae)
    with base_model.session("fp32"):
        samples = models.encoded_samples(base_model, load_dataset(DataSettings(train_data_dir=str(tmp_path))))
    assert len({sample.group for sample in samples}) > 1
    for sample, image in zip(samples, sorted(tmp_path.glob("*.png")), strict=True):
        width, height = (8 * side for side in reversed(models.latent_of(sample).shape[1:]))
        picture = Image.open(image)
        if picture.size == (width, height):
            pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(1, height, width, 3)
            with torch.inference_mode():
                expected = model.model.process_latent_in(vae.encode(pixels.float() / 255))[0]
            assert torch.allclose(models.latent_of(sample), expected, atol=1e-5)
            raw = expected / 0.18215
            assert not torch.allclose(models.latent_of(sample), raw, atol=1e-2)


def test_brackets_in_captions_are_text(demo):
    """A caption is not a prompt, so "(front view)" must not change any weights."""
    from lora_crucible.models.comfyui.conditioning import encode_caption, encode_prompt

    _, clip, _ = demo
    with torch.inference_mode():
        caption = encode_caption(clip, "a (red:1.5) circle")[0][0]
        prompt = encode_prompt(clip, "a (red:1.5) circle")[0][0]
        plain = encode_prompt(clip, r"a \(red:1.5\) circle")[0][0]
    assert torch.equal(caption, plain)
    assert not torch.equal(caption, prompt)
