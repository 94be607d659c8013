"""The demo language model, as ComfyUI's nodes use it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from comfy_extras.nodes_textgen import TextGenerate
from lora_crucible.demo.text import model_folder
from lora_crucible.demo.text.showcase import answers
from lora_crucible.demo.text.world import exchanges
from lora_crucible.models.comfyui.language.demo import load_demo_clip
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def clip() -> Any:
    with torch.inference_mode():
        return load_demo_clip()


def written(clip: Any, prompt: str) -> str:
    with torch.inference_mode():
        return TextGenerate.execute(clip, prompt, 48, {"sampling_mode": "off"}).result[0]


def test_generate_text_answers_as_the_folder_does(clip):
    asked = exchanges(Random(3), 12)
    model = AutoModelForCausalLM.from_pretrained(model_folder()).float().eval()
    of_folder = answers(AutoTokenizer.from_pretrained(model_folder()), model, [one.prompt for one in asked])
    assert tuple(written(clip, one.prompt) for one in asked) == of_folder
    assert written(clip, "red heart") == "a red heart on a white background"


def test_it_can_condition_pictures_and_be_loaded_again(clip):
    with torch.inference_mode():
        (conditioning, _), *more = clip.encode_from_tokens_scheduled(clip.tokenize("red heart"))
    assert not more
    assert conditioning.shape[0] == 1
    assert conditioning.shape[2] == 128
    again = clip.patcher.clone(disable_dynamic=True)
    assert not again.is_dynamic()
    assert again.model.state_dict().keys() == clip.cond_stage_model.state_dict().keys()
