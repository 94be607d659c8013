"""Rows are rendered to what Generate Text gives a model, for the templates and tokenizers that ComfyUI has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import torch
from comfy.text_encoders import anima, flux, hunyuan_image, krea2, lt, lumina2, ovis, qwen3vl, qwen35, z_image
from comfy_extras.nodes_textgen import TextGenerate
from lora_crucible.data.text.rendering import UnrenderableRow, has_conversations, prompt_tokens
from lora_crucible.data.text.rows import Turn
from lora_crucible.models.comfyui.language.demo import load_demo_clip
from lora_crucible.models.comfyui.language.renderer import ClipRenderer
from lora_crucible.models.comfyui.language.support import LanguageEncoder, language_encoder

IM_END = 151645
KINDS: dict[str, tuple[Callable[..., Any], str, tuple[int, ...], str, str]] = {
    "z-image": (z_image.ZImageTokenizer, "qwen3_4b", (151643, IM_END), "<|im_start|>user\n", "assistant\n"),
    "flux.2 klein": (flux.KleinTokenizer, "qwen3_4b", (151643, IM_END), "<|im_start|>user\n", "</think>\n\n"),
    "anima": (anima.AnimaTokenizer, "qwen3_06b", (151643, IM_END), "", ""),
    "qwen3 vl": (qwen3vl.tokenizer("qwen3vl_4b"), "qwen3vl_4b", (151643, IM_END), "<|im_start|>user\n", "</think>\n\n"),
    "krea 2": (krea2.Krea2Tokenizer, "qwen3vl_4b", (151643, IM_END), "<|im_start|>system\n", "</think>\n\n"),
    "qwen3.5": (qwen35.tokenizer(), "qwen35_2b", (151643, IM_END), "<|im_start|>user\n", "</think>\n"),
    "ovis": (ovis.OvisTokenizer, "qwen3_2b", (IM_END,), "<|im_start|>user\n", "<think>\n\n</think>\n\n"),
    "hunyuan image": (hunyuan_image.HunyuanImageTokenizer, "qwen25_7b", (IM_END,), "<|im_start|>system\n", ""),
    "gemma 3 4b": (lumina2.NTokenizer, "gemma3_4b", (1, 106), "", "model\n"),
    "gemma 3 12b": (lt.Gemma3_12BTokenizer, "", (106,), "", "model\n"),
}
"""ComfyUI's tokenizer, the name of its tokens, the tokens that end an answer, and what stands around a prompt.

Qwen3.5 has the vocabulary of Qwen3 VL here: its templates are what matters.
"""


class FakeClip:
    """A CLIP that keeps what it is to generate from."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.given: Any = None

    def tokenize(self, text: str, return_word_ids: bool = False, **settings: Any) -> Any:
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **settings)

    def generate(self, tokens: Any, **_: Any) -> list[int]:
        self.given = tokens
        return []

    def decode(self, tokens: Any) -> str:
        return ""


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """A small SentencePiece model, as Gemma's files contain one."""
    folder: Path = tmp_path_factory.mktemp("pieces")
    (folder / "text.txt").write_text("a red heart on a white background\nuser model system You are a helpful\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tiny"), vocab_size=300, pad_id=0, eos_id=1, bos_id=2,
        unk_id=3, hard_vocab_limit=False, byte_fallback=True, add_dummy_prefix=False, character_coverage=1.0,
        user_defined_symbols=["<start_of_turn>", "\n"], remove_extra_whitespaces=False, minloglevel=2,
        normalization_rule_name="identity",
    )  # fmt: skip
    return torch.frombuffer(bytearray((folder / "tiny.model").read_bytes()), dtype=torch.uint8)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, sentences: torch.Tensor) -> SimpleNamespace:
    make, name, stop, start, end = KINDS[request.param]
    others = {"spiece_model": sentences, "qwen35_2b_tokenizer_class": qwen3vl.Qwen3VLSDTokenizer}
    clip = FakeClip(make(tokenizer_data=others))
    tokenizer = getattr(clip.tokenizer, name) if name else clip.tokenizer
    encoder = LanguageEncoder(name, None, tokenizer, stop, True)
    return SimpleNamespace(
        name=request.param, clip=clip, encoder=encoder, renderer=ClipRenderer(clip, encoder), start=start, end=end
    )


