"""LoRAs with the names of other trainers have the same effect in ComfyUI after being read and written again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.lora
import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.delta import delta_weight, kind_of
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, DOWN, UP
from lora_crucible.formats.names import LayerNames, Place, layer_names, place_of
from lora_crucible.formats.universal import read_layers
from lora_crucible.models.comfyui.demo import load_demo_clip, load_demo_model
from lora_crucible.models.comfyui.naming import architecture_of, file_keys
from tiny_architectures import TINY
from torch import Tensor

RANK = 4
CLOSE = {"rtol": 1e-4, "atol": 1e-6}

Tensors = dict[str, Tensor]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.1


def lora(out: int, inputs: tuple[int, ...]) -> Tensors:
    spatial = (1,) * (len(inputs) - 1)
    return {DOWN: draw(RANK, *inputs), UP: draw(out, RANK, *spatial), ALPHA: torch.tensor(2.0)}


def dora(out: int, inputs: tuple[int, ...]) -> Tensors:
    return lora(out, inputs) | {DORA_SCALE: torch.rand(out, *[1] * len(inputs)) + 0.5}


def loha(out: int, inputs: tuple[int, ...]) -> Tensors:
    if len(inputs) > 1:
        return tucker_loha(out, inputs)
    parts: Tensors = {}
    for n in (1, 2):
        parts[f".hada_w{n}_a"], parts[f".hada_w{n}_b"] = draw(out, RANK), draw(RANK, *inputs)
    return parts | {ALPHA: torch.tensor(2.0)}


def tucker_loha(out: int, inputs: tuple[int, ...]) -> Tensors:
    parts: Tensors = {ALPHA: torch.tensor(2.0)}
    for n in (1, 2):
        parts[f".hada_t{n}"] = draw(RANK, RANK, *inputs[1:])
        parts[f".hada_w{n}_a"], parts[f".hada_w{n}_b"] = draw(RANK, out), draw(RANK, inputs[0])
    return parts


def lokr(out: int, inputs: tuple[int, ...]) -> Tensors:
    first = 4 if inputs[0] % 4 == 0 and out % 4 == 0 else 1
    second = {".lokr_w2": draw(out // first, inputs[0] // first, *inputs[1:])}
    if len(inputs) == 1:
        second = {".lokr_w2_a": draw(out // first, RANK), ".lokr_w2_b": draw(RANK, inputs[0] // first)}
    return {".lokr_w1": draw(first, first), **second, ALPHA: torch.tensor(2.0)}


def difference(out: int, inputs: tuple[int, ...]) -> Tensors:
    return {".diff": draw(out, *inputs)}


METHODS = {"lora": lora, "dora": dora, "loha": loha, "lokr": lokr, "diff": difference}

PAIRS = {
    "kohya": (DOWN, UP),
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "peft with its adapter's name": (".lora_A.default.weight", ".lora_B.default.weight"),
    "diffusers of old": (".lora.down.weight", ".lora.up.weight"),
    "attention processors": ("_lora.down.weight", "_lora.up.weight"),
}


def flattened(name: str) -> str:
    return name.partition(".")[2].replace(".", "_")


def bare(name: str) -> str:
    return name.partition(".")[2]


Spelling = Callable[[LayerNames], list[tuple[str, Place]]]


def native(spelled: Callable[[str], str]) -> Spelling:
    return lambda names: [(spelled(names.native), Place(names.key))]


def diffusers(spelled: Callable[[str], str]) -> Spelling:
    return lambda names: [(spelled(name), place) for name, place in names.diffusers]


SPELLINGS: dict[str, tuple[Spelling, str]] = {
    "kohya": (native(lambda name: f"lora_unet_{flattened(name)}"), "kohya"),
    "kohya by diffusers' names": (diffusers(lambda name: f"lora_unet_{flattened(name)}"), "kohya"),
    "musubi, ai-toolkit": (native(str), "peft"),
    "core's Save LoRA": (native(str), "kohya"),
    "diffusers": (diffusers(str), "peft"),
    "peft": (diffusers(lambda name: f"base_model.model.{bare(name)}"), "peft with its adapter's name"),
    "OneTrainer": (diffusers(lambda name: f"lora_transformer_{flattened(name)}"), "kohya"),
    "LyCORIS of SimpleTuner": (diffusers(lambda name: f"lycoris_{flattened(name)}"), "kohya"),
    "diffusers of old": (diffusers(str), "diffusers of old"),
}

MODELS = {
    "demo": load_demo_model,
    **{name: TINY[name].model for name in ("sd3", "flux1", "flux2", "z_image", "qwen_image", "wan")},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return MODELS[request.param]().model


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


def weights_of(model) -> dict[str, tuple[LayerNames, str, Tensor]]:
    """Return the names, ComfyUI's parameter name and the weight of each linear and 2-D convolution layer, by key."""
    architecture, parameters = architecture_of(model), dict(model.named_parameters())
    found = {}
    for path, key in file_keys(model, architecture).items():
        parameter = f"diffusion_model.{path}.weight"
        weight = parameters.get(parameter, torch.zeros(0)).detach().float()
        # ComfyUI does not support LoHa and LoKr on Wan's first layer, a 3-D convolution.
        if weight.ndim in (2, 4) and key in layer_names(architecture):
            found[key] = (layer_names(architecture)[key], parameter, weight)
    return found


