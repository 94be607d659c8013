"""Text encoders are trained along with the model, and loading the file reproduces them as trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.layer_names import is_of_text_encoder
from lora_crucible.formats.lora_file import read_lora, to_state_dict, write_lora
from lora_crucible.models.comfyui import naming, text_training
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.comfyui.text_training import LiveTextEncoder
from lora_crucible.models.diffusion.inputs import Caption, Inputs, Latent
from lora_crucible.models.examples import CachedExample

SPEC = AdapterSpec(4, 4.0, 0.0, "attention", text_encoder=True)
CAPTIONS = ["crux, a red circle", "a blue square"]


def samples() -> list[CachedExample]:
    latents = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    return [
        CachedExample(caption, "all", Inputs((lambda latent=latent: Latent(latent),), (Caption(caption, list),)))
        for caption, latent in zip(CAPTIONS, latents, strict=True)
    ]


def trained(base_model, path: Path, algorithm: str = "lora") -> tuple[torch.Tensor, list[str]]:
    spec = AdapterSpec(4, 4.0, 0.0, "attention", algorithm, text_encoder=True)
    with base_model.session("fp32"), base_model.attached(spec, True) as adapters:
        adapters.initialise(1)
        of_text = adapters.parameters(of_text_encoder=True)
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-2)
        for _ in range(3):
            base_model.losses(samples(), [1, 2]).values.mean().backward()
            assert all(parameter.grad is not None for parameter in of_text)
            optimizer.step()
            optimizer.zero_grad()
        adapters.round_to(torch.float16)
        write_lora(path, to_state_dict(adapters.layers(), torch.float16), {})
        base_model.verify(path, len(adapters))
        with torch.no_grad():
            return base_model.losses(samples(), [1, 2]).errors, [*adapters.layers()]


def errors_through_nodes(model, clip) -> torch.Tensor:
    """Return the errors of a model and CLIP without adapters, with captions encoded as in a node."""
    base_model = ComfyUIBaseModel(model, clip, SimpleNamespace(first_stage_model=object()))
    encoded = []
    for sample in samples():
        with torch.inference_mode():
            cond = clip.encode_from_tokens_scheduled(clip.tokenize(sample.name), show_pbar=False)
        inputs = Inputs(sample.inputs.latents, (Caption("", lambda cond=cond: cond),))
        encoded.append(CachedExample(sample.name, "all", inputs))
    with base_model.session("fp32"), torch.no_grad():
        return base_model.losses(encoded, [1, 2]).errors


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha", "lokr"])
def test_what_is_loaded_is_what_was_trained(demo, tmp_path: Path, algorithm: str):
    model, clip, vae = demo
    before = errors_through_nodes(model, clip)
    weights = {name: weight.clone() for name, weight in clip.cond_stage_model.state_dict().items()}
    expected, keys = trained(ComfyUIBaseModel(model, clip, vae), tmp_path / "x.safetensors", algorithm)
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj") for key in keys)
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_mlp_fc1") for key in keys)

    tensors, _ = read_lora(tmp_path / "x.safetensors")
    loaded_model, loaded_clip = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    assert torch.allclose(errors_through_nodes(loaded_model, loaded_clip), expected, rtol=2e-3)
    # The text encoder's part alone has an effect.
    only_text = {key: tensor for key, tensor in tensors.items() if is_of_text_encoder(key)}
    _, text_clip = comfy.sd.load_lora_for_models(model, clip, only_text, 1.0, 1.0)
    assert not torch.allclose(errors_through_nodes(model, text_clip), before, rtol=1e-4)
    # The CLIP of the graph is unchanged.
    assert torch.equal(errors_through_nodes(model, clip), before)
    assert all(torch.equal(weight, clip.cond_stage_model.state_dict()[name]) for name, weight in weights.items())


def small_clip(dimension: int) -> dict:
    return {
        "hidden_size": dimension,
        "intermediate_size": 2 * dimension,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "eos_token_id": 49407,
        "vocab_size": 49408,
        "num_positions": 77,
    }


def filled(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.1
    return module


def live(cond_stage_model, tokenizer) -> LiveTextEncoder:
    device = torch.device("cpu")
    patcher = SimpleNamespace(load_device=device)
    return LiveTextEncoder(
        SimpleNamespace(cond_stage_model=cond_stage_model, patcher=patcher, layer_idx=None, tokenize=tokenizer)
    )


def gradients_of_text(text: LiveTextEncoder) -> dict[str, float]:
    """Return how much the encoding of a caption depends on each layer."""
    with torch.inference_mode(False), torch.enable_grad(), text.attached(SPEC.of_text_encoder, RowSeeds()) as layers:
        adapters = Adapters(layers)
        adapters.initialise(1)
        ((embedding, extra),) = text.encode("a cat")
        plain = embedding.detach().clone()
        total = embedding.square().sum() + (0 if extra["pooled_output"] is None else extra["pooled_output"].sum())
        total.backward()
        found = {key: layer.adapter.lora_B["default"].weight.grad for key, layer in layers.items()}
    with torch.no_grad():
        ((again, _),) = text.encode("a cat")
    assert torch.equal(again, plain)  # at step 0 and after detaching, the output equals the base model's
    return {key: 0.0 if grad is None else grad.abs().sum().item() for key, grad in found.items()}


T5 = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2}


@pytest.fixture
def clip_and_t5() -> LiveTextEncoder:
    """The text encoders of Flux.1, with small sizes."""
    with torch.inference_mode():
        options = {"clip_l_model_config": small_clip(32), "t5xxl_model_config": dict(T5)}
        clip = filled(comfy.text_encoders.flux.FluxClipModel(dtype=torch.float32, model_options=options))
    tokenizer = comfy.text_encoders.flux.FluxTokenizer()
    return live(clip, lambda text, **_: tokenizer.tokenize_with_weights(text, disable_weights=True))


def test_of_clip_and_t5_only_clip_is_trained(clip_and_t5):
    found = gradients_of_text(clip_and_t5)
    assert len(found) == 3 * 6
    assert all(key.startswith("lora_te1_text_model_encoder_layers_") for key in found)
    assert all(found.values())


def trained_text(text: LiveTextEncoder, steps: int = 3) -> tuple[list[torch.Tensor], dict[str, int]]:
    """Train on two captions; return all encodings and gradients, and how often each encoder was called."""
    seen, calls = [], {"clip_l": 0, "t5xxl": 0}

    def counted(name: str):
        def count(*_) -> None:
            calls[name] += 1

        return getattr(text._model, name).transformer.register_forward_hook(count)

    hooks = [counted(name) for name in calls]
    with torch.inference_mode(False), torch.enable_grad(), text.attached(SPEC.of_text_encoder, RowSeeds()) as layers:
        adapters = Adapters(layers)
        adapters.initialise(1)
        optimizer = torch.optim.SGD(adapters.parameters(), lr=1e-2)
        for _ in range(steps):
            for caption in CAPTIONS:
                ((embedding, extra),) = text.encode(caption)
                # Combine the outputs of T5 and CLIP, as a model does.
                (embedding.sum(-1) * extra["pooled_output"].sum()).square().sum().backward()
                seen += [embedding.clone(), extra["pooled_output"].detach().clone()]
            seen += [parameter.grad.clone() for parameter in adapters.parameters()]
            optimizer.step()
            optimizer.zero_grad()
    for hook in hooks:
        hook.remove()
    return seen, calls


def test_encoders_that_are_not_trained_compute_every_caption_once(clip_and_t5, monkeypatch):
    kept, calls = trained_text(clip_and_t5)
    assert calls == {"clip_l": 6, "t5xxl": 2}
    monkeypatch.setattr(text_training, "KEPT_BYTES", 0)
    anew, calls = trained_text(clip_and_t5)
    assert calls == {"clip_l": 6, "t5xxl": 6}
    assert all(torch.equal(one, other) for one, other in zip(kept, anew, strict=True))
    monkeypatch.setattr(text_training, "_remembered", lambda forward, device: forward)
    plain, _ = trained_text(clip_and_t5)
    assert all(torch.equal(one, other) for one, other in zip(kept, plain, strict=True))


def test_what_is_kept_of_captions_is_bounded(clip_and_t5, monkeypatch):
    monkeypatch.setattr(text_training, "KEPT_BYTES", 256 * T5["d_model"] * 4)  # one caption of the shortest length
    _, calls = trained_text(clip_and_t5)
    assert calls["t5xxl"] == 1 + 3


def test_nothing_is_kept_outside_of_training(clip_and_t5):
    trained_text(clip_and_t5)
    encoder = clip_and_t5._model.t5xxl
    assert "forward" not in vars(encoder)
    with torch.no_grad():
        filled_again = torch.randn_like(encoder.transformer.shared.weight)
        ((before, _),) = clip_and_t5.encode(CAPTIONS[0])
        encoder.transformer.shared.weight.data = filled_again
        ((after, _),) = clip_and_t5.encode(CAPTIONS[0])
    assert not torch.equal(before, after)


def test_a_language_model_is_refused():
    lone = torch.nn.ModuleDict({"qwen": torch.nn.ModuleDict({"transformer": torch.nn.Linear(2, 2)})})
    with pytest.raises(CrucibleError, match=r"not CLIP.*Turn train_text_encoder off"):
        naming.text_encoder_keys(lone)


def test_both_encoders_of_sdxl():
    with torch.inference_mode():
        options = {"clip_l_model_config": small_clip(32), "clip_g_model_config": small_clip(48)}
        clip = filled(comfy.sdxl_clip.SDXLClipModel(device="cpu", dtype=torch.float32, model_options=options))
    tokenizer = comfy.sdxl_clip.SDXLTokenizer()
    found = gradients_of_text(live(clip, lambda text, **_: tokenizer.tokenize_with_weights(text, disable_weights=True)))
    assert sum(key.startswith("lora_te1_text_model_encoder_layers_") for key in found) == 3 * 6
    assert sum(key.startswith("lora_te2_text_model_encoder_layers_") for key in found) == 3 * 6
    # SDXL does not use the last layer of CLIP-L.
    unused = {key for key, amount in found.items() if amount == 0}
    assert all(key.startswith("lora_te1_text_model_encoder_layers_2_") for key in unused)
