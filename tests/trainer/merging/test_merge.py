from __future__ import annotations

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.delta import delta_weight, rank_of
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, DOWN, MIDDLE, UP, lora_layer
from lora_crucible.formats.universal import Layers
from lora_crucible.merging.merge import CPU, Ingredient, JointLayer, merge
from lora_crucible.merging.recipe import METHODS, Recipe
from lora_crucible.seeding import derived_seed
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils
from torch import nn

LAYER, OTHER, CONV, CLIP = "lora_unet_a", "lora_unet_b", "lora_unet_conv", "lora_te_text_model_encoder_layers_0_mlp_fc1"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lora(out=12, inputs=(10,), rank=3, alpha=1.5):
    return lora_layer(torch.randn(rank, *inputs), torch.randn(out, rank, *[1] * (len(inputs) - 1)), alpha)


def ingredient(name, strength=1.0, clip=None, **layers):
    return Ingredient(name, Layers(layers), strength, strength if clip is None else clip, digest=name)


def assert_is(merged, key, expected):
    torch.testing.assert_close(delta_weight(merged.lora.layers[key]), expected, **CLOSE)


def test_linear_does_what_both_do_one_after_the_other():
    a = {LAYER: lora(rank=3), CONV: lora(8, (4, 3, 3), rank=2), CLIP: lora()}
    b = {LAYER: lora(rank=5, alpha=5.0), OTHER: lora(), CONV: lora(8, (4, 3, 3), rank=1), CLIP: lora()}
    merged = merge([ingredient("a", 0.7, 0.3, **a), ingredient("b", -0.5, 0.0, **b)], Recipe())
    assert_is(merged, LAYER, 0.7 * delta_weight(a[LAYER]) - 0.5 * delta_weight(b[LAYER]))
    assert_is(merged, CONV, 0.7 * delta_weight(a[CONV]) - 0.5 * delta_weight(b[CONV]))
    assert_is(merged, OTHER, -0.5 * delta_weight(b[OTHER]))
    assert_is(merged, CLIP, 0.3 * delta_weight(a[CLIP]))
    assert rank_of(merged.lora.layers[LAYER]) == 8
    assert merged.errors == {}
    assert merged.total_error == 0


def test_a_higher_rank_than_the_matrix_has_is_not_needed():
    a, b = {LAYER: lora(6, (5,), rank=4)}, {LAYER: lora(6, (5,), rank=4)}
    merged = merge([ingredient("a", **a), ingredient("b", **b)], Recipe())
    assert rank_of(merged.lora.layers[LAYER]) == 5
    assert_is(merged, LAYER, delta_weight(a[LAYER]) + delta_weight(b[LAYER]))


def test_a_given_rank_is_the_best_approximation_and_its_error_is_told():
    a, b = {LAYER: lora(rank=3)}, {LAYER: lora(rank=3)}
    merged = merge([ingredient("a", **a), ingredient("b", **b)], Recipe(rank=2))
    whole = delta_weight(a[LAYER]) + delta_weight(b[LAYER])
    values = torch.linalg.svdvals(whole)
    lost = torch.linalg.vector_norm(whole - delta_weight(merged.lora.layers[LAYER]))
    assert rank_of(merged.lora.layers[LAYER]) == 2
    assert lost.item() == pytest.approx(values[2:].square().sum().sqrt().item(), rel=1e-4)
    assert merged.errors[LAYER] == pytest.approx((lost / torch.linalg.vector_norm(whole)).item(), rel=1e-4)
    assert merged.total_error == pytest.approx(merged.errors[LAYER], rel=1e-6)


PEFT_METHODS = {
    "linear": "svd",
    "ties": "ties_svd",
    "dare_linear": "dare_linear_svd",
    "dare_ties": "dare_ties_svd",
    "magnitude_prune": "magnitude_prune_svd",
}


def seeded(function):
    def from_a_seed(*args):
        torch.manual_seed(derived_seed(0, LAYER))
        return function(*args)

    return from_a_seed


