"""The tables of layer names agree with ComfyUI's own maps."""

from __future__ import annotations

import comfy.lora
import comfy.utils
import pytest
import torch
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.layer_tables.model_sizes import SIZES
from lora_crucible.formats.names import layer_names, place_of
from lora_crucible.models.comfyui.naming import architecture_of, file_keys
from tiny_architectures import TINY

TABLED = tuple(id for id in SIZES if id in TINY)

UNETS = {
    "sd15": {
        "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
    },
    "sdxl": {
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
    },
}
"""The UNet configurations that ComfyUI detects in checkpoints."""


@pytest.fixture(params=TABLED)
def model(request):
    return TINY[request.param].model().model


def test_every_name_in_comfyuis_map_is_for_the_layer_that_the_table_says(model):
    architecture = architecture_of(model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    keys = file_keys(model, architecture)
    checked = 0
    for name, target in comfy.lora.model_lora_keys_unet(model, {}).items():
        parameter, slicing, reorder = (*target, None)[:3] if isinstance(target, tuple) else (target, None, None)
        path = parameter.removeprefix("diffusion_model.").removesuffix(".weight")
        if path not in keys or len(shapes.get(parameter, ())) < 2:
            continue
        place = place_of(name, architecture)
        if place is None:
            continue
        total = shapes[parameter][0]
        rows = place.rows(total)
        _, first, count = slicing or (0, 0, total)
        assert (place.key, rows.start, rows.stop - rows.start) == (keys[path], first, count), name
        order = torch.arange(total)
        ours, comfyuis = (change(order) if change else order for change in (place.reorder, reorder))
        assert ours.equal(comfyuis), name
        checked += 1
    assert checked > 10


def test_every_matrix_has_its_names(model):
    architecture = architecture_of(model)
    for path, key in file_keys(model, architecture).items():
        weight = model.get_parameter(f"diffusion_model.{path}.weight")
        if weight.ndim >= 2:
            assert key in layer_names(architecture), path
            assert layer_names(architecture)[key].native == f"diffusion_model.{path}"


@pytest.mark.parametrize("architecture", UNETS)
def test_unets_have_diffusers_and_the_original_names(architecture):
    row = ARCHITECTURES[architecture]
    for name, native in comfy.utils.unet_to_diffusers(UNETS[architecture]).items():
        # The map has names that no such model has: a second name for one layer, and an upsampler in the last block.
        last = f"up_blocks.{len(UNETS[architecture]['channel_mult']) - 1}.upsamplers"
        if not name.endswith(".weight") or name.startswith(("class_embedding", last)):
            continue
        name, native = name.removesuffix(".weight"), native.removesuffix(".weight")
        place = place_of(f"unet.{name}", row)
        assert place is not None, name
        assert place == place_of(f"lora_unet_{native.replace('.', '_')}", row)
        assert layer_names(row)[place.key].native == f"diffusion_model.{native}"
