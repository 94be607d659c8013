"""Algorithms and text encoders in a real ComfyUI: every way to use the file reproduces the trained model."""

import pytest
from server import largest_difference

pytestmark = pytest.mark.comfyui

TOLERANCE = 2
"""The largest difference allowed between two ways to draw the same image in float32, of 255."""

CASES = {
    "dora": {"algorithm": "dora", "train_text_encoder": True},
    "lokr": {"algorithm": "lokr", "learning_rate": 0.02, "target_modules": "linear_and_convolution"},
    "patterns": {"layer_patterns": "attn2.to_k rank=4 alpha=2\nattn2.to_v", "loraplus_ratio": 4.0},
}


@pytest.fixture(scope="module", params=CASES)
def pictures(request, server, new_graph):
    """The images by the way the LoRA was applied."""
    case = request.param
    graph = new_graph()
    trained = graph.train(case, **CASES[case])
    graph.draw("base", graph.model)
    graph.draw("trained", trained["model"], trained["clip"])
    socket = graph.lora(lora=trained["lora"])
    graph.draw("by socket", socket["model"], socket["clip"])
    graph.add("SaveImage", "samples", images=trained["samples"], filename_prefix="samples")
    drawn = dict(server.run(graph.prompt).pictures)

    graph = new_graph()
    by_core = graph.core_lora(f"{case}.safetensors")
    graph.draw("by LoraLoader", by_core["MODEL"], by_core["CLIP"])
    by_ours = graph.lora(lora_name=f"{case}.safetensors")
    graph.draw("by Load LoRA", by_ours["model"], by_ours["clip"])
    graph.draw_anew("base again", graph.model)
    return drawn | server.run(graph.prompt).pictures


def test_what_was_trained_is_what_every_loader_draws(pictures):
    trained = pictures["trained"]
    assert largest_difference(trained, pictures["base"]) > 10
    for way in ("by socket", "by LoraLoader", "by Load LoRA"):
        assert largest_difference(pictures[way], trained) == 0
    assert largest_difference(pictures["samples"][-1:], trained) <= TOLERANCE


def test_the_model_is_as_it_was(pictures):
    assert largest_difference(pictures["base again"], pictures["base"]) == 0
