"""The samples that a run draws to show what the adapter does: images or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import CrucibleError


@dataclass(frozen=True)
class Sampling:
    """The settings of a round of samples, with the same meaning as in ComfyUI's KSampler.

    Models that write texts only use the prompts and `max_new_tokens`, and take the likeliest token each time.

    Attributes:
        prompts: the prompts, for each of which one sample is drawn.
        width, height: the size of an image in pixels.
        seed: the seed of every sample.
        steps: the number of sampling steps.
        cfg: the scale of classifier-free guidance.
        sampler: the name of the sampler.
        scheduler: the name of the scheduler.
        negative: the negative prompt of all samples.
        max_new_tokens: the most tokens of a text.
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
    max_new_tokens: int = 128


Samples = Tensor | tuple[str, ...]
"""A round of samples, one per prompt: images as a float32 tensor (prompts, height, width, 3) in 0..1 on the CPU, or
texts."""


class Previewer(ABC):
    """Draws samples with a base model and the adapters on it."""

    @property
    def samplers(self) -> Sequence[str]:
        """The names of the samplers; empty if the model samples without one."""
        return ()

    @property
    def schedulers(self) -> Sequence[str]:
        """The names of the schedulers that space the noise levels; empty if every name is accepted."""
        return ()

    def require(self, sampling: Sampling) -> None:
        """Check that samples can be drawn with these settings.

        Raises:
            CrucibleError: this kind of base model does not have the sampler or the scheduler.
        """
        for key, name, known in (
            ("sample_sampler", sampling.sampler, self.samplers),
            ("sample_scheduler", sampling.scheduler, self.schedulers),
        ):
            if known and name not in known:
                raise CrucibleError(
                    f"{key} is {name!r}, which is not available here, so no samples could be drawn. Choose one of "
                    f"these: {', '.join(known)}."
                )

    @abstractmethod
    def prepare(self, samplings: Sequence[Sampling]) -> None:
        """Encode the prompts that will be passed to `draw`, while the text encoders are loaded."""

    @abstractmethod
    def draw(self, sampling: Sampling) -> Samples:
        """Draw one sample for each prompt, with the adapters as they are.

        Args:
            sampling: settings whose prompts were passed to `prepare`.
        """
