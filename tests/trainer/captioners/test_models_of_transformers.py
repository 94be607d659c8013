"""Tests of the captioners with transformers' real classes; their texts do not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny_captioners as tiny
import torch
from lora_crucible.captioners.base import Captioner
from lora_crucible.captioners.options import CaptionStyle
from lora_crucible.captioners.registry import open_captioner

MAKERS = {
    "florence": (tiny.florence, ()),
    "blip": (tiny.blip, ()),
    "idefics3": (tiny.idefics3, ()),
    "smolvlm": (tiny.smolvlm, ("torchvision", "num2words")),
    "qwen2_vl": (partial(tiny.qwen, name="Qwen2VL"), ("torchvision",)),
    "qwen2_5_vl": (partial(tiny.qwen, name="Qwen2_5_VL"), ("torchvision",)),
    "qwen3_vl": (partial(tiny.qwen, name="Qwen3VL"), ("torchvision",)),
    "tagger": (tiny.tagger, ("timm",)),
}
CHAT = ("idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
STYLE = CaptionStyle(max_length=4, general_threshold=0.0, character_threshold=0.0)
PICTURES = [tiny.picture(1), tiny.picture(2, (40, 56)), tiny.picture(3, (24, 24))]

Opener = Callable[[str], Captioner]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        make, packages = MAKERS[kind]
        for package in packages:
            pytest.importorskip(package)
        if kind not in made:
            made[kind] = make(tmp_path_factory.mktemp("captioners") / kind)
        return made[kind]

    return folder


@pytest.fixture
def opened(folders: Callable[[str], Path]) -> Opener:
    def open_loaded(kind: str) -> Captioner:
        captioner = open_captioner(folders(kind))
        captioner.load(torch.float32)
        return captioner

    return open_loaded


@pytest.mark.parametrize("kind", MAKERS)
def test_a_batch_is_captioned_as_each_image_alone(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    together = captioner.caption(PICTURES, STYLE)
    alone = [captioner.caption([picture], STYLE)[0] for picture in PICTURES]
    assert together == alone
    assert len(set(together)) > 1
    assert all(text == text.strip() and "<" not in text for text in together)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_image_gets_the_same_text(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    assert captioner.caption(PICTURES[:1], STYLE) == captioner.caption(PICTURES[:1], STYLE)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_captioner_can_be_stopped_while_it_writes(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        captioner.caption(PICTURES, CaptionStyle(max_length=200), check)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", MAKERS)
def test_the_memory_can_be_given_back(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    captioner.unload()
    with pytest.raises(AssertionError):
        _ = captioner.module


@pytest.mark.parametrize("kind", ["florence", "blip", "idefics3"])
def test_weights_and_inputs_have_the_dtype_that_was_asked_for(folders: Callable[[str], Path], kind: str) -> None:
    captioner = open_captioner(folders(kind))
    captioner.load(torch.bfloat16)
    assert captioner.dtype == torch.bfloat16
    assert len(captioner.caption(PICTURES, STYLE)) == 3


@pytest.mark.parametrize("kind", CHAT)
def test_the_instruction_reaches_chat_models(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    texts = {
        captioner.caption(PICTURES[:1], CaptionStyle(instruction=instruction, max_length=4))[0]
        for instruction in ("word1 word2 word3", "word30 picture word31", "word8")
    }
    assert len(texts) > 1


@pytest.mark.parametrize("kind", CHAT)
def test_chat_models_are_padded_on_the_left(opened: Opener, kind: str) -> None:
    """With padding on the right, shorter prompts would be continued after the padding."""
    assert opened(kind).processor.tokenizer.padding_side == "left"


def test_florence_tells_its_levels_of_detail_apart(opened: Opener) -> None:
    captioner = opened("florence")
    prompts = []
    process = captioner.processor

    def recording(text: list[str], **inputs: object) -> object:
        prompts.append(text)
        return process(text=text, **inputs)

    recording.tokenizer = process.tokenizer
    captioner.processor = recording
    for detail in ("short", "detailed", "more detailed"):
        captioner.caption(PICTURES[:2], CaptionStyle(detail=detail, max_length=1))
    assert prompts == [["<CAPTION>"] * 2, ["<DETAILED_CAPTION>"] * 2, ["<MORE_DETAILED_CAPTION>"] * 2]


@pytest.mark.parametrize("kind", ["florence", "blip"])
def test_a_length_beyond_what_the_model_can_write_is_no_error(opened: Opener, kind: str) -> None:
    captioner = opened(kind)
    assert captioner.caption(PICTURES[:1], CaptionStyle(max_length=1000, detail="more detailed"))
