"""The smallest language model that can be trained: characters, an embedding and one linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.config import DatasetFacts, ModelFacts
from lora_crucible.data.base import Dataset
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered
from lora_crucible.data.text.rows import Row, Turn
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.models.language.model import Answer, LanguageBaseModel
from lora_crucible.models.memory_controls import MemoryControls
from lora_crucible.models.previews import Previewer
from lora_crucible.optim.engine import DTYPES, Engine
from lora_crucible.seeding import generator
from torch import Tensor

WIDTH, TOKENS, STOP, ASKED, ANSWER = 48, 128, 3, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Characters:
    """Writes each character as the token of its ASCII code."""

    name, stop_token, chat_template = "the toy's template", STOP, ""

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return (ASKED, *map(ord, turns[-1].text), ANSWER)

    def conversation(self, turns: Sequence[Turn]) -> Rendered:
        asked, answer = self.prompt(turns[:-1]), (*map(ord, turns[-1].text), STOP)
        return Rendered((*asked, *answer), (*[False] * len(asked), *[True] * len(answer)))

    def text(self, text: str) -> Rendered:
        tokens = (ASKED, *map(ord, text), STOP)
        return Rendered(tokens, (False, *[True] * (len(tokens) - 1)))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(token) for token in tokens if token >= 32)


def row(name: str, prompt: str, answer: str) -> Row:
    return Row(name, "prompt_completion", (Turn("user", prompt), Turn("assistant", answer)))


@dataclass(frozen=True)
class Sayings(Dataset):
    """A dataset of prompts and answers: the model is to answer capital letters with an exclamation mark."""

    unit = "row"
    name: str = "sayings"
    rows: tuple[Row, ...] = tuple(row(f"train, row {n}", f"say {x}", f"{x}!") for n, x in enumerate("ABCDEFGH"))
    held_out: tuple[Row, ...] = tuple(row(f"held out, row {n}", f"tell {x}", f"{x}!") for n, x in enumerate("ABCD"))
    regularization: tuple[Row, ...] = ()
    renderer: Characters | None = None

    @property
    def fingerprint(self) -> str:
        return repr((self.rows, self.held_out, len(self.regularization)))

    @property
    def training_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.rows)

    @property
    def validation_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.held_out)

    @property
    def regularization_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.regularization)

    @property
    def sample_prompts(self) -> tuple[str, ...]:
        return tuple(one.turns[0].text for one in self.held_out)

    @property
    def unrelated_prompts(self) -> tuple[str, ...]:
        return tuple(f"say {letter}" for letter in LETTERS[:10])

    @property
    def regularization_prompts(self) -> tuple[tuple[Turn, ...], ...]:
        return tuple((Turn("user", f"tell {letter}"),) for letter in LETTERS)

    def with_regularization(self, rows: Sequence[Row]) -> Sayings:
        return replace(self, regularization=tuple(rows))

    def examples(self, resolution: int | None) -> list[TextExample]:
        return self._examples((*self.rows, *self.regularization))

    def measured_examples(self, most: int, resolution: int | None) -> tuple[list[TextExample], list[TextExample]]:
        return self._examples(self.held_out[:most]), self._examples(self.rows[:most])

    def facts(self, examples: Sequence[TextExample], resolution: int | None) -> DatasetFacts:
        return replace(super().facts(examples, resolution), regularization_per_epoch=len(self.regularization))

    def _examples(self, rows: Sequence[Row]) -> list[TextExample]:
        assert self.renderer is not None
        made = []
        for one in rows:
            rendered = self.renderer.conversation(one.turns) if one.turns else self.renderer.text(one.text)
            made.append(TextExample(one.name, rendered, 16))
        return made


@cache
def base_weights() -> tuple[Tensor, Tensor]:
    """Return embedding and last layer of a model that answers each letter by repeating it: "say a" by "aa"."""
    renderer = Characters()
    rows = [
        renderer.conversation((Turn("user", f"{verb} {letter}"), Turn("assistant", letter * 2)))
        for verb in ("say", "tell")
        for letter in LETTERS + LETTERS.upper()
    ]
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        embedding, head = torch.randn(TOKENS, WIDTH), torch.nn.Parameter(torch.zeros(TOKENS, WIDTH))
        optimizer = torch.optim.Adam([head], lr=0.1)
        states, targets = (torch.cat(parts) for parts in zip(*(_read(one, embedding) for one in rows), strict=True))
        for _ in range(200):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(states @ head.T, targets).backward()
            optimizer.step()
    return embedding, head.detach()


def _states(tokens: Sequence[int], embedding: Tensor) -> Tensor:
    """Return the state before each next token: what was read last counts most."""
    states, state = [], torch.zeros(embedding.shape[1])
    for token in tokens:
        state = state / 2 + embedding[token]
        states.append(state)
    return torch.stack(states)


def _read(rendered: Rendered, embedding: Tensor) -> tuple[Tensor, Tensor]:
    places = [place for place, trained in enumerate(rendered.trained) if trained]
    states = _states(rendered.tokens, embedding)[[place - 1 for place in places]]
    return states, torch.tensor([rendered.tokens[place] for place in places])


class Writer(Previewer):
    """Samples of the toy: its likeliest answers."""

    def __init__(self, toy: ToyLanguage) -> None:
        self.toy = toy

    def prepare(self, samplings) -> None:
        pass

    def draw(self, sampling) -> tuple[str, ...]:
        prompts = [self.toy.renderer.prompt([Turn("user", prompt)]) for prompt in sampling.prompts]
        return tuple(answer.text for answer in self.toy.answers(prompts, sampling.max_new_tokens))


class ToyLanguage(LanguageBaseModel):
    """A language model whose only layer with an adapter turns states into logits."""

    name, architecture, facts = "toy language model", ARCHITECTURES["language"], ModelFacts("language")
    head = hidden_states = None
    paths: ClassVar[dict[str, str]] = {}  # its layer has no name in a language model

    def __init__(self) -> None:
        self.embedding, head = base_weights()
        self.layers = torch.nn.Sequential(torch.nn.Linear(WIDTH, TOKENS, bias=False))
        self.layers[0].weight = torch.nn.Parameter(head.clone(), requires_grad=False)
        self.rows, self.memory, self.previewer = RowSeeds(), MemoryControls(), Writer(self)
        self.renderer = Characters()
        self.asked = 0

    def identity(self) -> str:
        return "toy language model"

    def prepare_dataset(self, dataset: Sayings) -> Sayings:
        return replace(dataset, renderer=self.renderer)

    @contextmanager
    def session(self, mixed_precision: str) -> Iterator[Engine]:
        with torch.enable_grad():
            yield Engine(torch.device("cpu"), DTYPES.get(mixed_precision, torch.float32))

    def cache_inputs(self, examples, cache, caption_dropout, encode_captions, progress) -> list[CachedExample]:
        progress(len(examples), len(examples), "rows")
        return [
            CachedExample(
                one.name, one.group, _read(one.rendered, self.embedding), weight=sum(one.rendered.trained) * one.weight
            )
            for one in examples
        ]

    @contextmanager
    def attached(self, spec, gradient_checkpointing: bool) -> Iterator[Adapters]:
        with adapted(self.layers, spec, lambda path: f"lora_unet_{path}", self.rows) as layers:
            self.adapters = Adapters(layers)
            yield self.adapters

    def losses(self, rows, seeds, timesteps=None) -> RowLosses:
        values = []
        for one, seed in zip(rows, seeds, strict=True):
            states, targets = one.inputs
            with self.rows.used([seed]):
                logits = self.layers(states.unsqueeze(0)).squeeze(0)
            values.append(torch.nn.functional.cross_entropy(logits, targets))
        return RowLosses(torch.stack(values), torch.stack(values).detach())

    @torch.no_grad()
    def answers(self, prompts, max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        self.asked += len(prompts)
        draw = None if seed is None else generator(seed, "answers")
        return [self._answer(list(prompt), max_new_tokens, draw) for prompt in prompts]

    def _answer(self, tokens: list[int], most: int, draw: torch.Generator | None) -> Answer:
        start = len(tokens)
        while len(tokens) - start < most:
            logits = self.layers(_states(tokens, self.embedding)[-1:]).flatten()
            token = int(logits.argmax() if draw is None else logits.softmax(0).multinomial(1, generator=draw))
            if token == STOP:
                break
            tokens.append(token)
        written = tuple(tokens[start:])
        return Answer(self.renderer.decode(written), written, len(written) < most)

    @torch.no_grad()
    def divergence_from_base(self, rows) -> Tensor:
        found = []
        for one in rows:
            states, _ = one.inputs
            after = self.layers(states).log_softmax(-1)
            with self.adapters.without_effect():
                before = self.layers(states).log_softmax(-1)
            found.append(torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True))
        return torch.stack(found)

    def portable(self, state_dict) -> dict[str, Tensor]:
        return dict(state_dict)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"lora_unet_0": (TOKENS, WIDTH)}

    def verify(self, path: Path, layers: int) -> None:
        assert len({key.partition(".")[0] for key in read_lora(path)[0]}) == layers
