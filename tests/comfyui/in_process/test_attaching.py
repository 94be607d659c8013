"""Adapters leave ComfyUI's model unchanged and keep no references to its weights."""

from __future__ import annotations

import comfy.model_management
import comfy.ops
import comfy.sd
import models
import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.models.comfyui import adapted, attaching, frozen, memory
from lora_crucible.models.comfyui.model import ComfyUIBaseModel

SPEC = AdapterSpec(4, 4.0, 0.0, "linear_and_convolution")


def gradients(base_model, samples, precision="fp32", checkpointing=False):
    with base_model.session(precision), base_model.attached(SPEC, checkpointing) as adapters:
        adapters.initialise(seed=1)
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.add_(0.02)
        base_model.losses(samples, seeds=list(range(len(samples)))).values.sum().backward()
        assert all(parameter.dtype == torch.float32 for parameter in adapters.parameters())
        return torch.cat([parameter.grad.flatten() for parameter in adapters.parameters()])


@pytest.fixture
def model():
    return models.sdxl()


@pytest.fixture
def samples(model):
    return models.random_samples(model, 2, channels=4, context=models.SDXL_CONTEXT, pooled=models.SDXL_POOLED)


def test_no_cast_weight_is_needed_after_its_op(model, samples, monkeypatch):
    """With dynamic memory, a cast weight's memory may be reused as soon as the operation is done."""
    base_model = models.base_model(model)
    expected = gradients(base_model, samples)

    cast, uncast = comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight
    spoiled = 0

    def cast_copies(*args, **kwargs):
        weight, bias, stream = cast(*args, **kwargs)
        return weight.clone(), None if bias is None else bias.clone(), stream

    def uncast_and_spoil(layer, weight, bias, stream):
        nonlocal spoiled
        spoiled += 1
        for tensor in (weight, bias):
            if tensor is not None:
                tensor.fill_(float("nan"))
        uncast(layer, weight, bias, stream)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast_copies)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", uncast_and_spoil)
    for module in model.model.modules():
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            module.comfy_cast_weights = True
    assert torch.equal(gradients(base_model, samples), expected)
    assert spoiled > 200


def test_model_is_left_as_it_was_found(model, samples):
    weights = {name: (weight, weight.clone()) for name, weight in model.model.named_parameters()}
    forwards = {name: module.__dict__.get("forward") for name, module in model.model.named_modules()}
    gradients(models.base_model(model), samples, checkpointing=True)
    for name, module in model.model.named_modules():
        assert module.__dict__.get("forward") is forwards[name], name
    for name, weight in model.model.named_parameters():
        found, value = weights[name]
        assert weight is found
        assert torch.equal(weight, value)
        assert not weight.requires_grad
    assert comfy.model_management.in_training is False


def test_model_is_left_as_it_was_found_after_an_error(model, samples):
    base_model = models.base_model(model)
    with pytest.raises(KeyboardInterrupt), base_model.session("fp32"), base_model.attached(SPEC, True):
        raise KeyboardInterrupt
    assert not any("forward" in module.__dict__ for module in model.model.modules())
    assert comfy.model_management.in_training is False


def test_parameter_paths_stay_while_adapters_are_attached(model):
    before = list(model.model.state_dict())
    base_model = models.base_model(model)
    with base_model.session("fp32"), base_model.attached(SPEC, False):
        assert list(model.model.state_dict()) == before


def test_checkpointing_leaves_the_gradients_as_they_are(model, samples):
    base_model = models.base_model(model)
    plain, checkpointed = gradients(base_model, samples), gradients(base_model, samples, checkpointing=True)
    assert torch.allclose(plain, checkpointed, rtol=1e-4, atol=1e-6)


def test_checkpointed_blocks_are_those_of_the_unet(model, demo):
    blocks = attaching.checkpointed_blocks(model.model.diffusion_model)
    names = [type(block).__name__ for block in blocks]
    assert names.count("BasicTransformerBlock") == 2 * 1 + 2 * 2 + 2 + 3 * 1 + 3 * 2
    assert names.count("ResBlock") == 6 + 2 + 9
    assert set(names) == {"BasicTransformerBlock", "ResBlock", "Downsample", "Upsample"}


def test_weights_in_eight_bits_train_like_their_values(model, samples):
    """Models from fp8 checkpoints keep their weights in fp8 and cast them for each operation."""
    with torch.inference_mode():
        for module in model.model.modules():
            if isinstance(module, comfy.ops.disable_weight_init.Linear):
                module.weight.data = module.weight.data.to(torch.float8_e4m3fn).float()
    expected = gradients(models.base_model(model), samples)
    with torch.inference_mode():
        for module in model.model.modules():
            if isinstance(module, comfy.ops.disable_weight_init.Linear):
                module.weight.data = module.weight.data.to(torch.float8_e4m3fn)
                module.comfy_cast_weights = True
    assert torch.equal(gradients(models.base_model(model), samples), expected)


def test_bf16_is_near_fp32_and_is_undone(model, samples):
    base_model = models.base_model(model)
    exact = gradients(base_model, samples)
    rounded = gradients(base_model, samples, "bf16")
    assert 1e-5 < float((rounded - exact).norm() / exact.norm()) < 0.1
    assert torch.equal(gradients(base_model, samples), exact)


