"""Every architecture can be trained, and ComfyUI's loader reproduces the trained model from the saved file."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import comfy.model_base
import comfy.sd
import comfy.supported_models
import models
import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES, NAMEABLE
from lora_crucible.formats.lora_file import read_lora, to_state_dict, write_lora
from lora_crucible.models.comfyui import naming, support
from lora_crucible.models.comfyui.encoding import ComfyUIEncoders
from lora_crucible.models.comfyui.previews import sample_picture
from lora_crucible.models.previews import Sampling
from tiny_architectures import TINY

SEEDS, TIMESTEPS = [1, 2], [0.4, 0.8]
STEPS = 200
STEP = 2e-3
"""The distance that the weights are moved to measure a slope."""

SAME = 1e-5
"""The largest difference allowed between the output of the loaded and the trained LoRA in float32, as a share of the
largest output."""


def spec(target_modules="attention_and_feed_forward", dropout=0.0):
    return AdapterSpec(8, 4.0, dropout, target_modules)


def loss(base_model, samples):
    rows = len(samples)
    return base_model.losses(samples, SEEDS[:rows], TIMESTEPS[:rows]).values.mean()


def output(base_model, model, samples):
    """Return the model's output for fixed noise."""
    seen = []
    apply_model = model.model.apply_model

    def recorded(*args, **kwargs):
        seen.append(apply_model(*args, **kwargs))
        return seen[-1]

    with mock.patch.object(model.model, "apply_model", recorded), torch.no_grad():
        loss(base_model, samples)
    return torch.cat(seen)


def save(base_model, adapters, path: Path) -> None:
    write_lora(path, base_model.portable(to_state_dict(adapters.layers(), torch.float32)), {})
    base_model.verify(path, len(adapters))


def assert_loads_as_trained(model, path: Path, samples, trained, caplog) -> None:
    tensors, _ = read_lora(path)
    with caplog.at_level(logging.WARNING):
        loaded, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert not caplog.records  # the loader warns about each unknown key
    base_model = models.base_model(loaded)
    with base_model.session("fp32"):
        distance = (output(base_model, loaded, samples) - trained).abs().max()
    assert distance < SAME * trained.abs().max()


def randomise(adapters):
    adapters.initialise(1)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.02)


@torch.no_grad()
def loss_at(base_model, samples, adapters, direction, step):
    for parameter, way in zip(adapters.parameters(), direction, strict=True):
        parameter.add_(way, alpha=step)
    found = loss(base_model, samples)
    for parameter, way in zip(adapters.parameters(), direction, strict=True):
        parameter.sub_(way, alpha=step)
    return found


def gradients(base_model, adapters, samples):
    for parameter in adapters.parameters():
        parameter.grad = None
    loss(base_model, samples).backward()
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in adapters.parameters()]


@pytest.mark.parametrize("name", TINY)
def test_gradients_are_the_slope_of_the_loss(name):
    """Compare the gradient along a random direction over all weights with a finite difference of the loss.

    This would reveal a block that passes no gradient. The gradients must also be the same with checkpointing.
    """
    model, samples = TINY[name].model(), TINY[name].samples(2)
    base_model = models.base_model(model)

    def calculated(checkpointing):
        with base_model.attached(spec(), checkpointing) as adapters:
            randomise(adapters)
            parts = gradients(base_model, adapters, samples)
            draw = torch.Generator().manual_seed(2)
            direction = [torch.randn(part.shape, generator=draw) for part in parts]
            losses = [loss_at(base_model, samples, adapters, direction, step) for step in (STEP, -STEP)]
            slope = sum((part * step).sum() for part, step in zip(parts, direction, strict=True))
            return torch.cat([part.flatten() for part in parts]), slope, losses

    with base_model.session("fp32"):
        gradient, slope, (ahead, behind) = calculated(checkpointing=False)
        again, _, _ = calculated(checkpointing=True)
    assert ((ahead - behind) / (2 * STEP) - slope).abs() < 0.01 * gradient.norm()
    assert (again - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", TINY)
def test_dropout_depends_on_the_row_alone(name, checkpointing):
    """A batch of two has the gradients of its rows, each computed alone."""
    model, samples = TINY[name].model(), TINY[name].samples(2)
    base_model = models.base_model(model)
    with base_model.session("fp32"), base_model.attached(spec(dropout=0.3), checkpointing) as adapters:
        randomise(adapters)

        def gradient(*rows):
            for parameter in adapters.parameters():
                parameter.grad = None
            for row in rows:
                losses = base_model.losses(samples[row], SEEDS[row], TIMESTEPS[row])
                losses.values.sum().backward()
            parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in adapters.parameters()]
            return torch.cat([part.flatten() for part in parts])

        together = gradient(slice(0, 2))
        apart = gradient(slice(0, 1), slice(1, 2))
        with adapters.without_dropout():
            undropped = gradient(slice(0, 2))
    assert (together - apart).norm() < 1e-4 * together.norm()
    assert (together - undropped).norm() > 1e-2 * together.norm()