@pytest.mark.parametrize("majority_sign", ["total", "frequency"])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_pefts(method, majority_sign, monkeypatch):
    names, strengths = ("a", "b", "c"), (0.7, 0.5, 0.2)
    config = LoraConfig(r=4, lora_alpha=2, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(nn.Linear(10, 12, bias=False)), config, adapter_name="a")
    for name in names[1:]:
        model.add_adapter(name, config)
    layer = model.base_model.model[0]
    loras = {name: lora_layer(layer.lora_A[name].weight, layer.lora_B[name].weight, 2.0) for name in names}
    for dare in ("dare_linear", "dare_ties"):  # with the same seed, they drop the same values
        monkeypatch.setattr(f"peft.tuners.lora.model.{dare}", seeded(getattr(merge_utils, dare)))
    model.add_weighted_adapter(
        list(names),
        list(strengths),
        "merged",
        PEFT_METHODS[method],
        10,
        density=0.6,
        majority_sign_method=majority_sign,
    )
    merged = merge(
        [ingredient(name, strength, **{LAYER: loras[name]}) for name, strength in zip(names, strengths, strict=True)],
        Recipe(method, rank=10, density=0.6, majority_sign=majority_sign),
    )
    with torch.no_grad():
        peft = layer.lora_B["merged"].weight @ layer.lora_A["merged"].weight
    torch.testing.assert_close(delta_weight(merged.lora.layers[LAYER]).detach(), peft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_loras_does_not_matter(method):
    a, b, c = ({LAYER: lora(rank=rank), CLIP: lora()} for rank in (2, 3, 4))
    stack = [ingredient("a", 0.7, **a), ingredient("b", 0.5, **b), ingredient("c", -0.2, **c)]
    one, other = (merge(order, Recipe(method)).lora.layers for order in (stack, stack[::-1]))
    for key in one:
        for suffix in one[key]:
            assert one[key][suffix].equal(other[key][suffix])


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_strength_takes_away(method):
    a = {LAYER: lora(12, (10,), rank=10)}
    merged = merge([ingredient("a", -0.5, **a)], Recipe(method, density=1.0))
    assert_is(merged, LAYER, -0.5 * delta_weight(a[LAYER]))


def loha():
    return {
        ".hada_w1_a": torch.randn(12, 2),
        ".hada_w1_b": torch.randn(2, 10),
        ".hada_w2_a": torch.randn(12, 2),
        ".hada_w2_b": torch.randn(2, 10),
        ALPHA: torch.tensor(1.0),
    }


def lokr():
    return {".lokr_w1": torch.randn(3, 2), ".lokr_w2": torch.randn(4, 5)}


def tucker():
    return {DOWN: torch.randn(3, 5, 1, 1), MIDDLE: torch.randn(3, 3, 3, 3), UP: torch.randn(8, 3, 1, 1)}


def test_other_algorithms_are_expanded_first():
    a = {LAYER: loha(), OTHER: lokr(), CONV: tucker()}
    b = {LAYER: lora(), OTHER: {".diff": torch.randn(12, 10)}, CONV: lora(8, (5, 3, 3))}
    merged = merge([ingredient("a", 0.7, **a), ingredient("b", 0.5, **b)], Recipe())
    for key in (LAYER, OTHER, CONV):
        assert_is(merged, key, 0.7 * delta_weight(a[key]) + 0.5 * delta_weight(b[key]))
        assert {DOWN, UP, ALPHA} == merged.lora.layers[key].keys()


def test_biases_and_norms_are_added_up():
    a = {LAYER: {".w_norm": torch.randn(6), ".b_norm": torch.randn(6)}, OTHER: {**lora(), ".diff_b": torch.randn(12)}}
    b = {LAYER: {".w_norm": torch.randn(6), ".b_norm": torch.randn(6)}, OTHER: lora()}
    merged = merge([ingredient("a", 0.7, **a), ingredient("b", 0.5, **b)], Recipe()).lora.layers
    torch.testing.assert_close(merged[LAYER][".diff"], 0.7 * a[LAYER][".w_norm"] + 0.5 * b[LAYER][".w_norm"])
    torch.testing.assert_close(merged[LAYER][".diff_b"], 0.7 * a[LAYER][".b_norm"] + 0.5 * b[LAYER][".b_norm"])
    torch.testing.assert_close(merged[OTHER][".diff_b"], 0.7 * a[OTHER][".diff_b"])
    torch.testing.assert_close(
        delta_weight(merged[OTHER]), 0.7 * delta_weight(a[OTHER]) + 0.5 * delta_weight(b[OTHER]), **CLOSE
    )


def test_dora_needs_the_base_model():
    weight = torch.randn(12, 10)
    a = {LAYER: lora() | {DORA_SCALE: torch.rand(12, 1) + 0.5}}
    with pytest.raises(CrucibleError, match=r"mine at lora_unet_a is a DoRA.*there is none\. Connect `model`"):
        merge([ingredient("mine", 0.7, **a)], Recipe())
    merged = merge([ingredient("mine", 0.7, **a)], Recipe(), base_weight={LAYER: weight}.get)
    assert_is(merged, LAYER, 0.7 * delta_weight(a[LAYER], weight))


def test_loras_of_different_models():
    a, b = {LAYER: lora(12, (10,))}, {LAYER: lora(12, (20,))}
    for method in METHODS:
        with pytest.raises(CrucibleError, match=r"a and b are for different base models: .*12 x 10 .*12 x 20"):
            merge([ingredient("a", **a), ingredient("b", **b)], Recipe(method))


def test_a_device_without_memory_for_a_layer(monkeypatch):
    a, b = {LAYER: lora()}, {LAYER: lora()}
    stack = [ingredient("a", 0.7, **a), ingredient("b", 0.5, **b)]
    expected = merge(stack, Recipe("ties")).lora.layers[LAYER]
    as_lora, tried = JointLayer.as_lora, []

    def lacking(layer, device=CPU):
        tried.append(device.type)
        if device != CPU:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return as_lora(layer, device)

    monkeypatch.setattr(JointLayer, "as_lora", lacking)
    found = merge(stack, Recipe("ties"), device=torch.device("meta")).lora.layers[LAYER]
    assert tried == ["meta", "cpu"]
    assert all(found[suffix].equal(tensor) for suffix, tensor in expected.items())


def test_nothing_to_merge():
    for stack in ([], [ingredient("a", 0.0, **{LAYER: lora()})]):
        with pytest.raises(CrucibleError, match="no LoRA to merge"):
            merge(stack, Recipe())


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_that_is_none(density):
    with pytest.raises(CrucibleError, match=f"density is {density}"):
        merge([ingredient("a", **{LAYER: lora()})], Recipe("ties", density=density))