def written(model, spelling: str, method: str) -> tuple[Tensors, dict[str, Tensor]]:
    """Return a file as a trainer would write it, and the change that it makes to each of ComfyUI's weights."""
    spelled, pair = SPELLINGS[spelling]
    file, expected = {}, {}
    for names, parameter, weight in weights_of(model).values():
        change = torch.zeros_like(weight)
        for name, place in spelled(names):
            if place.reorder is not None and method == "dora":
                continue  # ComfyUI does not reorder dora_scale
            rows = place.rows(len(weight))
            part = METHODS[method](rows.stop - rows.start, tuple(weight.shape[1:]))
            difference = delta_weight(part, ordered(place, weight[rows]))
            change[rows] = ordered(place, difference)
            for suffix, tensor in part.items():
                file[name + dict(zip((DOWN, UP), PAIRS[pair], strict=True)).get(suffix, suffix)] = tensor
        if change.any():
            expected[parameter] = change
    return file, expected


def ordered(place: Place, rows: Tensor) -> Tensor:
    """Convert rows from the layer's order to the file's, or back: swapping halves is its own inverse."""
    return rows if place.reorder is None else place.reorder(rows)


def changes_in_comfyui(model, file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Return the weight changes that ComfyUI's loader makes from a file, by parameter, and the keys it ignored."""
    loaded = comfy.lora.load_lora(dict(file), comfy.lora.model_lora_keys_unet(model, {}), log_missing=False)
    patches: dict[str, list] = {}
    known = set()
    for target, patch in loaded.items():
        parameter, *slicing = target if isinstance(target, tuple) else (target,)
        offset, reorder = (*slicing, None, None)[:2]
        patches.setdefault(parameter, []).append((1.0, patch, 1.0, offset, reorder))
        known |= getattr(patch, "loaded_keys", set())
    changes = {}
    for parameter, found in patches.items():
        weight = model.get_parameter(parameter).detach().float()
        changes[parameter] = comfy.lora.calculate_weight(found, weight.clone(), parameter) - weight
    return changes, {key for key in file if key not in known and not key.endswith(".diff")}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for parameter, change in expected.items():
        torch.testing.assert_close(
            found[parameter], change, msg=lambda text, name=parameter: f"{name}: {text}", **CLOSE
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_read_does_in_comfyui_what_the_file_says(model, spelling, method):
    file, expected = written(model, spelling, method)
    architecture = architecture_of(model)
    read = read_layers(file, lambda name: place_of(name, architecture))
    assert not read.dotted
    assert not read.leftover
    for form in ("kohya", "comfyui"):
        changes, unknown = changes_in_comfyui(model, to_form(read, architecture, form))
        assert not unknown
        assert_same(changes, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_comfyui_itself_agrees_wherever_it_knows_the_names(model, spelling, method):
    """This confirms that ComfyUI interprets the test files as these tests expect."""
    file, expected = written(model, spelling, method)
    changes, _ = changes_in_comfyui(model, file)
    assert_same(changes, {parameter: expected[parameter] for parameter in changes if parameter in expected})


@pytest.mark.parametrize("form", ["auto", "kohya", "comfyui", "diffusers", "peft"])
@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
def test_a_file_in_each_form_is_read_back_as_it_was(model, spelling, form):
    architecture = architecture_of(model)
    read = read_layers(written(model, spelling, "lora")[0], lambda name: place_of(name, architecture))
    again = read_layers(to_form(read, architecture, form), lambda name: place_of(name, architecture))
    assert again.layers.keys() == read.layers.keys()
    for key, layer in read.layers.items():
        torch.testing.assert_close(delta_weight(again.layers[key]), delta_weight(layer), **CLOSE)
        assert len(again.layers[key][DOWN]) == len(layer[DOWN])
        assert kind_of(again.layers[key]) == "lora"


@pytest.mark.parametrize("method", ["loha", "lokr", "diff"])
def test_forms_of_programs_that_read_lora_only(model, method):
    architecture = architecture_of(model)
    read = read_layers(written(model, "kohya", method)[0], lambda name: place_of(name, architecture))
    title = {"loha": "LoHa", "lokr": "LoKr", "diff": "full differences"}[method]
    for form, reader in (("diffusers", "diffusers"), ("peft", "PEFT")):
        with pytest.raises(CrucibleError, match=f"{title}: .*{reader} has no place for them.*trainer resize FILE"):
            to_form(read, architecture, form)


def test_old_names_of_attention_processors():
    """diffusers wrote such names before it used peft."""
    model = load_demo_model().model
    architecture = architecture_of(model)
    file = {}
    for names, _, weight in weights_of(model).values():
        name = names.diffusers[0][0]
        if ".attn" in name:
            start, _, last = name.removesuffix(".0").rpartition(".")
            for suffix, tensor in lora(len(weight), tuple(weight.shape[1:])).items():
                if suffix != ALPHA:
                    ending = "_lora.down.weight" if suffix == DOWN else "_lora.up.weight"
                    file[f"{start}.processor.{last}{ending}"] = tensor
    known, _ = changes_in_comfyui(model, file)
    read = read_layers(file, lambda name: place_of(name, architecture))
    assert_same(changes_in_comfyui(model, to_form(read, architecture, "kohya"))[0], known)


CLIP = (
    "lora_te_text_model_encoder_layers_",
    "lora_te1_text_model_encoder_layers_",
    "text_encoder.text_model.encoder.layers.",
    "text_encoders.clip_l.transformer.text_model.encoder.layers.",
)


@pytest.mark.parametrize("start", CLIP)
def test_text_encoders(start):
    clip, architecture = load_demo_clip(), architecture_of(load_demo_model().model)
    file = {}
    for layer in range(2):
        for inner in ("self_attn.q_proj", "mlp.fc1"):
            name = f"{start}{layer}.{inner}"
            spelled = name.replace(".", "_") if name.startswith("lora_") else name
            file |= {spelled + suffix: tensor for suffix, tensor in lora(8, (8,)).items()}
    read = read_layers(file, lambda name: place_of(name, architecture))
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    for form in ("kohya", "comfyui", "diffusers"):
        converted = to_form(read, architecture, form)
        loaded = comfy.lora.load_lora(converted, known, log_missing=False)
        assert len(loaded) == 4
        assert {key for adapter in loaded.values() for key in adapter.loaded_keys} == set(converted)