# Processors with matrix instructions for bfloat16 round sums differently from others, to about 2 %.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_a_layer_computes_what_peft_computes(model, samples, monkeypatch, precision, tolerance):
    base_model = models.base_model(model)
    computed = gradients(base_model, samples, precision)
    calls = 0

    def by_peft(layer, forward, adapter, compute):
        nonlocal calls
        calls += 1
        return adapted._computed_by_peft(adapter, compute)

    monkeypatch.setattr(attaching, "adapted", by_peft)
    expected = gradients(base_model, samples, precision)
    assert calls > 100
    assert float((computed - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pixels", [8, 24])
def test_large_convolutions_give_their_input_the_right_gradient(stride, pixels):
    """Convolutions with few pixels use a different computation on a CPU."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(512, 512, 3, stride=stride, padding=1).requires_grad_(False)
    x = torch.randn(2, 512, pixels, pixels).requires_grad_()
    output = layer(x)
    grad = torch.randn(output.shape)
    output.backward(grad)
    assert torch.allclose(frozen.input_gradient(layer, x.shape, grad), x.grad, atol=1e-3)


def test_a_lora_on_the_model_is_part_of_the_base(demo, dataset):
    """Training on a patched model uses the patched weights, and the model has a different identity."""
    model, clip, vae = demo
    plain = ComfyUIBaseModel(model, clip, vae)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    layer = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k
    lora = {
        f"{name}.lora_down.weight": torch.randn(1, layer.in_features),
        f"{name}.lora_up.weight": torch.randn(layer.out_features, 1),
        f"{name}.alpha": torch.tensor(1.0),
    }
    patched_model, _ = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    patched = ComfyUIBaseModel(patched_model, clip, vae)

    def loss(base_model):
        with base_model.session("fp32"):
            rows = models.encoded_samples(base_model, dataset)[:2]
            with base_model.attached(AdapterSpec(2, 2.0, 0.0, "attention"), False):
                return base_model.losses(rows, [1, 2]).errors

    first, identity = loss(plain), plain.identity()
    assert not torch.equal(loss(patched), first)
    assert patched.identity() != identity
    assert torch.equal(loss(plain), first)
    assert plain.identity() == identity


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha"])
def test_quantized_layers_train_like_their_values(algorithm):
    """Checkpoints with scaled fp8 weights use another layer class, whose weight is not a plain tensor."""
    torch.manual_seed(0)
    with torch.inference_mode():
        operations = comfy.ops.mixed_precision_ops({"mixed_ops": True}, torch.float32, full_precision_mm=True)
        quantized = operations.Linear(32, 16, bias=False, device="cpu", dtype=torch.float32)
        values = torch.randn(16, 32).to(torch.float8_e4m3fn)
        quantized.load_state_dict(
            {
                "weight": values,
                "weight_scale": torch.tensor(0.5),
                "comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8),
            }
        )
        plain = comfy.ops.disable_weight_init.Linear(32, 16, bias=False)
        plain.load_state_dict({"weight": values.float() * 0.5})

    def gradient(layer):
        model = torch.nn.ModuleDict({"attn": layer})
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        spec = AdapterSpec(2, 2.0, 0.0, "attention", algorithm)
        keys = {"attn": "lora_unet_attn"}
        without = attaching.Checkpointing(False)
        with attaching.attached(model, spec, keys, torch.device("cpu"), torch.float32, without, RowSeeds()) as layers:
            adapters = Adapters(layers)
            adapters.initialise(1)
            model["attn"](x).square().sum().backward()
            return torch.cat([x.grad.flatten(), *(parameter.grad.flatten() for parameter in adapters.parameters())])

    assert torch.allclose(gradient(quantized), gradient(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mode", "part"), [("NO_VRAM", 0.0), ("LOW_VRAM", 0.5)])
def test_a_model_that_is_not_or_partly_loaded_trains_the_same(model, samples, scarce, monkeypatch, mode, part):
    """Such layers fetch their weights for each operation and apply the patches of the base model then."""
    patched = model.clone()
    keys = [name for name in model.model.state_dict() if name.endswith(("to_q.weight", "proj_in.weight"))]
    patched.add_patches({name: ("diff", (torch.full_like(model.model.state_dict()[name], 0.05),)) for name in keys})
    base_model = models.base_model(patched)
    expected, identity = gradients(base_model, samples), base_model.identity()
    assert not torch.allclose(gradients(models.base_model(model), samples), expected, rtol=0.1)

    size = patched.model_size()
    scarce(mode, int(size * part))
    monkeypatch.setattr(memory, "guessed_room", lambda *_: 0)
    loaded = []
    load = memory.load

    def noted(patcher, *values):
        load(patcher, *values)
        loaded.append(patcher.loaded_size() / size)

    monkeypatch.setattr(memory, "load", noted)
    assert torch.allclose(gradients(base_model, samples), expected, rtol=1e-4, atol=1e-6)
    assert loaded == [pytest.approx(part, abs=0.1)]
    assert base_model.identity() == identity
    assert not any(getattr(module, "weight_function", []) for module in model.model.modules())
