"""LoRA files loaded by diffusers' own loader into a fresh model."""

import re
from functools import partial

import diffusers
import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from diffusers.loaders import (
    FluxLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.layer_names import file_key, kohya_key
from lora_crucible.formats.lora_file import DOWN, UP, lora_layer, read_lora, to_state_dict, write_lora
from lora_crucible.formats.names import place_of
from lora_crucible.formats.read_back import save_layers
from lora_crucible.formats.universal import Layers, read_layers
from lora_crucible.merging.resize import resize
from lora_crucible.models.diffusers.verify import unmatched_keys
from packaging.version import Version
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import nn

LOADERS = {"sd15": StableDiffusionLoraLoaderMixin, "sdxl": StableDiffusionXLLoraLoaderMixin}
TARGETS = {
    "attention": r"attn\d\.to_(q|k|v|out\.0)$",
    "attention and feed forward": r"(attn\d\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)$",
    "every linear layer and convolution": r".",
}


def make_unet(architecture):
    torch.manual_seed(0)
    common = {"sample_size": 16, "layers_per_block": 2, "norm_num_groups": 4, "cross_attention_dim": 8}
    if architecture == "sd15":
        return UNet2DConditionModel(
            block_out_channels=(8, 8, 16, 16), attention_head_dim=2, use_linear_projection=False, **common
        )
    return UNet2DConditionModel(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
        **common,
    )


def output(unet):
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    latents, text = random(2, 4, 16, 16), random(2, 5, 8)
    added = {"text_embeds": random(2, 8), "time_ids": 16 * torch.ones(2, 6)}
    with torch.no_grad():
        return unet(latents, torch.tensor([10, 500]), text, added_cond_kwargs=added).sample


def with_adapters(architecture, targets):
    """Return a UNet with random LoRA layers, and these layers by file key."""
    unet = make_unet(architecture)
    adaptable = [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    chosen = [name for name in adaptable if re.search(TARGETS[targets], name)]
    config = LoraConfig(r=4, lora_alpha=2, target_modules=chosen, init_lora_weights=False)
    inject_adapter_in_model(config, unet)
    layers = {
        file_key(ARCHITECTURES[architecture], path): lora_layer(
            module.lora_A["default"].weight, module.lora_B["default"].weight, 2.0
        )
        for path, module in unet.named_modules()
        if isinstance(module, PeftLoraLayer)
    }
    assert len(layers) == len(chosen)
    return unet, layers


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("architecture", LOADERS)
def test_a_loaded_file_gives_the_trained_output(tmp_path, architecture, targets):
    if targets.startswith("every") and Version(diffusers.__version__) < Version("0.39"):
        pytest.skip("diffusers before 0.39 cannot load a LoRA on the UNet's first and last convolution")
    trained, layers = with_adapters(architecture, targets)
    path = tmp_path / "lora.safetensors"
    write_lora(path, to_state_dict(layers, torch.float32), {"modelspec.title": "x"})
    assert unmatched_keys(path, trained) == []

    fresh = make_unet(architecture)
    assert unmatched_keys(path, fresh) == []
    untouched = output(fresh)
    loader = LOADERS[architecture]
    loaded, alphas = loader.lora_state_dict(str(path), unet_config=fresh.config)
    loader.load_lora_into_unet(loaded, network_alphas=alphas, unet=fresh)
    torch.testing.assert_close(output(fresh), output(trained), atol=1e-5, rtol=0)
    assert (output(fresh) - untouched).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", LOADERS)
def test_a_loha_made_a_lora(tmp_path, architecture):
    """LoHa files flatten convolutions, but diffusers only reads LoRA with the shape of the convolution."""
    if Version(diffusers.__version__) < Version("0.39"):
        pytest.skip("diffusers before 0.39 cannot load a LoRA on the UNet's first and last convolution")
    expected, fresh, lohas = make_unet(architecture), make_unet(architecture), {}
    for path, module in expected.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            weight = module.weight.data
            outputs, inputs = weight.flatten(1).shape
            loha = {f".hada_w{n}_a": torch.randn(outputs, 2) / 4 for n in (1, 2)}
            loha |= {f".hada_w{n}_b": torch.randn(2, inputs) / 4 for n in (1, 2)}
            lohas[file_key(ARCHITECTURES[architecture], path)] = loha
            weight += delta_weight(loha).view(weight.shape)
    lora = resize(Layers(lohas), rank=4).lora
    path = tmp_path / "lora.safetensors"
    write_lora(path, to_form(lora, ARCHITECTURES[architecture], "kohya"), {})
    assert unmatched_keys(path, fresh) == []
    loader = LOADERS[architecture]
    loaded, alphas = loader.lora_state_dict(str(path), unet_config=fresh.config)
    loader.load_lora_into_unet(loaded, network_alphas=alphas, unet=fresh)
    torch.testing.assert_close(output(fresh), output(expected), atol=1e-4, rtol=1e-4)
    assert (output(fresh) - output(make_unet(architecture))).abs().max() > 1e-2


@pytest.mark.parametrize("beside", [{"use_dora": True}, {"lora_bias": True}])
def test_doras_and_biases_of_peft_in_the_form_of_diffusers(tmp_path, beside):
    """Written by peft, read as layers, written for diffusers and read by its loader, they do what they did."""
    trained, fresh = make_unet("sd15"), make_unet("sd15")
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "conv1", "proj"], init_lora_weights=False, **beside)
    trained.add_adapter(config)
    for name, parameter in trained.named_parameters():
        if "magnitude" in name or "lora_B" in name:
            nn.init.uniform_(parameter, 0.2, 0.6)
    sd15 = ARCHITECTURES["sd15"]
    of_peft = {f"base_model.model.{key}": one for key, one in get_peft_model_state_dict(trained).items()}
    lora = read_layers(of_peft, partial(place_of, architecture=sd15))
    path = tmp_path / "lora.safetensors"
    save_layers(path, lora.layers, to_form(lora, sd15, "diffusers"), {}, partial(place_of, architecture=sd15))
    loaded, alphas = LOADERS["sd15"].lora_state_dict(str(path), unet_config=fresh.config)
    LOADERS["sd15"].load_lora_into_unet(loaded, network_alphas=alphas, unet=fresh)
    torch.testing.assert_close(output(fresh), output(trained), atol=1e-4, rtol=1e-4)
    assert (output(fresh) - output(make_unet("sd15"))).abs().max() > 1e-2


