import pytest
from lora_crucible.formats.adapter_keys import adapter_facts, is_adapter_key, layer_sizes, split_key


@pytest.mark.parametrize(
    ("key", "layer", "suffix"),
    [
        ("lora_unet_mid_block_attn1_to_q.lora_down.weight", "lora_unet_mid_block_attn1_to_q", "lora_down.weight"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "lora_te1_text_model_encoder_layers_0_mlp_fc1", "alpha"),
        ("unet.mid_block.attn1.processor.to_q_lora.up.weight", "unet.mid_block.attn1.processor.to_q", "lora.up.weight"),
        ("text_encoder.q_proj.lora_linear_layer.up.weight", "text_encoder.q_proj", "lora_linear_layer.up.weight"),
        ("transformer.blocks.0.to_q.lora_A.weight", "transformer.blocks.0.to_q", "lora_A.weight"),
        ("base_model.model.q_proj.lora_B.default.weight", "base_model.model.q_proj", "lora_B.default.weight"),
        ("blocks.0.attn.lora_A", "blocks.0.attn", "lora_A"),
        ("img_in.lora_B.bias", "img_in", "lora_B.bias"),
        ("unet.to_q.lora_magnitude_vector", "unet.to_q", "lora_magnitude_vector"),
        ("lycoris_down_blocks_0.lokr_w2_a", "lycoris_down_blocks_0", "lokr_w2_a"),
        ("diffusion_model.x_embedder.diff_b", "diffusion_model.x_embedder", "diff_b"),
        ("lora_unet_x.dora_scale", "lora_unet_x", "dora_scale"),
    ],
)
def test_layer_and_suffix(key, layer, suffix):
    assert split_key(key) == (layer, suffix)


@pytest.mark.parametrize("key", ["model.diffusion_model.out.2.weight", "decoder.snake.alpha", "emb_params", ""])
def test_keys_of_no_adapter(key):
    assert not is_adapter_key(key)


LORA = {"x.lora_down.weight": (4, 8), "x.lora_up.weight": (6, 4), "x.alpha": ()}


@pytest.mark.parametrize(
    ("shapes", "algorithms", "ranks", "size"),
    [
        (LORA, ("LoRA",), (4,), (6, 8)),
        ({**LORA, "x.dora_scale": (6, 1)}, ("DoRA",), (4,), (6, 8)),
        ({"x.lora_A.weight": (4, 8), "x.lora_B.weight": (6, 4)}, ("LoRA",), (4,), (6, 8)),
        ({"x_lora.down.weight": (4, 8), "x_lora.up.weight": (6, 4)}, ("LoRA",), (4,), (6, 8)),
        (
            {"x.lora_A.weight": (4, 8), "x.lora_B.weight": (6, 4), "x.lora_magnitude_vector": (6,)},
            ("DoRA",),
            (4,),
            (6, 8),
        ),
        (
            {"x.hada_w1_a": (6, 4), "x.hada_w1_b": (4, 8), "x.hada_w2_a": (6, 4), "x.hada_w2_b": (4, 8)},
            ("LoHa",),
            (4,),
            (6, 8),
        ),
        ({"x.lokr_w1": (2, 2), "x.lokr_w2_a": (3, 4), "x.lokr_w2_b": (4, 4)}, ("LoKr",), (4,), (6, 8)),
        ({"x.lokr_w1": (2, 2), "x.lokr_w2": (3, 4)}, ("LoKr",), (), (6, 8)),
        (
            {"x.a1.weight": (4, 8), "x.a2.weight": (8, 4), "x.b1.weight": (4, 8), "x.b2.weight": (6, 4)},
            ("GLoRA",),
            (4,),
            (None, None),
        ),
        ({"x.oft_blocks": (2, 3, 3)}, ("OFT",), (), (None, None)),
        ({"x.oft_blocks": (2, 2, 3, 3)}, ("BOFT",), (), (None, None)),
        ({"x.diff": (6, 8), "x.diff_b": (6,)}, ("full difference",), (), (6, 8)),
    ],
)
def test_what_shapes_tell(shapes, algorithms, ranks, size):
    facts = adapter_facts(shapes)
    assert (facts.algorithms, facts.ranks, facts.layers) == (algorithms, ranks, 1)
    assert layer_sizes(shapes) == {"x": size}


def test_the_most_frequent_comes_first():
    shapes = {f"{name}.lora_down.weight": (rank, 8) for name, rank in (("a", 32), ("b", 4), ("c", 4))}
    facts = adapter_facts({**shapes, "d.diff": (8, 8)}, [16.0, 2.0, 2.0])
    assert facts.algorithms == ("LoRA", "full difference")
    assert facts.ranks == (4, 32)
    assert facts.alphas == (2.0, 16.0)
    assert facts.layers == 4
