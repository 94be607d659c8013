"""ComfyUI's classes and diffusers' train the same LoRA from the same weights, latents and embeddings.

The weights of ComfyUI's model go through diffusers' own converter for checkpoints into a pipeline in a folder.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import comfy.utils
import models
import pytest
import tiny_architectures as tiny
import tiny_pipelines
import torch
from diffusers.loaders import single_file_utils
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import ObjectiveSettings
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import to_state_dict, write_lora
from lora_crucible.models.diffusers.folder import read_folder
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
from lora_crucible.models.examples import CachedExample
from test_architectures_in_diffusers import TRANSFORMERS

Tensors = dict[str, torch.Tensor]
NAMES = tuple(tiny_pipelines.DENOISERS)
SEEDS = [11, 12]
STEPS = 5
WIDE = 1152
SAME_LOSS = 1e-4
SAME_LORA = 1e-3
"""The largest distance between the two LoRAs, as a share of what training has changed."""


def converted(name: str, model: Any) -> dict[str, torch.Tensor]:
    """Return the weights of ComfyUI's model by diffusers' names."""
    state_dict = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    architecture = tiny.TINY[name].architecture or name
    if architecture not in TRANSFORMERS:
        names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
        return {
            key: state_dict[of_comfyui]
            for key, of_comfyui in names.items()
            if of_comfyui in state_dict and not key.startswith("class_embedding.")  # SDXL's have another name too
        }
    other = TRANSFORMERS[architecture]
    state_dict = {other.original(key): weight for key, weight in state_dict.items()}
    if other.converter is None:
        return state_dict
    converter = getattr(single_file_utils, other.converter)
    return (tiny_pipelines.narrowed(converter) if name == "flux1" else converter)(state_dict)


@pytest.fixture(params=NAMES)
def both(request, tmp_path: Path) -> dict[str, Any]:
    """The same model as ComfyUI's class and as a diffusers folder, by kind, and its name."""
    name = request.param
    architecture, denoiser = tiny.TINY[name], tiny_pipelines.DENOISERS[name]()
    if name == "z_image":
        # diffusers' embedding of the timestep has a fixed width, which ComfyUI's only has in wide models.
        heads = {"n_heads": WIDE // 128, "n_kv_heads": WIDE // 128}
        architecture = replace(architecture, config={**architecture.config, "dim": WIDE, **heads})
        denoiser = tiny_pipelines.z_image_transformer(WIDE)
    model = architecture.model()
    missing = denoiser.load_state_dict(converted(name, model), strict=False)
    assert not missing.unexpected_keys
    assert all("pad_token" in key for key in missing.missing_keys), missing
    folder = tiny_pipelines.saved(name, tmp_path / "model", denoiser.eval())
    return {"name": name, "comfyui": models.base_model(model), "diffusers": DiffusersBaseModel(str(folder))}


def samples(name: str, kind: str, count: int = 2) -> list[CachedExample]:
    """Return random latents and text embeddings in the form of a kind of base model."""
    architecture, found = tiny.TINY[name], []
    for index in range(count):
        draw = torch.Generator().manual_seed(index)
        latent = torch.randn(architecture.latent, generator=draw)
        embedding = torch.randn(1, tiny.TOKENS, tiny.TEXT, generator=draw)
        pooled = architecture.extra(draw).get("pooled_output")
        encoded: Any = [[embedding, {} if pooled is None else {"pooled_output": pooled}]]
        if kind == "diffusers":
            encoded = (embedding[0], None if pooled is None else pooled[0])
        inputs = Inputs((partial(Latent, latent),), (Caption("", partial(lambda one: one, encoded)),))
        found.append(CachedExample(f"{index}.png", latent.shape, inputs))
    return found


def trained(base_model: Any, examples: list[CachedExample], spec: AdapterSpec) -> tuple[list[float], list[Tensors]]:
    """Return the losses of a few steps, and the LoRA before and after them, in the form of its file."""
    losses = []
    with base_model.session("fp32"):
        flow = base_model.facts.prediction_type == "flow"
        base_model.prepare_losses(ObjectiveSettings(timestep_shift=2.0 if flow else None))
        with base_model.attached(spec, False) as adapters:

            def lora() -> Tensors:
                return base_model.portable(to_state_dict(adapters.layers(), torch.float32))

            adapters.initialise(1)
            before = lora()
            # A larger eps than usual, with which the last digits of a gradient of zero are no whole step.
            optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-3, eps=1e-6)
            for step in range(STEPS):
                optimizer.zero_grad()
                found = base_model.losses(examples, [seed + 2 * step for seed in SEEDS]).values
                found.sum().backward()
                optimizer.step()
                losses += found.tolist()
            return losses, [before, lora()]


