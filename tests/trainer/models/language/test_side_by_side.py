"""Answers without and with LoRAs, side by side, and the command that shows them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.adapters.targets import is_adaptable
from lora_crucible.cli import sample_texts
from lora_crucible.cli.main import main
from lora_crucible.data.text.rows import Turn
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.layer_names import language_key
from lora_crucible.formats.lora_file import DORA_SCALE, LayerTensors, lora_layer, write_lora
from lora_crucible.formats.lora_model import LoraModel
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import Layers
from lora_crucible.merging.ingredients import Strengths
from lora_crucible.models.language.model import Answer
from lora_crucible.models.language.side_by_side import SideBySide
from random_models import WORDS, make_model, save_in_shards

LANGUAGE = ARCHITECTURES["language"]
PATHS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
HELLO = (Turn("user", "red heart"),)


class Words:
    """A renderer that only knows the words of turns."""

    name, stop_token, chat_template = "words", 2, ""

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return (1, *(WORDS.index(word) for turn in turns for word in turn.text.split() if word in WORDS))


class Tiny:
    """As much of a language model as answers need, on a model with random weights."""

    name, architecture, renderer, reads = "tiny", LANGUAGE, Words(), 64

    def __init__(self, folder: Path | None = None) -> None:
        self.model, self.folder, self.prompts = make_model("Llama"), folder, []

    def session(self, mixed_precision: str) -> Any:
        return nullcontext()

    def place_of(self, name: str) -> Any:
        return place_of(name, LANGUAGE)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        modules = self.model.named_modules()
        return {language_key(path): tuple(one.weight.shape) for path, one in modules if is_adaptable(one)}

    @contextmanager
    def attached(self, spec: Any, gradient_checkpointing: bool) -> Any:
        with adapted(self.model, spec, language_key, RowSeeds()) as layers:
            yield Adapters(layers)

    @torch.no_grad()
    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        """Answer with the logits of the last token, which show any change of a weight."""
        self.prompts += [tuple(prompt) for prompt in prompts]
        logits = [self.model(torch.tensor([list(prompt)])).logits[0, -1] for prompt in prompts]
        return [Answer(",".join(f"{one:.3f}" for one in row.tolist()), (), True) for row in logits]

    def base_weight(self, key: str) -> torch.Tensor:
        path = next(path for path, _ in self.model.named_modules() if language_key(path) == key)
        return self.model.get_submodule(path).weight.detach().clone()

    def expected(self, changes: dict[str, torch.Tensor]) -> list[Answer]:
        """Return the answers with these changes of weights."""
        for key, change in changes.items():
            path = next(path for path, _ in self.model.named_modules() if language_key(path) == key)
            self.model.get_submodule(path).weight.data += change
        found = self.answers([self.renderer.prompt(HELLO)], 1)
        for key, change in changes.items():
            path = next(path for path, _ in self.model.named_modules() if language_key(path) == key)
            self.model.get_submodule(path).weight.data -= change
        return found


def layers(seed: int, kind: str = "lora") -> dict[str, LayerTensors]:
    torch.manual_seed(seed)
    found: dict[str, LayerTensors] = {}
    for path, (out, inputs) in zip(PATHS, ((32, 32), (32, 48)), strict=True):
        if kind == "loha":
            found[language_key(path)] = {
                f".hada_w{n}_{part}": torch.randn(*shape)
                for n in (1, 2)
                for part, shape in (("a", (out, 3)), ("b", (3, inputs)))
            } | {".alpha": torch.tensor(1.0)}
            continue
        found[language_key(path)] = lora_layer(torch.randn(3, inputs) / 2, torch.randn(out, 3) / 2, 6)
        if kind == "dora":
            found[language_key(path)][DORA_SCALE] = torch.rand(out, 1) + 0.5
    return found


def lora(name: str, parts: dict[str, LayerTensors], strength: float = 1.0) -> Strengths:
    return Strengths(LoraModel(to_form(Layers(parts), LANGUAGE, "auto"), name), strength, strength)


def close(found: Sequence[Answer], expected: Sequence[Answer]) -> bool:
    numbers = [[float(one) for one in answers[0].text.split(",")] for answers in (found, expected)]
    return torch.allclose(*map(torch.tensor, numbers), atol=2e-3)


@pytest.mark.parametrize(
    ("kinds", "strengths"),
    [
        (("lora",), (1.0,)),
        (("lora",), (0.4,)),
        (("loha",), (-0.5,)),
        (("dora",), (1.0,)),
        (("dora",), (0.5,)),
        (("lora", "lora"), (0.5, 0.8)),
        (("lora", "loha"), (1.0, 0.3)),
        (("dora", "lora"), (1.0, 0.3)),
    ],
)
def test_loras_act_together_with_their_strengths(kinds: Sequence[str], strengths: Sequence[float]):
    model = Tiny()
    parts = [layers(seed, kind) for seed, kind in enumerate(kinds)]
    stack = [lora(f"{n}.safetensors", one, strengths[n]) for n, one in enumerate(parts)]
    asked = SideBySide(model, stack, model.base_weight)  # type: ignore[arg-type]
    changes = {
        key: sum(s * delta_weight(part[key], model.base_weight(key)) for s, part in zip(strengths, parts, strict=True))
        for key in parts[0]
    }
    base = asked.of_base([HELLO])
    assert close(asked.with_loras([HELLO]), model.expected(changes))  # type: ignore[arg-type]
    assert not close(asked.with_loras([HELLO]), base)
    assert close(asked.of_base([HELLO]), base)


def test_strengths_are_changed_by_name():
    model = Tiny()
    asked = SideBySide(model, [lora("a.safetensors", layers(0)), lora("b.safetensors", layers(1))])  # type: ignore[arg-type]
    asked.set_strength("b", 0)
    assert asked.strengths == {"a.safetensors": 1.0, "b.safetensors": 0}
    expected = model.expected({key: delta_weight(layer) for key, layer in layers(0).items()})
    assert close(asked.with_loras([HELLO]), expected)
    asked.set_strength("a.safetensors", 0)
    assert close(asked.with_loras([HELLO]), asked.of_base([HELLO]))
    with pytest.raises(CrucibleError, match=r"those that were loaded are a\.safetensors, b\.safetensors"):
        asked.set_strength("c", 1)


def test_loras_of_one_name_are_kept_apart():
    asked = SideBySide(Tiny(), [lora("a", layers(0)), lora("a", layers(1), 0.5)])  # type: ignore[arg-type]
    assert asked.strengths == {"a": 1.0, "a_2": 0.5}


@pytest.mark.parametrize("path", ["model.layers.9.self_attn.q_proj", "model.layers.0.mlp.up_proj"])
def test_a_lora_for_another_model_is_refused(path: str):
    foreign = layers(0) | {language_key(path): lora_layer(torch.ones(2, 99), torch.ones(99, 2), 2)}
    with pytest.raises(CrucibleError, match="cannot be used with tiny: the model has no place for 1 part"):
        SideBySide(Tiny(), [lora("a", foreign)])  # type: ignore[arg-type]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files for the command, and the model and the options that it opens."""
    found: dict[str, Any] = {
        "model": Tiny(save_in_shards(tmp_path / "base", "Llama")),
        "lora": tmp_path / "a.safetensors",
        "base": str(tmp_path / "base"),
    }
    write_lora(found["lora"], to_form(Layers(layers(0)), LANGUAGE, "auto"), {})

    def model(options: Any, loras: Any) -> Tiny:
        found["options"] = options
        return found["model"]

    monkeypatch.setattr(sample_texts, "_language_model", model)
    return found


