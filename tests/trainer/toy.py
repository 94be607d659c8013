"""The smallest thing that can be trained: a base model of one parameter, on numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.config import ModelFacts
from lora_crucible.data.base import Dataset
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.base import BaseModel
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.models.memory_controls import MemoryControls
from lora_crucible.models.previews import Previewer
from lora_crucible.optim.engine import DTYPES, Engine
from lora_crucible.seeding import generator


class Numbers(Dataset):
    """A dataset whose examples are numbers."""

    name = "numbers"

    def __init__(self, values: Sequence[float] = (1.0, 2.0, 4.0, 8.0), held_out: Sequence[float] = ()) -> None:
        self.values, self.held_out = tuple(values), tuple(held_out)
        self.training_names = tuple(map(str, self.values))
        self.validation_names = tuple(map(str, self.held_out))
        self.fingerprint = repr((self.values, self.held_out))

    training_names = validation_names = fingerprint = ()

    def examples(self, resolution: int | None) -> list[float]:
        return list(self.values)

    def measured_examples(self, most: int, resolution: int | None) -> tuple[Sequence[float], Sequence[float]]:
        return self.held_out[:most], self.values[:most]


class Texts(Previewer):
    """Samples of the toy: what it computes, as text."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def prepare(self, samplings) -> None:
        pass

    def draw(self, sampling) -> tuple[str, ...]:
        return tuple(f"{prompt}: {self.toy.layers(torch.ones(1, 1)).item():.6f}" for prompt in sampling.prompts)


class Toy(BaseModel):
    """A base model whose only layer multiplies by 0. Its adapter learns to give the numbers of a dataset, with
    noise."""

    name, architecture, facts = "toy", ARCHITECTURES["unknown"], ModelFacts("unknown")

    def __init__(self) -> None:
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
        torch.nn.init.zeros_(self.layers[0].weight).requires_grad_(False)
        self.rows, self.memory, self.previewer = RowSeeds(), MemoryControls(), Texts(self)

    def identity(self) -> str:
        return "toy"

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        with torch.enable_grad():
            yield Engine(torch.device("cpu"), DTYPES.get(mixed_precision, torch.float32))

    def cache_inputs(self, examples, cache, caption_dropout, encode_captions, progress) -> list[CachedExample[float]]:
        for number in range(len(examples)):
            progress(number + 1, len(examples), "numbers")
        return [CachedExample(str(value), "all", value) for value in examples]

    @contextmanager
    def attached(self, spec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        with adapted(self.layers, spec, lambda path: f"lora_unet_{path}", self.rows) as layers:
            yield Adapters(layers)

    def losses(self, rows, seeds, timesteps=None) -> RowLosses:
        noise = torch.stack([torch.randn((), generator=generator(seed, "noise")) for seed in seeds])
        with self.rows.used(seeds):
            outputs = self.layers(torch.ones(len(rows), 1)).flatten()
        values = (outputs - torch.tensor([row.inputs for row in rows]) - 0.01 * noise) ** 2
        return RowLosses(values, values.detach(), torch.tensor(timesteps or [0.5] * len(rows)))

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"lora_unet_0": (1, 1)}

    def verify(self, path: Path, layers: int) -> None:
        assert len({key.partition(".")[0] for key in read_lora(path)[0]}) == layers
