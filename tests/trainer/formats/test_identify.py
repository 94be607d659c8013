"""LoRA files are identified by the keys that each trainer writes and the layer sizes of the real models."""

from __future__ import annotations

import pytest
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.identify import architecture_names, candidates, identified, identify, trainer_name

KOHYA, PEFT = (".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight")
OLD = ("_lora.down.weight", "_lora.up.weight")


def lora(layers, suffixes=KOHYA, rank=4):
    """Return the shapes in a file, from the outputs and inputs of each layer."""
    down, up = suffixes
    shapes = {}
    for layer, (rows, columns) in layers.items():
        shapes |= {layer + down: (rank, columns), layer + up: (rows, rank)}
    return shapes


def unet(width, place="down_blocks_1_attentions_0", prefix="lora_unet_", dots=False):
    layers = {
        f"{prefix}{place}_transformer_blocks_0_{name}": size
        for name, size in {
            "attn1_to_q": (640, 640),
            "attn2_to_k": (640, width),
            "attn2_to_v": (640, width),
            "ff_net_0_proj": (5120, 640),
        }.items()
    }
    if not dots:
        return layers
    return {name.replace("attn", ".attn").replace("_to_", ".to_"): size for name, size in layers.items()}


def of(prefix, **layers):
    return {prefix + name.replace("__", "."): size for name, size in layers.items()}


def in_blocks(start, count, end, size):
    return {f"{start}{block}{end}": size for block in range(count)}