def test_prompts_are_answered_side_by_side(opened, capsys):
    arguments = ["--lora", f"{opened['lora']}:0.5", "--prompt", "red heart", "--prompt", "blue star"]
    assert main(["sample", "--base_model", opened["base"], *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in lines if line] == 2 * ["Prompt", "base", "with a.safetensors"]
    assert lines[1].split(": ")[1] != lines[2].split(": ")[1]


def test_without_a_lora_only_the_base_answers(opened, capsys):
    assert main(["sample", "--base_model", opened["base"], "--prompt", "sun"]) == 0
    assert "with" not in capsys.readouterr().out


def test_a_chat_reads_a_pipe(opened, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("red heart\n/lora a 0\nsun\n/new\n/lora a x\nmoon\n/quit\nstar\n"))
    assert main(["sample", "--base_model", opened["base"], "--lora", str(opened["lora"])]) == 0
    out = capsys.readouterr().out
    assert (out.count("base:"), out.count("with a.safetensors:1:")) == (3, 1)
    assert "Write /lora, the name of the LoRA and its strength" in out
    red, heart, sun, moon = (WORDS.index(word) for word in ("red", "heart", "sun", "moon"))
    assert opened["model"].prompts == [(1, red, heart), (1, red, heart), (1, red, heart, sun), (1, moon)]


def test_what_the_model_cannot_read_is_not_asked(opened, capsys, monkeypatch):
    long = "red " * 63
    assert main(["sample", "--base_model", opened["base"], "--prompt", long]) == 1
    told = "has 64 tokens, but tiny reads 64 at most, answer included"
    assert told in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{long}\nsun\n"))
    assert main(["sample", "--base_model", opened["base"]]) == 0
    out = capsys.readouterr().out
    assert (told in out, out.count("base:")) == (True, 1)
    assert opened["model"].prompts == [(1, WORDS.index("sun"))]


def test_the_template_is_the_one_of_the_training():
    def trained(template: str | None) -> Strengths:
        config = {} if template is None else {"chat_template": template}
        return Strengths(LoraModel({}, "a", {"crucible.config": json.dumps(config)}), 1.0, 1.0)

    assert sample_texts.trained_with([trained("chatml"), trained(None)]) == "chatml"
    assert sample_texts.trained_with([trained("chatml"), trained("vicuna")]) == "auto"
    assert sample_texts.trained_with([Strengths(LoraModel({}, "a", {"crucible.config": "[]"}), 1.0, 1.0)]) == "auto"
