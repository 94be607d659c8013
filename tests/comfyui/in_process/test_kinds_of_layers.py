"""Each kind of layer by each operation: what is loaded, merged, resized or converted does the same, or is refused by
name and leaves no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy.utils
import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.formats.lora_model import load_lora
from lora_crucible.models.comfyui.applying import with_lora
from lora_crucible.models.comfyui.demo import load_demo_model
from safetensors.torch import load_file, save_file
from tiny_architectures import TINY
from torch import Tensor

Tensors = dict[str, Tensor]

MODELS: dict[str, Callable] = {"demo": load_demo_model, "flux1": TINY["flux1"].model, "wan": TINY["wan"].model}
PEFT, KOHYA, XLABS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("down.weight", "up.weight"),
)
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
QUERY = f"lora_unet_{ATTENTION.replace('.', '_')}_to_q"
NORM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_norm1"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
PROJ = "lora_unet_double_blocks_0_img_attn_proj"
SELF = "diffusion_model.blocks.0.self_attn.q"
IN_PARTS = [f"transformer.single_transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v")]


def pair(name: str, out: int = 64, inputs: int = 64, suffixes: tuple[str, str] = PEFT, alpha: float = 0) -> Tensors:
    file = {f"{name}.{suffixes[0]}": draw(4, inputs), f"{name}.{suffixes[1]}": draw(out, 4)}
    return file | ({f"{name}.alpha": torch.tensor(alpha)} if alpha else {})


def draw(*shape: int) -> Tensor:
    return 0.2 * torch.randn(*shape)


def magnitude(name: str, *shape: int) -> Tensors:
    return {f"{name}.lora_magnitude_vector": torch.rand(*(shape or (64,))) + 0.5}


def xlabs() -> Tensors:
    file = pair("single_blocks.0.processor.qkv_lora", 192, 64, XLABS)
    for name, out in (("qkv_lora1", 192), ("proj_lora1", 64), ("qkv_lora2", 192), ("proj_lora2", 64)):
        file |= pair(f"double_blocks.0.processor.{name}", out, 64, XLABS)
    return file


def control() -> Tensors:
    """A control LoRA of Black Forest Labs: all layers with biases, a wider first one, and norms."""
    file: Tensors = {}
    for key, weight in TINY["flux1"].model().model.state_dict().items():
        name = key.removeprefix("diffusion_model.").removesuffix(".weight")
        if weight.ndim == 2 and key.endswith(".weight"):
            file |= pair(name, weight.shape[0], weight.shape[1] * (2 if name == "img_in" else 1))
            file[f"{name}.lora_B.bias"] = draw(weight.shape[0])
        elif "_norm." in key:
            file[f"{name}.scale"] = torch.rand(weight.shape)
    return file


def conv_lokr() -> Tensors:
    shapes = {".lokr_w1": (4, 4), ".lokr_t2": (4, 4, 3, 3), ".lokr_w2_a": (4, 16), ".lokr_w2_b": (4, 16)}
    return {CONV + suffix: 3 * draw(*shape) for suffix, shape in shapes.items()} | {f"{CONV}.alpha": torch.tensor(2.0)}


def glora() -> Tensors:
    shapes = {"a1": (4, 64), "a2": (64, 4), "b1": (4, 64), "b2": (64, 4)}
    return {f"{QUERY}.{name}.weight": draw(*shape) for name, shape in shapes.items()}


ALL = {"auto", "kohya", "comfyui", "diffusers", "peft", "merge", "resize"}
OF_COMFYUI = {"auto", "kohya", "comfyui"}
OF_PEFT = {"diffusers", "peft"}

KINDS: dict[str, tuple[str, Callable[[], Tensors], set[str]]] = {
    # the model, the file, and the operations that keep its effect; the others refuse it
    "PEFT's DoRA": ("demo", lambda: pair(f"unet.{ATTENTION}.to_q") | magnitude(f"unet.{ATTENTION}.to_q"), OF_PEFT),
    "PEFT's DoRA in parts": (
        "flux1",
        lambda: {key: one for part in IN_PARTS for key, one in (pair(part) | magnitude(part)).items()},
        OF_PEFT,
    ),
    "PEFT's DoRA by names that the loader lacks": (
        "wan",
        lambda: pair("transformer.blocks.0.attn1.to_q") | magnitude("transformer.blocks.0.attn1.to_q"),
        OF_PEFT,
    ),
    "DoRA": ("demo", lambda: pair(QUERY, suffixes=KOHYA) | {f"{QUERY}.dora_scale": torch.rand(64, 1)}, OF_COMFYUI),
    "PEFT's biases": ("wan", lambda: pair(SELF) | {f"{SELF}.lora_B.bias": draw(64)}, ALL),
    "PEFT's biases in parts": (
        "flux1",
        lambda: pair(IN_PARTS[0]) | pair(IN_PARTS[2]) | {f"{IN_PARTS[2]}.lora_B.bias": draw(64)},
        ALL,
    ),
    "XLabs": ("flux1", xlabs, ALL),
    "control": ("flux1", control, OF_COMFYUI),
    "control by diffusers": (
        "flux1",
        lambda: pair("transformer.x_embedder", 64, 128) | pair("transformer.transformer_blocks.0.attn.to_q"),
        ALL,
    ),
    "modulation": ("wan", lambda: pair(SELF) | {"diffusion_model.blocks.0.diff_m": draw(1, 6, 64)}, ALL - OF_PEFT),
    "norm": ("demo", lambda: {f"{NORM}.w_norm": draw(64), f"{NORM}.b_norm": draw(64)}, ALL - OF_PEFT),
    "norm's bias": ("demo", lambda: pair(QUERY, suffixes=KOHYA) | {f"{NORM}.b_norm": draw(64)}, ALL - OF_PEFT),
    "bias alone": ("demo", lambda: {"lora_unet_conv_in.diff_b": draw(64)} | pair(QUERY, suffixes=KOHYA), ALL - OF_PEFT),
    "full difference": ("demo", lambda: {f"{QUERY}.diff": draw(64, 64)}, ALL - OF_PEFT),
    "Tucker": (
        "demo",
        lambda: {
            f"{CONV}.lora_down.weight": draw(4, 64, 1, 1),
            f"{CONV}.lora_mid.weight": draw(4, 4, 3, 3),
            f"{CONV}.lora_up.weight": draw(64, 4, 1, 1),
        },
        ALL,
    ),
    "Tucker LoKr": ("demo", conv_lokr, ALL - OF_PEFT),
    "LoKr with an infinite alpha": (
        "flux1",
        lambda: (
            {f"{PROJ}.lokr_w1": draw(8, 8).half(), f"{PROJ}.lokr_w2": draw(8, 8).half()}
            | {f"{PROJ}.alpha": torch.tensor(9999999999).half()}
        ),
        ALL - OF_PEFT,
    ),
    "alpha alone": (
        "flux1",
        lambda: pair(PROJ, suffixes=KOHYA, alpha=2.0) | {"lora_unet_img_in.alpha": torch.tensor(4.0)},
        ALL,
    ),
    "OFT": ("demo", lambda: {f"{QUERY}.oft_blocks": draw(4, 16, 16)}, OF_COMFYUI),
    "kohya's OFT": (
        "demo",
        lambda: {f"oft_{QUERY[5:]}.oft_blocks": draw(4, 16, 16), f"oft_{QUERY[5:]}.alpha": torch.tensor(0.01)},
        OF_COMFYUI,
    ),
    "BOFT": (
        "demo",
        lambda: {f"{QUERY}.oft_blocks": draw(3, 4, 16, 16), f"{QUERY}.alpha": torch.tensor(0.0)},
        OF_COMFYUI,
    ),
    "GLoRA": ("demo", glora, OF_COMFYUI),
}

BY_CORE = ("DoRA", "control", "norm", "bias alone", "full difference", "Tucker", "alpha alone", "OFT", "BOFT", "GLoRA")
"""The kinds that ComfyUI's loader takes whole."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    name, (model, file, kept) = request.param, KINDS[request.param]
    with torch.inference_mode(False):
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("kind") / "file.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in file().items()}, path)
        return name, MODELS[model](), path, kept


