"""The samples that a run draws to show what the adapter does: pictures or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """The settings of a round of samples. They mean what they mean in ComfyUI's KSampler; models that draw no pictures
    use the prompts and the seed.

    Attributes:
        prompts: one sample is drawn for each.
        width, height: the size of a picture in pixels.
        seed: the seed of every sample.
        negative: the negative prompt of all samples.
    """

    prompts: tuple[str, ...]
    width: int
    height: int
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    negative: str = ""


Samples = Tensor | tuple[str, ...]
"""A round of samples, one for each prompt: pictures (prompts, height, width, 3), float32 in 0..1 on the CPU; or
texts."""


class Previewer(ABC):
    """Draws samples with a base model and the adapters on it."""

    @abstractmethod
    def prepare(self, samplings: Sequence[Sampling]) -> None:
        """Encode the prompts that `draw` will be given, while the text encoders are loaded.

        Raises:
            CrucibleError: this kind of base model has no such sampler.
        """

    @abstractmethod
    def draw(self, sampling: Sampling) -> Samples:
        """Draw one sample for each prompt, with the adapters as they are.

        Args:
            sampling: settings that `prepare` was given, or whose prompts are among those.
        """
