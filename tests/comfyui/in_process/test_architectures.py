"""SDXL and Flux.1: trained here, loaded everywhere."""

from __future__ import annotations

from pathlib import Path

import comfy.lora
import comfy.sd
import models
import pytest
import torch
from lora_crucible.adapters import AdapterSpec
from lora_crucible.base_models.comfyui import naming
from lora_crucible.base_models.diffusers.verify import unmatched_keys
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import read_lora, to_state_dict, write_lora


def train_three_steps(model, samples, path: Path) -> int:
    """A LoRA after three steps, as a file; the number of its layers."""
    base_model = models.base_model(model)
    spec = AdapterSpec(4, 4.0, 0.0, "attention_and_feed_forward")
    with base_model.session("fp32"), base_model.attached(spec, True) as adapters:
        adapters.initialise(1)
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-3)
        first = None
        for _ in range(3):
            loss = base_model.losses(samples, list(range(len(samples)))).values.mean()
            first = first or loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss.item() < first
        write_lora(path, to_state_dict(adapters.layers(), torch.float32), {})
        base_model.verify(path, len(adapters))
        return len(adapters)


def assert_every_key_is_loaded(model, path: Path, caplog) -> None:
    tensors, _ = read_lora(path)
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert len(patched.patches) == len(tensors) // 3
    assert "not loaded" not in caplog.text.lower()


def test_sdxl(tmp_path: Path, caplog):
    from diffusers import UNet2DConditionModel

    model = models.sdxl()
    samples = models.random_samples(model, 2, channels=4, context=models.SDXL_CONTEXT, pooled=models.SDXL_POOLED)
    layers = train_three_steps(model, samples, tmp_path / "sdxl.safetensors")
    assert layers == 10 * 17  # attn1 and attn2 with q, k, v, out; two of feed-forward
    assert_every_key_is_loaded(model, tmp_path / "sdxl.safetensors", caplog)
    assert all(
        key.startswith(("lora_unet_input_", "lora_unet_middle_", "lora_unet_output_"))
        for key in read_lora(tmp_path / "sdxl.safetensors")[0]
    )
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=32 + 6 * 256,
    )
    assert unmatched_keys(tmp_path / "sdxl.safetensors", unet) == []


def test_flux(tmp_path: Path, caplog):
    from diffusers import FluxPipeline, FluxTransformer2DModel

    model = models.flux()
    samples = models.random_samples(model, 1, channels=16, context=4096, pooled=768, size=4, tokens=8)
    layers = train_three_steps(model, samples, tmp_path / "flux.safetensors")
    assert_every_key_is_loaded(model, tmp_path / "flux.safetensors", caplog)
    assert layers == 8 + 2  # qkv, proj and two of the MLP for each stream; linear1 and linear2
    converted = FluxPipeline.lora_state_dict(dict(read_lora(tmp_path / "flux.safetensors")[0]))
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    for key, tensor in converted.items():
        path, _, matrix = key.removeprefix("transformer.").partition(".lora_")
        weight = transformer.get_submodule(path).weight
        assert tensor.shape[1 if matrix.startswith("A") else 0] == weight.shape[1 if matrix.startswith("A") else 0]


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
