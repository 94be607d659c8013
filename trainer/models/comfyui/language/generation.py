"""Answers written by ComfyUI's own generation, so that samples are what Generate Text will give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.utils
from comfy.text_encoders import llama

from ...language.model import Answer
from .support import LanguageEncoder


def write(
    clip: Any,
    encoder: LanguageEncoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    seed: int | None,
    check_interrupt: Callable[[], None],
) -> list[Answer]:
    """Write an answer to each prompt, one after the other.

    Args:
        clip: the CLIP, in the modes in which ComfyUI runs nodes.
        encoder: its language model.
        prompts: the tokens of each prompt.
        max_new_tokens: the most tokens of an answer.
        seed: the seed of sampling at temperature 1; None takes the likeliest token each time.
        check_interrupt: a function called before each token; it may raise to stop.
    """
    settings = {
        "do_sample": seed is not None,
        "max_length": max_new_tokens,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": seed,
    }
    answers = []
    with _each_token(check_interrupt):
        for prompt in prompts:
            if encoder.writes:
                written = clip.generate(encoder.for_clip([[(token, 1.0) for token in prompt]]), **settings)
            else:
                written = _written_for(clip, encoder, prompt, settings)
            stopped = bool(written) and written[-1] in encoder.stop_tokens
            text = str(encoder.tokenizer.decode(written, skip_special_tokens=True))
            answers.append(Answer(text, tuple(written[: len(written) - stopped]), stopped))
    return answers


class _Generation(llama.BaseGenerate):
    """ComfyUI's generation for a model whose class comes without it.

    Args:
        model: the decoder.
    """

    def __init__(self, model: Any) -> None:
        self.model = model


def _written_for(clip: Any, encoder: LanguageEncoder, prompt: Sequence[int], settings: dict[str, Any]) -> list[int]:
    clip.load_model()
    device = clip.patcher.load_device
    with comfy.model_management.cuda_device_context(device):
        embeddings = encoder.module.process_tokens([list(prompt)], device)[0]
        generation = _Generation(encoder.transformer.model)
        return list(generation.generate(embeddings, stop_tokens=list(encoder.stop_tokens), **settings))


@contextmanager
def _each_token(check_interrupt: Callable[[], None]) -> Iterator[None]:
    """Call a function before each token that ComfyUI generates inside the context.

    It takes the place of the progress bars that ComfyUI would show for each answer, on the console and at the node.
    """

    def checked(steps: Iterable[int], **_: Any) -> Iterator[int]:
        for step in steps:
            check_interrupt()
            yield step

    bar, hook = llama.tqdm, comfy.utils.PROGRESS_BAR_HOOK
    llama.tqdm = checked
    comfy.utils.set_progress_bar_global_hook(None)
    try:
        yield
    finally:
        llama.tqdm = bar
        comfy.utils.set_progress_bar_global_hook(hook)