CASES = {
    "kohya SD1.5": (lora(unet(768)), "sd15"),
    "kohya SD2": (lora(unet(1024)), "sd2 sd2_v"),
    "kohya SDXL": (lora(unet(2048, "input_blocks_4_1")), "sdxl"),
    "the demo model": (lora(unet(128)), "demo"),
    "diffusers SD1.5": (
        lora(
            of("unet.down_blocks.0.attentions.0.transformer_blocks.0.", attn2__to_k=(320, 768), attn1__to_q=(320, 320)),
            PEFT,
        ),
        "sd15",
    ),
    "diffusers SDXL, old attention names": (
        lora(of("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.", to_k=(640, 2048)), OLD),
        "sdxl",
    ),
    "ComfyUI SDXL": (
        lora(of("diffusion_model.input_blocks.4.1.transformer_blocks.0.", attn2__to_k=(640, 2048))),
        "sdxl",
    ),
    "SDXL without attention to the text": (
        lora({"lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q": (1280, 1280)}),
        "sdxl",
    ),
    "LyCORIS LoKr SDXL": (
        {
            "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w1": (8, 8),
            "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w2": (80, 256),
        },
        "sdxl",
    ),
    "text encoders of SDXL alone": (
        lora({f"lora_te{n}_text_model_encoder_layers_0_self_attn_q_proj": (768, 768) for n in (1, 2)}),
        "sdxl sd3",
    ),
    "text encoder of SD1.5 alone": (lora({"lora_te_text_model_encoder_layers_0_self_attn_q_proj": (768, 768)}), "sd15"),
    "diffusers SD3": (
        lora(
            of("transformer.transformer_blocks.0.", attn__to_q=(1536, 1536), attn__add_q_proj=(1536, 1536)),
            PEFT,
        ),
        "sd3",
    ),
    "ComfyUI SD3": (lora({"diffusion_model.joint_blocks.0.x_block.attn.qkv": (4608, 1536)}), "sd3"),
    "kohya Flux.1": (lora(in_blocks("lora_unet_double_blocks_", 19, "_img_attn_qkv", (9216, 3072))), "flux1 chroma"),
    "kohya Flux.1 with modulation": (
        lora({"lora_unet_single_blocks_0_modulation_lin": (9216, 3072)}),
        "flux1 hunyuan_video",
    ),
    "two blocks of Flux.1, Chroma or HunyuanVideo": (
        lora(
            {"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072), "lora_unet_single_blocks_0_linear1": (21504, 3072)}
        ),
        "flux1 chroma hunyuan_video",
    ),
    "diffusers Flux.1": (
        lora(
            {
                **in_blocks("transformer.transformer_blocks.", 19, ".attn.to_q", (3072, 3072)),
                **in_blocks("transformer.single_transformer_blocks.", 38, ".attn.to_q", (3072, 3072)),
                "transformer.single_transformer_blocks.0.norm.linear": (9216, 3072),
            },
            PEFT,
        ),
        "flux1",
    ),
    "OneTrainer Flux.1": (
        lora(in_blocks("lora_transformer_single_transformer_blocks_", 38, "_attn_to_q", (3072, 3072))),
        "flux1 chroma",
    ),
    "Chroma by its own layers": (
        lora({"lora_unet_distilled_guidance_layer_in_proj": (5120, 64)}),
        "chroma",
    ),
    "Flux.2": (lora({"diffusion_model.single_blocks.0.linear1": (55296, 6144)}, PEFT), "flux2"),
    "Flux.2 klein": (lora({"diffusion_model.single_blocks.0.linear1": (27648, 3072)}, PEFT), "flux2"),
    "musubi HunyuanVideo": (
        lora(
            {
                "lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072),
                "lora_unet_double_blocks_0_img_mlp_fc1": (12288, 3072),
            }
        ),
        "hunyuan_video",
    ),
    "diffusion-pipe HunyuanVideo": (
        lora(in_blocks("transformer.double_blocks.", 20, ".img_attn_qkv", (9216, 3072)), PEFT),
        "hunyuan_video",
    ),
    "a few blocks of Qwen-Image": (
        lora(in_blocks("transformer.transformer_blocks.", 3, ".attn.to_q", (3072, 3072)), PEFT),
        "flux1 chroma flux2 qwen_image hunyuan_video",
    ),
    "Qwen-Image": (lora({"transformer.transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072)}, PEFT), "qwen_image"),
    "Z-Image, fused": (lora({"diffusion_model.layers.0.attention.qkv": (11520, 3840)}, PEFT), "z_image"),
    "Z-Image, in parts": (lora({"diffusion_model.layers.0.attention.to_q": (3840, 3840)}, PEFT), "z_image"),
    "Lumina": (lora({"lora_unet_layers_0_attention_qkv": (3840, 2304)}), "lumina2"),
    "AuraFlow": (lora({"transformer.joint_transformer_blocks.0.attn.to_q": (3072, 3072)}, PEFT), "auraflow"),
    "PixArt": (
        lora(
            {"transformer.adaln_single.linear": (6912, 1152), "transformer.caption_projection.linear_1": (1152, 4096)},
            PEFT,
        ),
        "pixart_alpha pixart_sigma",
    ),
    "LTX-Video": (
        lora(of("diffusion_model.transformer_blocks.0.", attn1__to_q=(2048, 2048), attn2__to_k=(2048, 2048)), PEFT),
        "ltxv",
    ),
    "Hunyuan-DiT": (lora({"lora_unet_blocks_0_attn1_Wqkv": (4224, 1408)}), "hunyuan_dit"),
    "HiDream": (lora({"diffusion_model.double_stream_blocks.0.block.attn1.to_q": (2560, 2560)}, PEFT), "hidream"),
    "Wan": (lora({"diffusion_model.blocks.0.self_attn.q": (1536, 1536)}, PEFT), "wan"),
    "Wan-Fun": (lora({"lora_unet__blocks_0_cross_attn_k": (1536, 1536)}), "wan"),
    "Wan by diffusers": (lora({"transformer.blocks.0.attn1.to_q": (5120, 5120)}, PEFT), "wan"),
    "Cosmos-Predict2": (
        lora({"diffusion_model.blocks.0.self_attn.q_proj": (2048, 2048)}, PEFT),
        "cosmos_predict2 anima",
    ),
    "Anima by its text part": (lora({"lora_unet_llm_adapter_blocks_0_self_attn_q_proj": (1024, 1024)}), "anima"),
}


@pytest.mark.parametrize("name", CASES)
def test_names_and_sizes_tell_the_architectures(name):
    shapes, expected = CASES[name]
    assert [row.id for row in candidates(shapes, {})] == expected.split()
    assert identify(shapes, {}) == ARCHITECTURES.get(expected)


@pytest.mark.parametrize("name", CASES)
def test_metadata_that_contradicts_the_layers_does_not_count(name):
    shapes, expected = CASES[name]
    other = "sd_v1" if expected == "auraflow" else "auraflow"
    found = identified(shapes, {"ss_base_model_version": other})
    assert [row.id for row in found.architectures] == expected.split()
    assert found.contradiction.startswith(
        f"Its metadata says {'Stable Diffusion 1.5' if other == 'sd_v1' else 'AuraFlow'}"
    )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.architecture": "chroma/lora"}, "chroma"),
        ({"modelspec.architecture": "Flux-1-dev/lora"}, "flux1"),
        ({"ss_base_model_version": "chroma"}, "chroma"),
        ({"base_model": "black-forest-labs/FLUX.1-dev"}, "flux1"),
    ],
)
def test_metadata_decides_between_architectures_of_the_same_layers(metadata, expected):
    shapes, _ = CASES["kohya Flux.1"]
    assert identify(shapes, metadata).id == expected


def test_layers_that_any_transformer_has_name_no_architecture():
    """Models that there is no table for, such as Mochi's and CogVideoX's, have layers of these names too."""
    shapes = lora({"transformer.transformer_blocks.0.attn1.to_q": (1152, 1152)}, PEFT)
    assert candidates(shapes, {}) == ()
    assert identify(shapes, {"modelspec.architecture": "pixart-sigma"}) is not None


def test_the_prediction_of_sd2_stands_in_metadata_only():
    shapes, _ = CASES["kohya SD2"]
    assert identify(shapes, {"ss_base_model_version": "sd_v2"}).id == "sd2"
    assert identify(shapes, {"ss_base_model_version": "sd_v2_v"}).id == "sd2_v"


def test_unknown_keys():
    refiner = lora(unet(1280, "input_blocks_4_1"))
    assert identify(refiner, {}) is None
    other = lora({"lora_unet_something_new": (8, 8)})
    assert identify(other, {}) is None
    assert identify(other, {"modelspec.architecture": "Z-Image/lora"}).id == "z_image"
    assert identify({}, {}) is None


def test_in_words():
    shapes, _ = CASES["kohya Flux.1"]
    assert architecture_names(candidates(shapes, {})) == "Flux.1 or Chroma"
    assert "unknown architecture" in architecture_names(())


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"crucible.version": "0.1.0", "ss_network_module": "networks.lora"}, "LoRA Crucible 0.1.0"),
        ({"ss_network_module": "networks.lora"}, "kohya's trainer (sd-scripts or musubi-tuner)"),
        ({"ss_network_module": "lycoris.kohya"}, "kohya's trainer with LyCORIS"),
        ({"software": '{"name": "ai-toolkit", "version": "0.7"}'}, "ai-toolkit 0.7"),
        ({"software": "[" * 100_000}, ""),
        ({"software": "[1]"}, ""),
        ({"ot_branch": "master"}, "OneTrainer"),
        ({"lora_adapter_metadata": "{}"}, "diffusers"),
        ({"format": "pt"}, ""),
    ],
)
def test_the_program_that_made_it(metadata, name):
    assert trainer_name(metadata) == name
