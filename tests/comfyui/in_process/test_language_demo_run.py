"""The demo of language models in the graph: what it teaches, heard in ComfyUI's Generate Text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import torch
from comfy_extras.nodes_textgen import TextGenerate
from lora_crucible.config import parse_config
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.demo.text import SETTINGS, held_out, unrelated_prompts
from lora_crucible.demo.text.showcase import LONGEST, Outcome
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui.language.demo import load_demo_clip
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from lora_crucible.training.resume import train_or_resume


@torch.inference_mode()
def test_new_words_are_learned_and_most_of_the_rest_is_kept(tmp_path: Path) -> None:
    clip = load_demo_clip()
    config = parse_config({**SETTINGS, "output_name": "demo", "measure": "always"})
    dataset = load_text_dataset(config)
    result = train_or_resume(ClipLanguageBaseModel(clip), dataset, config, tmp_path, tmp_path, Callbacks())
    _, patched = comfy.sd.load_lora_for_models(None, clip, dict(read_lora(result.files.lora)[0]), 0.0, 1.0)

    known = [one.prompt for one in held_out()]
    outcome = Outcome(
        _answers(clip, known),
        _answers(patched, known),
        _answers(clip, unrelated_prompts()),
        _answers(patched, unrelated_prompts()),
    )
    assert outcome.right_before == 0
    assert outcome.right >= 27, outcome.text()
    assert outcome.kept >= 20, outcome.text()
    assert "Verdict: FORGETS" in result.report


def _answers(clip: Any, prompts: Any) -> tuple[str, ...]:
    return tuple(TextGenerate.execute(clip, prompt, LONGEST, {"sampling_mode": "off"}).result[0] for prompt in prompts)
