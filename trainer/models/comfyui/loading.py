"""The model of a run as ComfyUI's model management loads it for training."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import torch

from ..memory_controls import MemoryControls
from . import memory
from .attaching import Checkpointing

OFFLOADING_STEPS = 4
"""The number of steps in which a model is offloaded to the host's memory, one equal part at a time."""


class LoadedPatcher(MemoryControls):
    """A model of the graph with the state of its loading.

    Args:
        patcher: the ModelPatcher of the graph.

    Attributes:
        patcher: the ModelPatcher in use: a clone of the graph's during a session.
        checkpointing: the switch for gradient checkpointing of its blocks.
        text_encoders: ModelPatchers of text encoders that are trained, to be loaded beside the model.
    """

    def __init__(self, patcher: Any) -> None:
        self._of_graph = patcher
        self.checkpointing = Checkpointing(False)
        self.start(patcher)

    def start(self, patcher: Any) -> None:
        """Use another clone of the model, with nothing known yet about the memory that training needs."""
        self.patcher = patcher
        self.text_encoders: tuple[Any, ...] = ()
        self._room: int | None = None
        self._limit: int | None = None
        self._offloaded = 0
        self.was_unloaded()

    def end(self) -> None:
        """Go back to the graph's own model."""
        self.start(self._of_graph)

    def was_unloaded(self) -> None:
        """Have the model loaded again before the next training step: ComfyUI may have unloaded it for the VAE while
        encoding or sampling."""
        self._is_loaded = False

    def load(self, guessed_room: int) -> bool:
        """Load the model unless it is loaded.

        Args:
            guessed_room: the bytes to keep free for a step until one has been measured.

        Returns:
            Whether it had to be loaded.
        """
        if self._is_loaded:
            return False
        room = guessed_room if self._room is None else self._room
        memory.load(self.patcher, room + self._offloaded, self._limit, *self.text_encoders)
        self._is_loaded = True
        return True

    def is_out_of_memory(self, error: BaseException) -> bool:
        return super().is_out_of_memory(error) or memory.is_out_of_memory(error)

    def available(self, device: torch.device) -> int:
        # Dynamic memory keeps the weights outside torch's allocator and releases them when torch needs the room.
        weights = self.patcher.loaded_size() if self.patcher.is_dynamic() else 0
        return super().available(device) + weights

    def free(self) -> None:
        # Reloading the models removes fragmentation.
        self.was_unloaded()
        memory.unload_all()
        super().free()

    def weights_size(self) -> tuple[int, int]:
        return self.patcher.model_size(), self.patcher.loaded_size()

    def set_checkpointing(self, on: bool) -> None:
        self.checkpointing.on = on

    def make_room(self, room: int | None, limit: int | None) -> None:
        self._room, self._limit = room, limit
        self.was_unloaded()

    def offload_more(self) -> bool:
        size = self.patcher.model_size()
        if not memory.can_be_offloaded(self.patcher) or self._offloaded >= size:
            return False
        self._offloaded += -(-size // OFFLOADING_STEPS)
        self.was_unloaded()
        return True


class LoadedModel(LoadedPatcher):
    """A MODEL with the state of its loading."""

    def options(self, latent_shape: tuple[int, ...]) -> dict[str, Any]:
        """Load the model unless it is loaded, and return the transformer options for training.

        Args:
            latent_shape: the shape of the batch of latents that comes next.
        """
        patcher = self.patcher
        if self.load(memory.guessed_room(patcher, latent_shape)):
            options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
            comfy.sampler_helpers.prepare_model_patcher(patcher, {}, options)
            self._options = memory.differentiable_attention(options["transformer_options"])
            patcher.pre_run()
        return self._options
