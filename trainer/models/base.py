"""The frozen thing that an adapter is trained on."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapters import Adapters, AdapterSpec
from ..config import ModelFacts, ObjectiveSettings
from ..data.cache import TensorCache
from ..data.images.samples import Sample
from ..formats.architectures import Architecture
from ..formats.names import Place
from ..hardware.device_memory import available_memory, free_memory, is_out_of_memory

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""By the names that settings have for them."""


@dataclass(frozen=True)
class Precision:
    """`compute` is the dtype of activations and matrix products; adapters themselves are always float32."""

    compute: torch.dtype

    @property
    def name(self) -> str:
        return next(name for name, dtype in DTYPES.items() if dtype == self.compute)


@dataclass(frozen=True)
class Sampling:
    """How a sample is made. `seed` and the rest mean what they mean in ComfyUI's KSampler; `negative` is the negative
    prompt of all of them."""

    prompts: tuple[str, ...]
    width: int
    height: int
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    negative: str = ""


@dataclass(frozen=True)
class CachedExample:
    """A training sample as the base model wants it. `inputs` is the base model's own; `group` tells which samples
    can share a batch; `name` is what the user calls it; `size` is what it costs beside the others (its pixels)."""

    name: str
    group: Hashable
    inputs: Any
    size: int = 1


Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done); may raise to stop."""


@dataclass(frozen=True)
class RowLosses:
    """What the rows of a batch cost, each (rows,), float32.

    Attributes:
        values: with gradients to the adapters; weighted as they are trained.
        errors: without gradients; the plain mean squared error.
        timesteps: how much noise each row got, as a share of the schedule: 0 is none, 1 is nothing else.
    """

    values: Tensor
    errors: Tensor
    timesteps: Tensor

    @classmethod
    def joined(cls, parts: Sequence[RowLosses], order: Sequence[int]) -> RowLosses:
        """Of several batches, with row `order[i]` of all their rows, counted through, at place i."""

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors)[list(order)]

        return cls(
            join([one.values for one in parts]),
            join([one.errors for one in parts]),
            join([one.timesteps for one in parts]),
        )


class BaseModel(ABC):
    """One training run's view of a base model.

    Everything but the constructor, the identities and what is known of layers is called inside `session()`.
    """

    architecture: Architecture
    name: str
    native_resolution: int
    prediction_type: str

    @property
    def facts(self) -> ModelFacts:
        """What the choice of settings needs to know."""
        return ModelFacts(self.architecture.id, self.native_resolution, self.architecture.cfg, self.prediction_type)

    def warnings(self) -> tuple[str, ...]:
        """Sentences about what makes this model a doubtful one to train on; none for most."""
        return ()

    @abstractmethod
    def identity(self) -> str:
        """A hash of all weights (a fixed sample of each) and of everything patched onto them."""

    @abstractmethod
    def encoders_identity(self) -> str:
        """The same of what makes latents and embeddings: VAE and text encoders."""

    @abstractmethod
    def session(self, mixed_precision: str) -> AbstractContextManager[Precision]:
        """The conditions under which gradients flow: modes, devices, precision. Undone on exit, whatever happens."""

    @abstractmethod
    def prepare_losses(self, settings: ObjectiveSettings) -> dict[str, str]:
        """Say how `losses` are computed from now on; without this they are plain.

        Returns:
            what was chosen for settings that are the base model's to choose, with the reason.

        Raises:
            CrucibleError: settings that do not suit what the model predicts.
        """

    @abstractmethod
    def cache_inputs(
        self,
        samples: Sequence[Sample],
        cache: TensorCache,
        caption_dropout: float,
        progress: Progress,
        live_captions: bool = False,
    ) -> list[CachedExample]:
        """Run every image and caption that the cache does not hold through the frozen encoders, once.

        Args:
            caption_dropout: how often a sample is shown without its caption, 0 to 1.
            live_captions: leaves the captions as texts, because the text encoders are trained too.
        """

    @abstractmethod
    def prepare_sampling(self, samplings: Sequence[Sampling]) -> None:
        """Encode the prompts that `sample` will be given, while the text encoders are there.

        Raises:
            CrucibleError: this kind of base model has no such sampler.
        """

    @abstractmethod
    def release_encoders(self) -> None:
        """Give back the memory of what is not needed for training."""

    @abstractmethod
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> AbstractContextManager[Adapters]:
        """Put adapters on the layers; on exit the model is as it was found."""

    @abstractmethod
    def place_of(self, name: str) -> Place | None:
        """Where the layer is that a LoRA of any trainer has under this name; None where the name is not known."""

    @abstractmethod
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weight of each layer that can carry an adapter, of model and text encoders, by file key."""

    @abstractmethod
    def set_checkpointing(self, on: bool) -> None:
        """Switch gradient checkpointing while adapters are attached. The gradients stay the same."""

    @abstractmethod
    def weights_size(self) -> tuple[int, int]:
        """Bytes of the model that is trained, without adapters: in all, and of these on the device."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that the device or the host had no more memory."""
        return is_out_of_memory(error)

    def available_memory(self, device: torch.device) -> int:
        """Bytes of the device that adapters and training steps can have, with what they have already."""
        return available_memory(device)

    def free_memory(self) -> None:
        """Give back all memory that can be had again, after some was missing."""
        free_memory()

    def make_room(self, room: int | None, limit: int | None) -> None:
        """Say how the model is to be loaded from now on; for those that can leave parts of it to the host.

        Args:
            room: bytes of the device that stay free for a training step; None where that is not known yet.
            limit: bytes that room and weights may take together; None is all that there are.
        """
        return

    def offload_more(self) -> bool:
        """Leave more of the model to the host's memory, from the next losses on.

        Returns:
            False where no more can be left, or this kind of base model cannot do it.
        """
        return False

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A LoRA as the file of this architecture holds it, from kohya's form by the adapters' keys."""
        return dict(state_dict)

    @abstractmethod
    def losses(
        self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        """The loss of each row.

        Row i's random numbers come from seeds[i] alone, so its loss does not depend on the rest of the batch.

        Args:
            timesteps: of each row, as a share of the noise schedule, instead of drawn ones.
        """

    @abstractmethod
    def sample(self, sampling: Sampling) -> Tensor:
        """One picture per prompt with the adapters as they are: (prompts, height, width, 3) float32 in 0..1, CPU.

        Args:
            sampling: its prompts and sampler are among those that `prepare_sampling` was given.
        """

    @abstractmethod
    def verify(self, path: Path, layers: int) -> None:
        """Read a saved LoRA through this kind's own loader.

        Raises:
            CrucibleError: not every key of the file, or not every one of the `layers`, found its module.
        """


def weights_hash(parameters: Iterable[tuple[str, Tensor]], extra: Iterable[str] = ()) -> str:
    """A hash of names, shapes, dtypes and 64 evenly spaced bytes of each tensor; cheap even for 20 GB of weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        picks = [i * (flat.numel() - 1) // 63 for i in range(64)] if flat.numel() else []
        digest.update(flat[picks].cpu().numpy().tobytes())
    for text in extra:
        digest.update(text.encode())
    return digest.hexdigest()