def given(kind: SimpleNamespace, prompt: str) -> tuple[int, ...]:
    """Return the tokens that Generate Text gives a model for a prompt."""
    TextGenerate.execute(kind.clip, prompt, 8, {"sampling_mode": "off"})
    return tuple(token for part in kind.encoder.of_clip(kind.clip.given) for token, _ in part)


@pytest.mark.parametrize("prompt", ["red heart", "(a red heart:1.3) on a white background", "", "a\nred"])
def test_prompts_are_what_generate_text_gives(kind: SimpleNamespace, prompt: str):
    assert kind.renderer.prompt([Turn("user", prompt)]) == given(kind, prompt)


def test_answers_follow_and_alone_are_trained(kind: SimpleNamespace):
    answer = "a (red:1.2) \\(heart\\) on a white background"
    asked = kind.renderer.prompt([Turn("user", "red heart")])
    whole = kind.renderer.conversation([Turn("user", "red heart"), Turn("assistant", answer)])
    assert whole.tokens[: len(asked)] == asked
    assert whole.trained == (False,) * len(asked) + (True,) * (len(whole.tokens) - len(asked))
    assert whole.tokens[-1] == kind.renderer.stop_token == kind.encoder.stop_tokens[-1]
    assert kind.renderer.decode(whole.tokens[len(asked) : -1]) == answer
    if "gemma" not in kind.name:
        shown = kind.renderer.decode(asked)
        assert shown.startswith(kind.start)
        assert shown.endswith(kind.end)
    assert has_conversations(kind.renderer)
    assert prompt_tokens(kind.renderer, [Turn("user", "red heart")]) == asked


def test_texts_have_no_template(kind: SimpleNamespace):
    rendered = kind.renderer.text("a red heart")
    start = [2] if "gemma" in kind.name else []
    assert rendered.tokens[: len(start)] == tuple(start)
    assert kind.renderer.decode(rendered.tokens[len(start) : -1]) == "a red heart"
    assert rendered.tokens[-1] == kind.renderer.stop_token
    assert rendered.trained == (False, *[True] * (len(rendered.tokens) - 1))
    assert kind.renderer.text("").tokens[-1] == kind.renderer.stop_token


def test_prompts_are_trained_without_their_padding(kind: SimpleNamespace):
    renderer = ClipRenderer(kind.clip, kind.encoder, train_on_prompts=True)
    whole = renderer.conversation([Turn("user", "red heart"), Turn("assistant", "a red heart")])
    padded = next(place for place, token in enumerate(whole.tokens) if token != kind.encoder.tokenizer.pad_token)
    assert whole.trained == (False,) * (padded + 1) + (True,) * (len(whole.tokens) - padded - 1)
    assert (padded > 900) == (kind.name == "gemma 3 12b")


def test_what_generate_text_cannot_be_given_is_refused():
    with torch.inference_mode():
        clip = load_demo_clip()
    renderer = ClipRenderer(clip, language_encoder(clip))
    asked, answer = Turn("user", "red heart"), Turn("assistant", "a red heart on a white background")
    with pytest.raises(UnrenderableRow, match=r"has a system message, .* Put the text of the system message in front"):
        renderer.conversation([Turn("system", "be brief"), asked, answer])
    with pytest.raises(UnrenderableRow, match=r"has several turns, .* Make it a row with the last prompt"):
        renderer.conversation([asked, answer, asked, answer])
    clip.tokenize = lambda *_, **__: {"qwen3_4b": [[(1, 1.0), (torch.zeros(4), 1.0)]]}
    with pytest.raises(UnrenderableRow, match="textual inversion"):
        renderer.prompt([asked])
