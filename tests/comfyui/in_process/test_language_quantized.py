"""Language models in fp8, mxfp8 and nvfp4, from files through ComfyUI's loader, train like their values in float."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from comfy.text_encoders import llama
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.formats.lora_file import to_state_dict, write_lora
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from safetensors.torch import save_file
from torch import Tensor

SPEC = AdapterSpec(rank=4, alpha=8.0, dropout=0.0, target_modules="linear")
VOCABULARY = 640


@dataclass
class Small(llama.Qwen3_06BConfig):
    """A model of the width by which ComfyUI recognizes Qwen3 0.6B, with few layers."""

    vocab_size: int = VOCABULARY
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    num_key_value_heads: int = 1


def random_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes = Small()
    width, inner, keys = sizes.hidden_size, 2 * 128, 128
    found = {"model.embed_tokens.weight": torch.randn(VOCABULARY, width) * width**-0.5, "model.norm.weight": width}
    for layer in range(sizes.num_hidden_layers):
        start = f"model.layers.{layer}."
        shapes = {
            "self_attn.q_proj": (inner, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, inner), "mlp.gate_proj": (sizes.intermediate_size, width),
            "mlp.up_proj": (sizes.intermediate_size, width), "mlp.down_proj": (width, sizes.intermediate_size),
            "self_attn.q_norm": (128,), "self_attn.k_norm": (128,), "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
        }  # fmt: skip
        for name, shape in shapes.items():
            made = torch.randn(shape) * shape[-1] ** -0.5 if len(shape) > 1 else torch.ones(shape)
            found[f"{start}{name}.weight"] = made
    return {name: torch.ones(one) if isinstance(one, int) else one for name, one in found.items()}


def save_both(folder: Path, form: str, with_embeddings: bool) -> tuple[Path, Path]:
    """Write a model with quantized layers, and one in float32 with the same values."""
    quantized, values = {}, {}
    for name, weight in random_weights().items():
        values[name] = weight
        if not name.endswith("_proj.weight") and not (with_embeddings and "embed" in name):
            quantized[name] = weight
            continue
        tensor = QuantizedTensor.from_float(weight, QUANT_ALGOS[form]["comfy_tensor_layout"], scale="recalculate")
        values[name] = tensor.dequantize().float().contiguous()
        quantized |= {key: one.contiguous() for key, one in tensor.state_dict(name).items()}
        marker = json.dumps({"format": form}).encode()
        quantized[name.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(marker), dtype=torch.uint8)
    save_file(quantized, folder / f"{form}.safetensors")
    save_file(values, folder / "float.safetensors")
    return folder / f"{form}.safetensors", folder / "float.safetensors"


def load(path: Path) -> Any:
    with torch.inference_mode():
        return comfy.sd.load_clip([str(path)])


def examples() -> list[TextExample]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for length, prompt in ((9, 3), (14, 6), (5, 2)):
        tokens = torch.randint(0, VOCABULARY, (length,), generator=draw).tolist()
        trained = (False,) * prompt + (True,) * (length - prompt)
        made.append(TextExample(f"row of {length}", Rendered(tuple(tokens), trained), 64))
    return made


def trained(clip: Any, file: Path | None = None) -> tuple[Tensor, dict[Any, Tensor]]:
    """Return the losses and gradients of the first step, and go on for two more to write a LoRA."""
    model = ClipLanguageBaseModel(clip)
    assert model.parameters == sum(one.numel() for one in random_weights().values())
    with torch.inference_mode(), model.session("fp32"), model.attached(SPEC, True) as adapters:
        adapters.initialise(1)
        rows = model.cache_inputs(examples(), TensorCache(None), 0.0, True, lambda *_: None)
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-2)
        found: list[tuple[Tensor, dict[Any, Tensor]]] = []
        for _ in range(3):
            losses = model.losses(rows, [0] * len(rows)).values
            losses.sum().backward()
            named = adapters.named_parameters()
            found.append((losses.detach(), {(key, part): one.grad.clone() for key, part, one in named}))
            optimizer.step()
            optimizer.zero_grad()
        assert (found[-1][0] < found[0][0]).all()
        assert model.answers([[1, 2, 3]], 4)[0].tokens
        if file is not None:
            layers = to_state_dict(adapters.layers(), torch.float32)
            write_lora(file, model.portable(layers), {})
            model.verify(file, len(adapters))
    return found[0]


@pytest.mark.parametrize(
    ("form", "with_embeddings"),
    [("float8_e4m3fn", False), ("float8_e4m3fn", True), ("nvfp4", False), ("mxfp8", False)],
)
def test_quantized_files_train_like_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, with_embeddings: bool
) -> None:
    monkeypatch.setattr(llama, "Qwen3_06BConfig", Small)
    quantized, plain = save_both(tmp_path, form, with_embeddings)
    clip = load(quantized)
    layers = clip.cond_stage_model.qwen3_06b.transformer.model.layers
    assert isinstance(layers[0].mlp.up_proj.weight, QuantizedTensor)
    before = {name: weight.clone() for name, weight in clip.cond_stage_model.state_dict().items()}
    losses, gradients = trained(clip, tmp_path / "lora.safetensors")
    expected, of_values = trained(load(plain))
    assert losses == pytest.approx(expected, rel=1e-5)
    for key, gradient in of_values.items():
        if key[1] == "lora_B":
            assert (gradients[key] - gradient).abs().max() < 1e-4 * gradient.abs().max()
    assert all(torch.equal(one, before[name]) for name, one in clip.cond_stage_model.state_dict().items())
