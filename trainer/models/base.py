"""The frozen model that an adapter is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..adapters.adapters import Adapters
from ..adapters.spec import AdapterSpec
from ..config import ModelFacts, ObjectiveSettings
from ..data.cache import TensorCache
from ..formats.architectures import Architecture
from ..formats.names import Place
from ..optim.engine import Engine
from .examples import CachedExample, Progress, RowLosses
from .memory_controls import MemoryControls
from .previews import Previewer


class BaseModel(ABC):
    """One training run's view of a base model.

    Everything but the constructor, the identities and the names of layers is used inside `session()` only.

    Attributes:
        name: what the user calls the model.
        architecture: the format of its LoRA files.
        facts: what the choice of settings needs to know of it.
        memory: how it can be made to need less memory.
        previewer: draws its samples.
        measured_timesteps: the shares of the noise schedule at which `losses` of fixed examples are measured.
    """

    measured_timesteps: tuple[float, ...] = (0.0,)
    name: str
    architecture: Architecture
    memory: MemoryControls
    previewer: Previewer

    @property
    @abstractmethod
    def facts(self) -> ModelFacts: ...

    def warnings(self) -> tuple[str, ...]:
        """Return sentences about what makes this model a doubtful choice to train on; most models have none."""
        return ()

    @abstractmethod
    def identity(self) -> str:
        """Return a hash of all weights (a fixed sample of each) and of everything patched onto them."""

    def encoders_identity(self) -> str:
        """Return a hash of the encoders that turn examples into inputs; empty for a model without any."""
        return ""

    @abstractmethod
    def session(self, mixed_precision: str) -> AbstractContextManager[Engine]:
        """Open the context in which gradients flow, with modes, devices and precision set; it undoes all of them.

        Args:
            mixed_precision: fp32, fp16, bf16 or auto.

        Yields:
            The engine that trains adapters on this model.
        """

    def prepare_losses(self, settings: ObjectiveSettings) -> dict[str, str]:
        """Set how `losses` are computed from now on; until then they are plain.

        Returns:
            What the base model chose for settings that are its to choose, with the reasons, by the settings' names.

        Raises:
            CrucibleError: settings that do not suit what the model predicts.
        """
        return {}

    @abstractmethod
    def cache_inputs(
        self,
        examples: Sequence[Any],
        cache: TensorCache,
        caption_dropout: float,
        encode_captions: bool,
        progress: Progress,
    ) -> list[CachedExample]:
        """Run all examples that the cache does not hold through the frozen encoders, once.

        Args:
            examples: examples of a dataset that this kind of base model is trained on.
            caption_dropout: how often an example is shown without its caption, 0 to 1.
            encode_captions: whether captions are encoded too; not if the text encoders are trained.

        Returns:
            The examples in the same order.
        """

    def release_encoders(self) -> None:
        """Release the memory of what only `cache_inputs` needs."""
        return

    @abstractmethod
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> AbstractContextManager[Adapters]:
        """Put adapters on layers inside the context; on exit the model is as it was found."""

    @abstractmethod
    def losses(
        self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        """Compute the loss of each row.

        Row i's random numbers come from seeds[i] alone, so its loss does not depend on the rest of the batch.

        Args:
            timesteps: each row's share of the noise schedule, to be used instead of a random one.
        """

    def place_of(self, name: str) -> Place | None:
        """Return the layer that a LoRA file of any trainer means by a name; None for an unknown name."""
        return None

    @abstractmethod
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of the weight of each layer that can carry an adapter, by the layer's key in a file.

        Layers of text encoders are among them.
        """

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a LoRA from kohya's format, with the adapters' keys, to the file format of this architecture."""
        return dict(state_dict)

    @abstractmethod
    def verify(self, path: Path, layers: int) -> None:
        """Read a saved LoRA through the loader for this kind of base model.

        Args:
            path: the LoRA file.
            layers: how many layers were saved.

        Raises:
            CrucibleError: a key of the file, or one of the layers, did not find its module.
        """
