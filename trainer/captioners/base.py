"""What every captioner can do, and how its files are opened."""

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
from .options import CaptionStyle

Check = Callable[[], None]
"""Called again and again while a model works; may raise to stop it."""

OPTIONAL_PACKAGES = ("torchvision", "timm", "num2words")
"""Packages that single models need and that are not among this project's requirements."""

SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")


class Captioner(ABC):
    """A model that writes captions, opened from a folder in the format of the Hugging Face hub.

    Making one reads nothing; `load` brings the weights to the CPU. Where they are moved from there is the
    caller's business: `module` is what has to be moved, and inputs follow it.
    """

    supported: ClassVar[str]
    """For people: the models that this kind opens."""
    writes_tags: ClassVar[bool] = False
    """Whether the texts are lists of tags, separated by commas."""
    needs_float32: ClassVar[bool] = False
    batch_size: ClassVar[int] = 8

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._module: Any = None

    @classmethod
    @abstractmethod
    def opens(cls, config: dict[str, Any]) -> bool:
        """Whether a model with this config.json is of this kind."""

    @abstractmethod
    def depends_on(self, style: CaptionStyle) -> tuple[Any, ...]:
        """Everything of a style that changes what this captioner writes."""

    @abstractmethod
    def caption(self, images: Sequence[Image.Image], style: CaptionStyle, check: Check = lambda: None) -> list[str]:
        """Writes a text for each RGB image, the same that the image would get alone.

        Args:
            check: called often; what it raises comes through.
        """

    @abstractmethod
    def _load(self, dtype: torch.dtype) -> Any:
        """Read the files; returns the model."""

    @property
    def module(self) -> torch.nn.Module:
        """The model, once it is loaded."""
        assert self._module is not None, "load() comes first"
        return self._module

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def load(self, dtype: torch.dtype) -> None:
        """Read the weights into main memory.

        Raises:
            CrucibleError: files are missing or damaged, or a package that the model needs.
        """
        with _loading(self.folder):
            self._module = self._load(torch.float32 if self.needs_float32 else dtype).eval()

    def unload(self) -> None:
        self._module = None


class TextCaptioner(Captioner):
    """A captioner that writes word by word."""

    most_tokens: ClassVar[int]
    """Where the model's positions end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.processor: Any = None

    def unload(self) -> None:
        super().unload()
        self.processor = None

    def new_tokens(self, style: CaptionStyle) -> int:
        return min(style.max_new_tokens, self.most_tokens)

    def generate(
        self, inputs: Any, style: CaptionStyle, check: Check, prompt_tokens: int, **settings: Any
    ) -> list[str]:
        """Writes without chance: the same inputs give the same texts.

        Args:
            inputs: what the processor made of the images.
            prompt_tokens: tokens at the start of every output that repeat the prompt.

        Returns:
            The texts, without special tokens. One that was cut off ends with its last whole sentence, or
            with its last whole word where there is none.
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
    """What to say when a captioner's weights do not fit on the device."""
    size = sum(weight.numel() * weight.element_size() for weight in captioner.module.parameters())
    return CrucibleError(
        f"The captioner {captioner.folder.name} takes {size / 1e9:.1f} GB, and the graphics card has not so much "
        "memory left, so nothing was captioned. Close other programs that use it, or choose a smaller captioner."
    )


def pretrained(dtype: torch.dtype | None = None, *, auto: bool = False) -> dict[str, Any]:
    """Arguments for transformers' `from_pretrained`: files of the folder alone, no pickle and no code among them.

    Args:
        dtype: of the weights; None for what has no weights.
        auto: for the Auto classes, which would otherwise ask at the console whether to run a folder's code.
    """
    import transformers

    arguments: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
        arguments |= {"use_safetensors": True, "dtype" if version >= (4, 56) else "torch_dtype": dtype}
    if auto:
        arguments["trust_remote_code"] = False
    return arguments


def _calling(check: Check) -> Any:
    """A stopping criterion that never stops, but gives `check` its turn after every token."""
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
    """Turns what transformers raises over a folder into errors that say what to do."""
    try:
        yield
    except CrucibleError:
        raise
    except ImportError as error:
        raise _missing_package(folder, error) from error
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError, SafetensorError and more
        import transformers

        raise CrucibleError(
            f"The captioner in {folder} cannot be loaded ({_first_line(error)}), so nothing was captioned. Its files "
            "are incomplete or damaged, or newer than the installed transformers "
            f"({transformers.__version__}). Delete the folder and fetch the model anew, or choose another captioner."
        ) from error


def _missing_package(folder: Path, error: ImportError) -> CrucibleError:
    missing = [name for name in OPTIONAL_PACKAGES if name in str(error).lower() and find_spec(name) is None]
    if not missing:
        return CrucibleError(
            f"The captioner in {folder} cannot be loaded: {_first_line(error)}. A package that it needs is missing or "
            "too old. Update transformers in the Python that runs here:\n  "
            f'"{sys.executable}" -m pip install -U transformers\nor choose another captioner.'
        )
    return CrucibleError(
        f"The captioner in {folder} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
        "installed in the Python that runs here. Install with:\n  "
        f'"{sys.executable}" -m pip install {" ".join(missing)}\nand start again, or choose another captioner.'
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