@pytest.mark.parametrize("name", TINY)
def test_overfits_a_batch_and_loads_as_trained(name, tmp_path: Path, caplog):
    tiny = TINY[name]
    model, samples = tiny.model(), tiny.samples(2)
    base_model = models.base_model(model)
    assert base_model.architecture is ARCHITECTURES[tiny.architecture or name]
    with base_model.session("fp32"):
        before = output(base_model, model, samples)
        with base_model.attached(spec(), gradient_checkpointing=True) as adapters:
            adapters.initialise(1)
            assert torch.equal(output(base_model, model, samples), before)
            optimizer = torch.optim.Adam(adapters.parameters(), lr=1e-2)
            first = last = loss(base_model, samples)
            with torch.no_grad():
                assert loss(base_model, samples).item() == pytest.approx(first.item(), rel=1e-5)
            steps = 0
            while last >= first / 2 and steps < STEPS:
                optimizer.zero_grad()
                last.backward()
                optimizer.step()
                last = loss(base_model, samples)
                steps += 1
            assert last < first / 2
            trained = output(base_model, model, samples)
            save(base_model, adapters, tmp_path / "x.safetensors")
    assert_loads_as_trained(model, tmp_path / "x.safetensors", samples, trained, caplog)
    assert (trained - before).abs().max() > 0.1


@pytest.mark.parametrize("name", TINY)
def test_every_layer_loads_as_trained(name, tmp_path: Path, caplog):
    model, samples = TINY[name].model(), TINY[name].samples(1)
    base_model = models.base_model(model)
    with base_model.session("fp32"), base_model.attached(spec("linear_and_convolution"), False) as adapters:
        randomise(adapters)
        trained = output(base_model, model, samples)
        save(base_model, adapters, tmp_path / "x.safetensors")
    assert_loads_as_trained(model, tmp_path / "x.safetensors", samples, trained, caplog)


@pytest.mark.parametrize("name", TINY)
def test_draws_a_sample(name):
    tiny = TINY[name]
    model, (sample,) = tiny.model(), tiny.samples(1)
    side = tiny.latent[-1]

    class PlainVAE:
        def spacial_compression_encode(self):
            return 8

        def decode(self, latent):
            return latent[:, :3].movedim(1, -1)

    caption = sample.inputs.draw(0)[1].encoded()
    sampling = Sampling(("",), 8 * side, 8 * side, 1, 2, 2.0, "euler", "simple")
    with torch.inference_mode():
        picture = sample_picture(model, PlainVAE(), caption, caption, sampling)
    assert picture.shape == (1, side, side, 3)
    assert picture.isfinite().all()


def test_every_row_is_tried():
    tried = {tiny.architecture or name for name, tiny in TINY.items()}
    assert tried == set(NAMEABLE)


def built(name, **changes):
    tiny = TINY[name]
    kind, config_class = getattr(comfy.model_base, tiny.kind), getattr(comfy.supported_models, tiny.config_class)
    return models.build(kind, config_class, {**tiny.config, **changes})


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: built("flux1", in_channels=96), id="Flux Fill"),
        pytest.param(lambda: built("flux1", in_channels=32), id="Flux control"),
        pytest.param(lambda: built("wan", in_dim=36), id="Wan image to video"),
    ],
)
def test_models_that_want_a_further_picture_are_refused(model):
    with pytest.raises(CrucibleError, match=r"inpainting, editing or image-to-video .* additional channels"):
        models.base_model(model())


def test_inpainting_checkpoints_are_refused():
    model = built("sdxl", in_channels=9)
    model.model.set_inpaint()
    with pytest.raises(CrucibleError, match="it needs mask, masked_image"):
        models.base_model(model)


@pytest.mark.parametrize("name", ["StableAudio1", "Hunyuan3Dv2", "SDXLRefiner", "SD15_instructpix2pix"])
def test_models_that_captions_cannot_train_are_refused_by_name(name):
    with pytest.raises(CrucibleError, match=f"is a {name}, which"):
        support.require_trainable(type(name, (), {})())


def test_the_names_of_refused_models_are_comfyuis():
    for names in support._NOT_TRAINABLE.values():
        for name in names:
            assert hasattr(comfy.model_base, name), name


def encoders(demo, **latent_format):
    _, clip, vae = demo
    return ComfyUIEncoders(
        SimpleNamespace(latent_format=SimpleNamespace(**latent_format), process_latent_in=lambda latent: latent),
        clip,
        vae,
    )


def test_a_picture_becomes_one_frame_for_a_video_model(demo):
    latent = encoders(demo, latent_channels=4, latent_dimensions=3).latent(torch.rand(64, 64, 3), "x.png")
    assert latent.shape == (4, 1, 8, 8)


def test_the_vae_of_another_model_is_named(demo):
    with pytest.raises(CrucibleError, match=r"4 channels.*expects 16.*belongs to a different model"):
        encoders(demo, latent_channels=16, latent_dimensions=2).latent(torch.rand(64, 64, 3), "x.png")


def test_a_file_that_does_not_fit_is_a_loud_error(demo, tmp_path: Path):
    model, _, _ = demo
    layer = {
        "lora_unet_nothing_of_this_name.lora_down.weight": torch.ones(1, 4),
        "lora_unet_nothing_of_this_name.lora_up.weight": torch.ones(4, 1),
        "lora_unet_nothing_of_this_name.alpha": torch.tensor(1.0),
    }
    write_lora(tmp_path / "x.safetensors", layer, {})
    with pytest.raises(CrucibleError, match=r"only 0 of its 1 layers.*lora_unet_nothing"):
        naming.verify(model.model, None, tmp_path / "x.safetensors", 1)