@pytest.mark.parametrize("writes", ["model", "pipeline"])
def test_the_alpha_that_diffusers_writes(tmp_path, writes):
    unet = make_unet("sd15")
    config = LoraConfig(r=4, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    unet.add_adapter(config)
    if writes == "model":
        unet.save_lora_adapter(tmp_path)
    else:
        diffusers.StableDiffusionPipeline.save_lora_weights(
            tmp_path, get_peft_model_state_dict(unet), unet_lora_adapter_metadata=config.to_dict()
        )
    path = next(tmp_path.glob("*.safetensors"))
    tensors, metadata = read_lora(path)
    if "lora_adapter_metadata" not in metadata:
        pytest.skip("this version of diffusers does not write it")
    alphas = [float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha")]
    assert len(alphas) == sum(".lora_A" in key for key in tensors) > 0
    assert set(alphas) == {2.0}


@pytest.mark.parametrize("architecture", LOADERS)
def test_a_half_precision_file_matches_too(tmp_path, architecture):
    unet, layers = with_adapters(architecture, "attention")
    path = tmp_path / "lora.safetensors"
    write_lora(path, to_state_dict(layers, torch.float16), {})
    assert unmatched_keys(path, unet) == []


def test_keys_that_do_not_arrive_are_named(tmp_path):
    unet, layers = with_adapters("sd15", "attention")
    path = tmp_path / "lora.safetensors"
    some = next(iter(layers.values()))
    no_such_block = "lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn1_to_q"
    write_lora(path, to_state_dict({**layers, no_such_block: some}, torch.float32), {})
    assert unmatched_keys(path, unet) == [
        f"{no_such_block}.lora_down.weight",
        f"{no_such_block}.lora_up.weight",
    ]

    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    wrong_width = lora_layer(torch.ones(4, 3), layers[key][UP], 2.0)
    write_lora(path, to_state_dict({**layers, key: wrong_width}, torch.float32), {})
    assert unmatched_keys(path, unet) == [f"{key}.lora_down.weight"]

    state_dict = to_state_dict(layers, torch.float32)
    del state_dict[f"{key}.alpha"]
    write_lora(path, state_dict, {})
    assert unmatched_keys(path, unet) == [f"{key}.alpha"]


def test_a_file_that_diffusers_refuses_is_an_error(tmp_path):
    unet, layers = with_adapters("sd15", "attention")
    state_dict = to_state_dict(layers, torch.float32)
    state_dict["lora_unet_conv_in.diff_b"] = torch.ones(1)
    path = tmp_path / "lora.safetensors"
    write_lora(path, state_dict, {})
    with pytest.raises(CrucibleError, match=r"lora\.safetensors cannot be loaded by diffusers.*diff_b"):
        unmatched_keys(path, unet)


def test_flux_files_resolve_in_diffusers(tmp_path):
    # Full width, because diffusers' conversion has Flux.1's sizes hard-coded; without weights, to save memory.
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    width, mlp = 3072, 4 * 3072
    shapes = {
        "single_blocks.0.linear1": (width, 3 * width + mlp),
        "single_blocks.0.linear2": (width + mlp, width),
    }
    for stream in ("img", "txt"):
        shapes[f"double_blocks.0.{stream}_attn.qkv"] = (width, 3 * width)
        shapes[f"double_blocks.0.{stream}_attn.proj"] = (width, width)
        shapes[f"double_blocks.0.{stream}_mlp.0"] = (width, mlp)
        shapes[f"double_blocks.0.{stream}_mlp.2"] = (mlp, width)
    layers = {
        kohya_key(path): lora_layer(torch.full((2, inputs), 0.5), torch.randn(outputs, 2), 1.0)
        for path, (inputs, outputs) in shapes.items()
    }
    path = tmp_path / "lora.safetensors"
    write_lora(path, to_state_dict(layers, torch.float32), {})

    loaded, alphas = FluxLoraLoaderMixin.lora_state_dict(str(path), return_alphas=True)
    assert not alphas
    modules = dict(model.named_modules())
    products = {}
    for key in loaded:
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight")
            up, down = loaded[f"{name}.lora_B.weight"], loaded[key]
            assert (up.shape[0], down.shape[1]) == modules[name.removeprefix("transformer.")].weight.shape
            products[name.removeprefix("transformer.")] = up @ down[:, :1]
    assert len(products) == 2 * (4 + 2) + 4 + 1

    fused = layers["lora_unet_double_blocks_0_img_attn_qkv"]
    parts = [products[f"transformer_blocks.0.attn.to_{part}"] for part in "qkv"]
    torch.testing.assert_close(torch.cat(parts), 0.5 * fused[UP] @ fused[DOWN][:, :1])