def distance(one: Tensors, other: Tensors) -> float:
    assert one.keys() == other.keys()
    return float(torch.cat([(one[key] - other[key]).flatten() for key in one]).norm())


@pytest.mark.parametrize(
    ("target_modules", "algorithm", "dropout"),
    [
        ("attention_and_feed_forward", "rslora", 0.2),
        ("linear_and_convolution", "lora", 0.0),
        ("attention_and_feed_forward", "dora", 0.0),
        ("attention_and_feed_forward", "lokr", 0.0),
    ],
)
def test_the_same_losses_and_the_same_lora(both, target_modules, algorithm, dropout):
    name = both["name"]
    if name == "z_image":
        dropout = 0.0  # the two have image and caption in the opposite order, so the same mask drops other tokens
    spec = AdapterSpec(4, 4.0, dropout, target_modules, algorithm)
    losses, (before, lora) = trained(both["comfyui"], samples(name, "comfyui"), spec)
    other_losses, (other_before, other) = trained(both["diffusers"], samples(name, "diffusers"), spec)
    assert other_losses == pytest.approx(losses, rel=SAME_LOSS)
    assert distance(before, other_before) == 0
    assert distance(lora, before) > 1e-2
    assert distance(lora, other) < SAME_LORA * distance(lora, before)


def test_the_same_layers_and_the_same_loader(both, tmp_path: Path, monkeypatch):
    """Both know the same layers, and what diffusers saves is complete for both loaders."""
    of_comfyui, of_diffusers = both["comfyui"], both["diffusers"]
    encoders = of_diffusers._pipeline.trainable_text_encoders()
    shapes = {key: shape for key, shape in of_diffusers.layer_shapes().items() if key.startswith("lora_unet_")}
    assert len(shapes) < len(of_diffusers.layer_shapes()) or not encoders
    assert shapes == of_comfyui.layer_shapes()
    tiny_pipelines.narrow_flux_loras(monkeypatch)
    spec = AdapterSpec(2, 2.0, 0.0, "attention_and_feed_forward")
    with of_diffusers.session("fp32"), of_diffusers.attached(spec, False) as adapters:
        adapters.initialise(1)
        file = of_diffusers.portable(to_state_dict(adapters.layers(), torch.float32))
        write_lora(tmp_path / "x.safetensors", file, {})
        of_comfyui.verify(tmp_path / "x.safetensors", len(adapters))
        of_diffusers.verify(tmp_path / "x.safetensors", len(adapters))
        last = list(file)[-1].partition(".lora_")[0].removesuffix(".alpha")
        fewer = {key: tensor for key, tensor in file.items() if not key.startswith(last)}
        write_lora(tmp_path / "less.safetensors", fewer, {})
        with pytest.raises(CrucibleError, match=f"of its {len(adapters)} layers"):
            of_diffusers.verify(tmp_path / "less.safetensors", len(adapters))


@pytest.mark.parametrize("side", [512, 1024, 1536])
@pytest.mark.parametrize("name", ["sd3", "flux1", "z_image", "wan"])
def test_the_same_shift_with_the_published_settings(name, side, tmp_path: Path):
    """Qwen-Image is not among them: its published scheduler has another shift than ComfyUI."""
    of_comfyui = models.base_model(tiny.TINY[name].model())
    folder = read_folder(tiny_pipelines.saved(name, tmp_path / "model"))
    native = of_comfyui.native_resolution**2
    assert folder.family.shift(folder.scheduler, side**2, native) == pytest.approx(of_comfyui.own_shift(side**2))
