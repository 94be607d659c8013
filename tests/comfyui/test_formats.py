"""The layer names agree with ComfyUI's own tables and key map, which are read with ComfyUI's own Python."""

import json
import subprocess

import pytest
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.layer_names import diffusers_unet_to_sgm, file_key, kohya_key

pytestmark = pytest.mark.comfyui

# For models with the real structure but a small width (Flux with fewer blocks), this prints the table of
# unet_to_diffusers, the layers' native paths, and the keys that the LoRA loader recognises.
SCRIPT = """
import json, sys

sys.path.insert(0, sys.argv[1])
sys.argv = ["x", "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.lora, comfy.supported_models, comfy.utils
import torch

common = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "context_dim": 8, "use_spatial_transformer": True,
    "legacy": False, "use_checkpoint": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}
configs = {
    "SD15": {
        **common, "model_channels": 32, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "adm_in_channels": None,
        "use_linear_in_transformer": False, "num_heads": 8,
    },
    "SDXL": {
        **common, "model_channels": 32, "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "adm_in_channels": 16,
        "use_linear_in_transformer": True, "num_head_channels": 32, "num_classes": "sequential",
    },
    "Flux": {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 8,
        "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
        "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
        "txt_ids_dims": [],
    },
}
found = {}
for name, config in configs.items():
    config["dtype"] = torch.float32
    with torch.device("meta"):
        model = getattr(comfy.supported_models, name)(dict(config)).get_model({}, "")
    found[name] = {
        "diffusers": comfy.utils.unet_to_diffusers(config),
        "layers": [
            path for path, module in model.diffusion_model.named_modules()
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        ],
        "keys": {
            key: to for key, to in comfy.lora.model_lora_keys_unet(model, {}).items()
            if key.startswith("lora_unet_") and isinstance(to, str)
        },
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def comfy_tables(comfyui_python, comfyui_path):
    command = [comfyui_python, "-c", SCRIPT, str(comfyui_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(("model", "attention_up_blocks"), [("SD15", (1, 2, 3)), ("SDXL", (0, 1))])
def test_sgm_names_agree_with_comfyuis_table(comfy_tables, model, attention_up_blocks):
    table = {
        name.removesuffix(".weight"): sgm.removesuffix(".weight")
        for name, sgm in comfy_tables[model]["diffusers"].items()
        if name.endswith(".weight")
    }
    assert len(table) > 300
    assert {name: diffusers_unet_to_sgm(name, 2, attention_up_blocks) for name in table} == table


@pytest.mark.parametrize(("model", "architecture"), [("SD15", "sd15"), ("SDXL", "sdxl")])
def test_every_layer_reaches_its_own_weight_from_diffusers_names(comfy_tables, model, architecture):
    keys, layers = comfy_tables[model]["keys"], comfy_tables[model]["layers"]
    table = comfy_tables[model]["diffusers"]
    # SDXL's label_emb has two names in the table; diffusers has it as add_embedding, not as class_embedding.
    names = [
        name.removesuffix(".weight")
        for name in table
        if name.endswith(".weight") and not name.startswith("class_embedding")
    ]
    reached = {}
    for name in names:
        target = keys.get(file_key(ARCHITECTURES[architecture], name))
        if target is not None:
            assert target == f"diffusion_model.{table[name + '.weight']}"
            reached[target.removeprefix("diffusion_model.").removesuffix(".weight")] = name
    assert set(layers) <= set(reached)


@pytest.mark.parametrize("model", ["SDXL", "Flux"])
def test_native_names_are_in_the_key_map(comfy_tables, model):
    keys, layers = comfy_tables[model]["keys"], comfy_tables[model]["layers"]
    for path in layers:
        assert keys.get(kohya_key(path)) == f"diffusion_model.{path}.weight"