def weights(patcher) -> Tensors:
    """Return each patched weight as ComfyUI computes it."""
    found = {}
    with torch.inference_mode():
        for key, patches in patcher.patches.items():
            weight = comfy.utils.get_attr(patcher.model, key).detach().float()
            found[key] = comfy.lora.calculate_weight(patches, weight.clone(), key)
    return found


def loaded(model, path: Path) -> Tensors:
    applied = with_lora(model, None, load_lora(path, path.name), 1.0, 1.0)
    assert not applied.unmatched or all(key.endswith(".alpha") for key in applied.unmatched)
    return weights(applied.model)


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        torch.testing.assert_close(found[key], weight, rtol=1e-3, atol=2e-3)


def test_loading_changes_the_model(kind):
    _, model, path, _ = kind
    for key, weight in loaded(model, path).items():
        before = comfy.utils.get_attr(model.model, key).detach().float()
        assert before.shape != weight.shape or not before.equal(weight)


def test_loading_is_what_comfyui_does(kind):
    name, model, path, _ = kind
    if name in BY_CORE:
        core = comfy.sd.load_lora_for_models(model, None, load_file(path), 1.0, 1.0)[0]
        assert_same(loaded(model, path), weights(core))


@pytest.mark.parametrize("operation", sorted(ALL))
def test_the_result_does_the_same_or_is_refused(kind, operation, tmp_path, capsys):
    name, model, path, kept = kind
    architecture = {"demo": "sd15"}.get(KINDS[name][0], KINDS[name][0])  # one layer of a tiny model does not tell
    output = tmp_path / "out.safetensors"
    arguments = {"merge": ["merge", str(path)], "resize": ["resize", str(path), "--rank", "64"]}
    command = arguments.get(operation, ["convert", str(path), "--to", operation])
    code = main([*command, "--architecture", architecture, "--output", str(output)])
    told = capsys.readouterr().err
    if operation in kept:
        assert code == 0, told
        assert_same(loaded(model, output), loaded(model, path))
    else:
        assert code == 4
        assert told.startswith("error: ") or "\nerror: " in told
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_pefts_dora_is_computed_as_peft_does(strength):
    model, (name, *_) = MODELS["flux1"](), IN_PARTS
    torch.manual_seed(0)
    file = pair(name) | magnitude(name)
    key = "diffusion_model.single_blocks.0.linear1.weight"
    before = comfy.utils.get_attr(model.model, key).detach().float().clone()
    changed = before[:64] + file[f"{name}.lora_B.weight"] @ file[f"{name}.lora_A.weight"]
    scaled = file[f"{name}.lora_magnitude_vector"][:, None] * changed / changed.norm(dim=1, keepdim=True)
    applied = with_lora(model, None, file, strength, 1.0)
    found = weights(applied.model)[key]
    torch.testing.assert_close(found[:64], before[:64] + strength * (scaled - before[:64]), rtol=1e-4, atol=1e-5)
    assert found[64:].equal(before[64:])


def test_xlabs_layers_do_what_their_processors_add():
    model, file = MODELS["flux1"](), xlabs()
    applied = with_lora(model, None, file, 1.0, 1.0)
    assert applied.unmatched == ()
    before = comfy.utils.get_attr(model.model, "diffusion_model.single_blocks.0.linear1.weight").detach().float()
    found = weights(applied.model)["diffusion_model.single_blocks.0.linear1.weight"] - before
    name = "single_blocks.0.processor.qkv_lora"
    added = file[f"{name}.up.weight"] @ file[f"{name}.down.weight"]
    torch.testing.assert_close(found[:192], added, atol=1e-4, rtol=1e-4)
    assert not found[192:].any()


def test_a_bias_for_a_layer_without_one_is_told():
    """ComfyUI leaves it out without a word."""
    file = pair(QUERY, suffixes=KOHYA) | {f"{QUERY}.diff_b": draw(64)}
    applied = with_lora(MODELS["demo"](), None, file, 1.0, 1.0)
    assert (applied.matched, applied.unmatched) == (2, (f"{QUERY}.diff_b",))
