"""Signs that a MODEL is unsuitable for training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import comfy.model_base
import comfy.sd
import comfy.supported_models
import pytest
import torch
from checkpoints import write_small_sd3
from comfy.model_detection import model_config_from_unet
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from lora_crucible.config import ModelFacts
from lora_crucible.errors import CrucibleError
from lora_crucible.models.comfyui.model import model_facts
from lora_crucible.models.comfyui.suitability import warnings_of
from models import base_model, build, sdxl
from tiny_architectures import TINY


def loaded_from(name: str, *, kind: type = comfy.supported_models.SDXL) -> SimpleNamespace:
    """Return a patcher as ComfyUI's checkpoint loader leaves it."""
    model = SimpleNamespace(model_config=object.__new__(kind))
    arguments = (str(Path("models") / "checkpoints" / name), False)
    return SimpleNamespace(model=model, cached_patcher_init=(comfy.sd.load_checkpoint_guess_config, arguments, 0))


@pytest.mark.parametrize("name", ["sdxl_lightning_8step.safetensors", "sd_xl_turbo_1.0.safetensors"])
def test_a_distilled_checkpoint_is_known_by_its_file(name):
    (warning,) = warnings_of(loaded_from(name))
    assert name in warning
    assert "distilled" in warning


def test_ordinary_models_are_not_warned_of(demo):
    assert warnings_of(loaded_from("sd_xl_base_1.0.safetensors")) == ()
    assert warnings_of(demo[0]) == ()
    assert base_model(sdxl()).warnings() == ()


def test_a_file_that_core_loaded_is_known_by_its_name(tmp_path):
    """ComfyUI's loader still stores the file name where it is looked up, also on clones."""
    path = tmp_path / "my_turbo.safetensors"
    write_small_sd3(path)
    loaded = comfy.sd.load_diffusion_model(str(path))
    assert "my_turbo.safetensors" in warnings_of(loaded.clone())[0]


def test_schnell_is_known_by_its_layout():
    flux = TINY["flux1"].config
    schnell = build(comfy.model_base.Flux, comfy.supported_models.FluxSchnell, {**flux, "guidance_embed": False})
    (warning,) = base_model(schnell).warnings()
    assert "FLUX.1 schnell" in warning
    assert "OpenFLUX.1" in warning
    assert warnings_of(build(comfy.model_base.Flux, comfy.supported_models.Flux, dict(flux))) == ()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("__index_timestep_zero__", "Qwen-Image-Edit 2511"),
        ("time_text_embed.addition_t_embedding.weight", "Qwen-Image-Layered"),
        (None, None),
    ],
)
def test_qwen_images_that_start_from_pictures_are_known_by_their_files(key, name):
    file = {"txt_norm.weight": (3584,), "img_in.weight": (3072, 64), "transformer_blocks.0.attn.to_q.weight": (1, 1)}
    file |= {} if key is None else {key: (1,)}
    config = model_config_from_unet({name: torch.zeros(shape) for name, shape in file.items()}, "")
    assert isinstance(config, comfy.supported_models.QwenImage)
    found = warnings_of(SimpleNamespace(model=SimpleNamespace(model_config=config)))
    assert len(found) == (name is not None)
    assert all(name in warning and "text-to-image model of the same family" in warning for warning in found)


def test_a_model_for_editing_is_warned_of_once():
    kind = comfy.supported_models.QwenImage
    patcher = loaded_from("qwen_image_edit_2511.safetensors", kind=kind)
    patcher.model.model_config.unet_config = {**kind.unet_config, "default_ref_method": "index_timestep_zero"}
    assert len(warnings_of(patcher)) == 1


def test_lcm_sampling_is_refused(demo):
    model = demo[0]
    (as_lcm,) = ModelSamplingDiscrete().patch(model, "lcm", False)
    with pytest.raises(CrucibleError, match=r"uses LCM sampling.*Connect the model from before that node"):
        base_model(as_lcm)
    (as_eps,) = ModelSamplingDiscrete().patch(model, "eps", False)
    assert model_facts(as_eps) == ModelFacts("demo", 64, 4.0, "epsilon")


def test_refiners_are_refused_before_anything_is_done():
    model = SimpleNamespace(model=object.__new__(comfy.model_base.SDXLRefiner))
    with pytest.raises(CrucibleError, match="SDXLRefiner"):
        model_facts(model)
