"""ComfyUI's own loader finds every layer of a language model's LoRA, whatever it loaded the model as."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.ops
import comfy.sd1_clip
import comfy.text_encoders.llama
import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.language_file import in_comfyui_names
from lora_crucible.formats.layer_names import language_key
from lora_crucible.formats.lora_file import LayerTensors, to_state_dict

SIZES = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


class TinyQwen(comfy.sd1_clip.SDClipModel):
    """Qwen3 as ComfyUI has it, in small."""

    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 - ComfyUI's signature
        super().__init__(
            device=device,
            textmodel_json_config=dict(SIZES),
            dtype=torch.float32,
            special_tokens={"pad": 0},
            layer_norm_hidden_state=False,
            model_class=comfy.text_encoders.llama.Qwen3_06B,
            model_options=model_options,
        )


def encoder(name: str) -> Any:
    torch.manual_seed(0)
    made = comfy.sd1_clip.SD1ClipModel(name=name, clip_model=TinyQwen)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def trained(transformer: Any, algorithm: str) -> tuple[dict[str, LayerTensors], dict[str, str]]:
    """Return adapters with random weights for all linear layers, and the paths of the layers by key."""
    spec = AdapterSpec(4, 6.0, 0.0, "linear", algorithm)  # type: ignore[arg-type]
    paths = {language_key(path): path for path, _ in transformer.named_modules()}
    with adapted(transformer, spec, language_key, RowSeeds()) as layers:
        adapters = Adapters(layers)
        with torch.no_grad():
            for _, part, parameter in adapters.named_parameters():
                parameter.mul_(1.2) if part == "lora_magnitude_vector" else parameter.normal_(std=0.3)
        found = adapters.layers()
    return found, {key: paths[key] for key in found}


@pytest.mark.parametrize("algorithm", ["lora", "rslora", "dora", "loha", "lokr"])
@pytest.mark.parametrize("name", ["qwen3_06b", "qwen3_4b", "beside another"])
def test_every_layer_is_found_and_does_what_was_trained(name: str, algorithm: str):
    model = encoder("qwen3_4b" if name == "beside another" else name)
    wrapper = next(one for one, _ in model.named_children())
    transformer = model.get_submodule(f"{wrapper}.transformer")
    layers, paths = trained(transformer, algorithm)
    if name == "beside another":
        model.t5xxl = torch.nn.ModuleDict({"transformer": torch.nn.ModuleDict({"shared": torch.nn.Linear(4, 4)})})
    file = in_comfyui_names(to_state_dict(layers, torch.float32), paths)
    known = comfy.lora.model_lora_keys_clip(model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(file)), known, log_missing=False)
    assert len(layers) == 14 == len(patches)
    assert {key for patch in patches.values() for key in patch.loaded_keys} == file.keys()
    for key, layer in layers.items():
        parameter = f"{wrapper}.transformer.{paths[key]}.weight"
        weight = model.get_parameter(parameter).detach().clone()
        expected = weight + delta_weight(layer, weight).view_as(weight)
        found = comfy.lora.calculate_weight([(1.0, patches[parameter], 1.0, None, None)], weight.clone(), parameter)
        assert (found - expected).abs().max() < 1e-5
        assert (found - weight).abs().max() > 1e-3
