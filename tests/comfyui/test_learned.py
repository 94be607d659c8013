"""A training with default settings learns the style, as seen in images drawn by ComfyUI's sampler."""

import numpy as np
import pytest
from lora_crucible.demo import DEMO_PROMPTS, TRIGGER_WORD
from lora_crucible.demo.style import style_score

pytestmark = pytest.mark.comfyui

SAMPLING = {"seed": 1, "steps": 12, "cfg": 4.0}
PICTURES_PER_PROMPT = 2
LEAST_LEARNED = 0.6
"""The least change of the style score, which is about 0 for the base model and about 1 for the dataset."""


@pytest.fixture(scope="module")
def scores(server, new_graph):
    """The mean style scores of the base model and the LoRA, with and without the trigger word in the prompts."""
    graph = new_graph()
    trained = graph.train("learned", base_settings={})
    kinds = {
        "base": (graph.model, graph.clip, ""),
        "base, triggered": (graph.model, graph.clip, f"{TRIGGER_WORD}, "),
        "lora": (trained["model"], trained["clip"], ""),
        "lora, triggered": (trained["model"], trained["clip"], f"{TRIGGER_WORD}, "),
    }
    for kind, (model, clip, beginning) in kinds.items():
        for number, prompt in enumerate(DEMO_PROMPTS):
            name = f"{kind} {number}"
            graph.draw(name, model, clip, beginning + prompt, PICTURES_PER_PROMPT, **SAMPLING)
    pictures = server.run(graph.prompt, seconds=1800).pictures
    of_kind = {
        kind: np.concatenate([pictures[f"{kind} {number}"] for number in range(len(DEMO_PROMPTS))]) for kind in kinds
    }
    return {kind: float(style_score(drawn / 255).mean()) for kind, drawn in of_kind.items()}


def test_trigger_word_calls_up_the_style(scores):
    assert scores["lora, triggered"] - scores["base, triggered"] >= LEAST_LEARNED, scores


def test_without_the_trigger_word_pictures_keep_their_style(scores):
    learned = scores["lora, triggered"] - scores["base, triggered"]
    assert abs(scores["lora"] - scores["base"]) <= learned / 2, scores
