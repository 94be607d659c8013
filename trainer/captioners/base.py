"""The interface that all captioners share, and the loading of their files."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from ..errors import CrucibleError
from ..messages.wording import first_line
from .options import CaptionStyle

Check = Callable[[], None]
"""A callback that is called repeatedly while a model works; it may raise to stop the model."""

OPTIONAL_PACKAGES = ("torchvision", "timm", "num2words")
"""Packages that only some captioners need and that this project does not require."""

SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")


class Captioner(ABC):
    """A model that writes captions, opened from a folder in the format of the Hugging Face hub.

    Creating a captioner reads no files; `load` reads the weights into main memory. The caller moves `module` to the
    device of its choice, and inputs are moved to the same device.
    """

    supported: ClassVar[str]
    """The models that this class opens, as shown in messages to the user."""
    writes_tags: ClassVar[bool] = False
    """Whether the texts are comma-separated lists of tags."""
    needs_float32: ClassVar[bool] = False
    """Whether the weights are loaded in float32, whatever dtype is requested."""
    batch_size: ClassVar[int] = 8
    """The number of images captioned together if the user sets none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._module: Any = None

    @classmethod
    @abstractmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        """Return whether this class can open a model with this config.json."""

    @abstractmethod
    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        """Return those values of a style that affect what this captioner writes."""

    @abstractmethod
    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        """Write a text for each RGB image, the same text that the image would get in a batch of its own.

        Args:
            check: a callback that is called often; exceptions that it raises are passed on.
        """

    @abstractmethod
    def _load(self, dtype: torch.dtype) -> Any:
        """Read the model's files and return the model."""

    @property
    def module(self) -> torch.nn.Module:
        """The loaded model."""
        assert self._module is not None, "load() must be called first"
        return self._module

    @property
    def device(self) -> torch.device:
        """The device that holds the model's weights."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        return next(self.module.parameters()).dtype

    def load(self, dtype: torch.dtype) -> None:
        """Read the weights into main memory.

        Raises:
            CrucibleError: files are missing or damaged, or a package that the model needs is missing.
        """
        with _loading(self.folder):
            self._module = self._load(torch.float32 if self.needs_float32 else dtype).eval()

    def unload(self) -> None:
        """Release the weights."""
        self._module = None


class TextCaptioner(Captioner):
    """A captioner that generates its text token by token."""

    most_tokens: ClassVar[int]
    """The most tokens that the model may generate for one text."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.processor: Any = None

    def unload(self) -> None:
        super().unload()
        self.processor = None

    def new_tokens(self, style: CaptionStyle) -> int:
        """Return the most tokens to generate for a text in this style."""
        return min(style.max_new_tokens, self.most_tokens)

    def generate(
        self, inputs: Any, style: CaptionStyle, check: Check, prompt_tokens: int, **settings: Any
    ) -> list[str]:
        """Generate texts without sampling, so that the same inputs always give the same texts.

        Args:
            inputs: the processor's output for the images.
            prompt_tokens: the number of tokens at the start of every output that repeat the prompt.

        Returns:
            The texts, without special tokens. A text that reached the token limit is cut back to its last complete
            sentence, or to its last complete word if it has no complete sentence.
        """
        new_tokens = self.new_tokens(style)
        sequences = self._module.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=new_tokens,
            stopping_criteria=_calling(check),
            **settings,
        )[:, prompt_tokens:]
        texts = self.processor.tokenizer.batch_decode(
            sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        ends = self._end_tokens(sequences.device)
        finished = torch.isin(sequences, ends).any(1).tolist()
        return [
            text.strip() if whole or len(row) < new_tokens else _without_loose_end(text.strip())
            for text, whole, row in zip(texts, finished, sequences, strict=True)
        ]

    def _end_tokens(self, device: torch.device) -> torch.Tensor:
        tokenizer, settings = self.processor.tokenizer, self._module.generation_config
        ids = [tokenizer.eos_token_id, tokenizer.sep_token_id]
        ids += settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        return torch.tensor([i for i in ids if i is not None], device=device)


def too_large(captioner: Captioner) -> CrucibleError:
    """Return the error for a captioner whose weights do not fit on the device."""
    size = sum(weight.numel() * weight.element_size() for weight in captioner.module.parameters())
    return CrucibleError(
        f"The captioner {captioner.folder.name} needs {size / 1e9:.1f} GB, but the graphics card does not have that "
        "much free memory, so nothing was captioned. Close other programs that use the graphics card, or choose a "
        "smaller captioner."
    )


def _calling(check: Check) -> Any:
    """Return a stopping criterion that never stops the generation but calls `check` after every token."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Calling(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            check()
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([Calling()])


def _without_loose_end(text: str) -> str:
    end = max(text.rfind(mark) for mark in SENTENCE_ENDS)
    if end > 0:
        return text[: end + 1]
    return text.rsplit(" ", 1)[0] if " " in text else text


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn the errors that transformers raises for a folder into errors that say what to do."""
    try:
        yield
    except CrucibleError:
        raise
    except ImportError as error:
        raise _missing_package(folder, error) from error
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError, SafetensorError and more
        import transformers

        raise CrucibleError(
            f"The captioner in {folder} cannot be loaded ({first_line(error)}), so nothing was captioned. Its files "
            "are incomplete or damaged, or need a newer transformers than the installed "
            f"{transformers.__version__}. Delete the folder and download the model again, or choose another captioner."
        ) from error


def _missing_package(folder: Path, error: ImportError) -> CrucibleError:
    missing = [name for name in OPTIONAL_PACKAGES if name in str(error).lower() and find_spec(name) is None]
    if not missing:
        return CrucibleError(
            f"The captioner in {folder} cannot be loaded: {first_line(error)}. A package that it needs is missing or "
            "too old. Update transformers in this Python with:\n  "
            f'"{sys.executable}" -m pip install -U transformers\nor choose another captioner.'
        )
    return CrucibleError(
        f"The captioner in {folder} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
        "installed in this Python. Install with:\n  "
        f'"{sys.executable}" -m pip install {" ".join(missing)}\nthen start again, or choose another captioner.'
    )
