"""diffusers' loader makes the same changes to its model as ComfyUI's loader makes to its own.

The changes of each weight are compared. ComfyUI's go through diffusers' converter for whole checkpoints, which knows
how the names, parts and row orders of layers differ between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.supported_models
import diffusers
import diffusers.loaders
import pytest
import tiny_architectures as tiny
import torch
from diffusers.loaders import single_file_utils
from lora_crucible.adapters.targets import select_layers
from lora_crucible.formats.architectures import ARCHITECTURES, Architecture
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import ALPHA, DOWN, UP, write_lora
from lora_crucible.formats.names import layer_names, place_of
from lora_crucible.formats.portable import A, B, to_portable
from lora_crucible.formats.universal import read_layers
from lora_crucible.models.comfyui import naming
from lora_crucible.models.diffusers.verify import unmatched_keys
from peft import get_peft_model_state_dict

ALPHA_OVER_RANK = 0.5


@dataclass(frozen=True)
class InDiffusers:
    """An architecture as implemented in diffusers.

    Attributes:
        model: a function that builds diffusers' model with the sizes from `tiny_architectures` and `sizes`.
        converter: the name of the checkpoint converter in `single_file_utils`; None if all layer names are the same.
        sizes: changes to the sizes of ComfyUI's model, for architectures that diffusers' loader supports in only one
            width.
        original: a function that maps ComfyUI's name of a weight to the name that the converter expects.
    """

    model: Callable[[], Any]
    converter: str | None
    sizes: dict[str, Any] | None = None
    original: Callable[[str], str] = str


_FULL_WIDTH = {"hidden_size": 3072, "num_heads": 24, "axes_dim": [16, 56, 56]}
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 32}


def _as_flux(name: str) -> str:
    return name.replace("norm.weight", "norm.scale")


def _as_chroma(name: str) -> str:
    return _as_flux(name).replace("norms.0.weight", "norms.0.scale")


def _as_hunyuan_video(name: str) -> str:
    return name.replace("_attn.", "_attn_").replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.")


TRANSFORMERS = {
    "sd3": InDiffusers(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=16,
            num_layers=2,
            num_attention_heads=2,
            joint_attention_dim=tiny.TEXT,
            caption_projection_dim=128,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        "convert_sd3_transformer_checkpoint_to_diffusers",
    ),
    "flux1": InDiffusers(
        lambda: diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True),
        "convert_flux_transformer_checkpoint_to_diffusers",
        _FULL_WIDTH,
        _as_flux,
    ),
    "flux2": InDiffusers(
        lambda: diffusers.Flux2Transformer2DModel(
            num_layers=1, num_single_layers=1, joint_attention_dim=tiny.TEXT, axes_dims_rope=(8, 8, 8, 8), **_HEADS
        ),
        "convert_flux2_transformer_checkpoint_to_diffusers",
    ),
    "chroma": InDiffusers(
        lambda: diffusers.ChromaTransformer2DModel(num_layers=1, num_single_layers=1, approximator_layers=1),
        "convert_chroma_transformer_checkpoint_to_diffusers",
        {**_FULL_WIDTH, "out_dim": 3072},
        _as_chroma,
    ),
    "z_image": InDiffusers(
        lambda: diffusers.ZImageTransformer2DModel(
            dim=384,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=3,
            n_kv_heads=3,
            cap_feat_dim=tiny.TEXT,
            axes_dims=[32, 48, 48],
        ),
        "convert_z_image_transformer_checkpoint_to_diffusers",
    ),
    "qwen_image": InDiffusers(
        lambda: diffusers.QwenImageTransformer2DModel(
            num_layers=1, joint_attention_dim=tiny.TEXT, axes_dims_rope=(8, 12, 12), **_HEADS
        ),
        None,
    ),
    "auraflow": InDiffusers(
        lambda: diffusers.AuraFlowTransformer2DModel(
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            joint_attention_dim=tiny.TEXT,
            caption_projection_dim=64,
            pos_embed_max_size=64,
            **_HEADS,
        ),
        "convert_auraflow_transformer_checkpoint_to_diffusers",
    ),
    "hidream": InDiffusers(
        lambda: diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            caption_channels=[tiny.TEXT, tiny.TEXT],
            text_emb_dim=32,
            axes_dims_rope=(16, 8, 8),
            max_resolution=(16, 16),
            llama_layers=(0, 1),
            **_HEADS,
        ),
        "convert_hidream_transformer_to_diffusers",
    ),
    "anima": InDiffusers(
        lambda: diffusers.CosmosTransformer3DModel(num_layers=1, text_embed_dim=tiny.TEXT, adaln_lora_dim=16, **_HEADS),
        "convert_cosmos_transformer_checkpoint_to_diffusers",
    ),
    "wan": InDiffusers(
        lambda: diffusers.WanTransformer3DModel(text_dim=tiny.TEXT, freq_dim=32, ffn_dim=128, num_layers=1, **_HEADS),
        "convert_wan_transformer_to_diffusers",
    ),
    "hunyuan_video": InDiffusers(
        lambda: diffusers.HunyuanVideoTransformer3DModel(
            num_layers=1, num_single_layers=1, text_embed_dim=tiny.TEXT, pooled_projection_dim=32
        ),
        "convert_hunyuan_video_transformer_to_diffusers",
        _FULL_WIDTH,
        _as_hunyuan_video,
    ),
    "ltxv": InDiffusers(
        lambda: diffusers.LTXVideoTransformer3DModel(
            num_layers=1, cross_attention_dim=64, caption_channels=tiny.TEXT, **_HEADS
        ),
        "convert_ltx_transformer_checkpoint_to_diffusers",
    ),
}


def random_lora(name: str, sizes: dict[str, Any] | None = None):
    """Return a model, a LoRA for it and the changes that the LoRA makes.

    Returns:
        ComfyUI's model on the meta device, a random LoRA for its attention and feed-forward layers by the keys in
        memory, and the change of the first column of each weight by path.
    """
    one = tiny.TINY[name]
    kind, config_class = getattr(comfy.model_base, one.kind), getattr(comfy.supported_models, one.config_class)
    settings = config_class({**one.config, **(sizes or {})})
    settings.unet_config.update({**one.config, **(sizes or {})})
    settings.set_inference_dtype(torch.float32, None)
    with torch.device("meta"), one.while_building():
        model = kind(settings, **one.options)
    keys = naming.file_keys(model, naming.architecture_of(model))
    known = [(path, module) for path, module in model.diffusion_model.named_modules() if path in keys]
    lora, changes = {}, {}
    draw = torch.Generator().manual_seed(0)
    for path in select_layers(known, "attention_and_feed_forward"):
        outputs, inputs = model.diffusion_model.get_submodule(path).weight.shape
        down, up = torch.randn(4, inputs, generator=draw), torch.randn(outputs, 4, generator=draw)
        alpha = torch.tensor(4 * ALPHA_OVER_RANK)
        lora |= {keys[path] + DOWN: down, keys[path] + UP: up, keys[path] + ALPHA: alpha}
        changes[path] = ALPHA_OVER_RANK * up @ down[:, :1]
    return model, lora, changes


def rewritten(file: dict[str, Any], architecture: Architecture, form: str) -> dict[str, Any]:
    """Convert a file in the way of `python -m trainer convert`."""
    return to_form(read_layers(file, lambda key: place_of(key, architecture)), architecture, form)


FORMS = [
    *((name, "as trained") for name in TRANSFORMERS),
    *((name, form) for name in TRANSFORMERS if layer_names(ARCHITECTURES[name]) for form in ("auto", "diffusers")),
    *((name, "comfyui") for name in ("flux2", "qwen_image", "wan")),  # diffusers reads ComfyUI's names only for these
]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_weight_changes_as_in_comfyui(name, form):
    other = TRANSFORMERS[name]
    model, lora, changes = random_lora(name, other.sizes)
    architecture = naming.architecture_of(model)
    file = lora if architecture.is_kohya else to_portable(lora, naming.parts_in_file(model, architecture))
    if form != "as trained":
        file = rewritten(file, architecture, form)

    converted = getattr(diffusers.loaders, architecture.diffusers_loader).lora_state_dict(dict(file))
    with torch.device("meta"):
        transformer = other.model()
    modules = dict(transformer.named_modules())
    found = {}
    for key in converted:
        if not key.endswith(B):
            assert key.endswith(A), key
            continue
        path = key.removeprefix("transformer.").removesuffix(B)
        up, down = converted[key], converted[key.removesuffix(B) + A]
        assert modules[path].weight.shape == (up.shape[0], down.shape[1]), path
        found[f"{path}.weight"] = up @ down[:, :1]

    # A checkpoint of weight changes, one column wide, that is zero except in the trained layers.
    checkpoint = {
        other.original(key): torch.zeros(weight.shape[:1] + (1,) * (weight.ndim - 1))
        for key, weight in model.diffusion_model.state_dict().items()
    }
    checkpoint |= {other.original(f"{path}.weight"): change for path, change in changes.items()}
    if other.converter:
        checkpoint = getattr(single_file_utils, other.converter)(checkpoint)
    expected = {key: weight for key, weight in checkpoint.items() if weight.count_nonzero()}
    assert expected.keys() == found.keys()
    for key, change in expected.items():
        torch.testing.assert_close(found[key], change, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("name", [name for name, other in TRANSFORMERS.items() if other.sizes is None])
def test_the_loader_puts_every_layer_on_the_model(name):
    model, lora, _ = random_lora(name)
    architecture = naming.architecture_of(model)
    file = to_portable(lora, naming.parts_in_file(model, architecture))
    loader = getattr(diffusers.loaders, architecture.diffusers_loader)
    transformer = TRANSFORMERS[name].model()
    converted = loader.lora_state_dict(dict(file))
    loader.load_lora_into_transformer(converted, transformer=transformer)
    loaded = get_peft_model_state_dict(transformer, adapter_name="default_0")
    assert {f"transformer.{key}" for key in loaded} == converted.keys()
    assert all(torch.equal(tensor, converted[f"transformer.{key}"]) for key, tensor in loaded.items())


UNETS = {
    "sd15": {"attention_head_dim": 2, "use_linear_projection": False},
    "sd2": {"attention_head_dim": (2, 4), "use_linear_projection": True},
    "sd2_v": {"attention_head_dim": (2, 4), "use_linear_projection": True},
    "sdxl": {
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 32 + 6 * 256,
    },
}


@pytest.mark.parametrize("name", UNETS)
def test_every_key_arrives_in_a_unet(name, tmp_path):
    _, lora, changes = random_lora(name)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=tiny.TEXT,
        **UNETS[name],
    )
    write_lora(tmp_path / "x.safetensors", lora, {})
    assert len(changes) == 10 * (1 + 1 + 2)
    assert unmatched_keys(tmp_path / "x.safetensors", unet) == []


def test_every_row_with_a_loader_is_tried():
    rows = {row.id for row in ARCHITECTURES.values() if row.diffusers_loader}
    assert TRANSFORMERS.keys() | UNETS.keys() == rows - {"demo"}
