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
from ..config import ModelFacts, ObjectiveSettings, ResolvedConfig
from ..data.base import Dataset
from ..data.cache import TensorCache
from ..formats.architectures import Architecture
from ..formats.names import Place
from ..optim.engine import Engine
from .examples import CachedExample, Progress, RowLosses
from .memory_controls import MemoryControls
from .previews import Previewer


class BaseModel(ABC):
    """A base model as a training run uses it.

    Only the constructor, the identities and the names of layers may be used outside `session()`.

    Attributes:
        name: the name of the model in messages to the user.
        architecture: the architecture, which decides the format of LoRA files.
        memory: the controls that make the model need less memory.
        previewer: the previewer that draws samples.
        measured_timesteps: the shares of the noise schedule at which `losses` of fixed examples are measured.
    """

    measured_timesteps: tuple[float, ...] = (0.0,)
    name: str
    architecture: Architecture
    memory: MemoryControls
    previewer: Previewer

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """The facts about the model that automatic settings depend on."""

    def warnings(self) -> tuple[str, ...]:
        """Return sentences about why this model may be a bad choice to train on; empty for most models."""
        return ()

    @abstractmethod
    def identity(self) -> str:
        """Return a hash of all weights (a fixed sample of each) and of everything patched onto them."""

    def prepare_dataset(self, dataset: Dataset) -> Dataset:
        """Return the dataset in the form that this model trains on.

        Raises:
            CrucibleError: this kind of model cannot be trained on this kind of dataset.
        """
        return dataset

    def encoders_identity(self) -> str:
        """Return a hash of the encoders that turn examples into inputs, or "" for a model without encoders."""
        return ""

    @abstractmethod
    def session(self, mixed_precision: str) -> AbstractContextManager[Engine]:
        """Prepare the model for training inside the context: gradients, modes, devices and precision.

        On exit, everything is restored.

        Args:
            mixed_precision: fp32, fp16, bf16 or auto.

        Yields:
            The engine that trains adapters on this model.
        """

    def prepare_losses(self, settings: ObjectiveSettings) -> dict[str, str]:
        """Set how `losses` computes losses from now on; before, they are plain errors.

        Returns:
            The reasons for values that the base model chose itself, by the name of the setting.

        Raises:
            CrucibleError: the settings do not suit what the model predicts.
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
        """Encode all examples that are not in the cache with the frozen encoders.

        Args:
            examples: the examples, of a kind that this kind of base model is trained on.
            cache: the cache of encoded inputs.
            caption_dropout: the probability that an example is shown without its caption, from 0 to 1.
            encode_captions: whether to encode captions too; False if the text encoders are trained.
            progress: a function called with (done, total, what is being done).

        Returns:
            The examples in the same order.
        """

    def release_encoders(self) -> None:
        """Release the memory of the encoders that only `cache_inputs` needs."""
        return

    @abstractmethod
    def attached(self, spec: AdapterSpec, gradient_checkpointing: bool) -> AbstractContextManager[Adapters]:
        """Attach adapters to layers inside the context; on exit, the model is restored."""

    @abstractmethod
    def losses(
        self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float] | None = None
    ) -> RowLosses:
        """Compute the loss of each row.

        The random numbers of row i depend only on seeds[i], so its loss does not depend on the rest of the batch.

        Args:
            rows: the examples of the batch.
            seeds: one seed per row.
            timesteps: the timestep of each row, as a share of the noise schedule; None draws them at random.
        """

    def place_of(self, name: str) -> Place | None:
        """Return the layer that a name in a LoRA file of any trainer refers to; None for an unknown name."""
        return None

    @abstractmethod
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the weight shape of each layer that can have an adapter, by the layer's key in a LoRA file.

        This includes the layers of text encoders.
        """

    def portable(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a LoRA from kohya's format, with the adapters' keys, to the file format of this architecture."""
        return dict(state_dict)

    def save_beside(self, folder: Path, adapters: Adapters, config: ResolvedConfig) -> str:
        """Write the adapters in a further form that other programs for this kind of base model read, if there is one.

        Args:
            folder: the folder for that form, which is replaced if it exists.
            adapters: the trained adapters, as their LoRA file has them.
            config: the settings of the run.

        Returns:
            A sentence for the report that says what was written; "" if there is no such form.

        Raises:
            CrucibleError: it could not be written.
        """
        return ""

    @abstractmethod
    def verify(self, path: Path, layers: int) -> None:
        """Check that the loader for this kind of base model can read a saved LoRA.

        Args:
            path: the LoRA file.
            layers: the number of layers that were saved.

        Raises:
            CrucibleError: the loader did not find the module for a key or a layer of the file.
        """
