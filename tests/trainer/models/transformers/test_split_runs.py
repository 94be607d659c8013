"""Runs on language models that are split over two processes, against the same run of one process with all of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.data.text.chat_rendering import ChatRenderer
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.splitting import size_of
from lora_crucible.models.transformers.model import TransformersBaseModel
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from random_models import save, save_in_shards
from several import Launch, run_together
from word_rows import QUICK, ROWS

SETTINGS = QUICK | {"measure": "always", "validation_percent": 40, "validate_every_n_steps": 4, "learning_rate": 1e-2}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_curves", "checkpoints_in_time")]


class Stop(BaseException):
    pass


def train(
    folder: Path,
    base: Path,
    split: bool,
    stepped: Callable[[Any, int], None] = lambda report, steps: None,
    model: TransformersBaseModel | None = None,
    **values: Any,
) -> RunResult:
    data = folder.parent / "rows.jsonl"
    if not data.exists():
        data.write_text("".join(json.dumps({"prompt": one, "answer": other}) + "\n" for one, other in ROWS.items()))
    config = parse_config({**SETTINGS, "base_model": str(base), "train_data_dir": str(data), **values})
    model = model or TransformersBaseModel(str(base), make_renderer=ChatRenderer, split=split)
    return train_or_resume(model, load_text_dataset(config), config, folder, folder, Callbacks(stepped=stepped))


def assert_same_lora(one: Path, other: Path) -> None:
    made, expected = read_lora(one)[0], read_lora(other)[0]
    assert made.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(made[key], expected[key], atol=1e-5, rtol=0)


def lora_in(folder: Path, like: RunResult) -> Path:
    return folder / like.files.lora.name


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Qwen3", {"lora_dropout": 0.1}),
        ("Llama", {"gradient_accumulation_steps": 1, "validation_percent": 0}),
        ("Llama", {"gradient_checkpointing": True, "algorithm": "loha", "lora_dropout": 0}),
        ("Llama", {"layer_patterns": "q_proj\nlm_head", "optimizer": "schedule_free_adamw"}),
        ("Gemma3", {"algorithm": "lokr", "lora_dropout": 0, "regularization_rows": True, "max_train_steps": 4}),
    ],
)
def test_as_one(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    base = save_in_shards(tmp_path / "base", kind)
    alone = train(tmp_path / "alone", base, False, **values)

    def work(processes: Any) -> None:
        result = train(tmp_path / "together", base, True, **values)
        assert processes.joint
        assert result.losses == pytest.approx(alone.losses, abs=1e-5)
        if processes.is_main:
            assert [one.error for one in result.rounds] == pytest.approx([one.error for one in alone.rounds], abs=1e-5)
            assert result.samples == alone.samples
            assert result.verdict.lines() == alone.verdict.lines()

    run_together(2, work, tmp_path / "outputs")
    assert_same_lora(lora_in(tmp_path / "together", alone), alone.files.lora)


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_memory_that_runs_out_in_the_middle_of_a_pass_of_one_process(tmp_path: Path, part: str) -> None:
    base = save_in_shards(tmp_path / "base", "Llama")
    alone = train(tmp_path / "alone", base, False)

    def work(processes: Any) -> None:
        model = TransformersBaseModel(str(base), make_renderer=ChatRenderer, split=True)

        def run_out(*arguments: Any) -> None:
            handle.remove()
            raise MemoryError("injected")

        def stepped(report: Any, steps: int) -> None:
            nonlocal handle
            if report.step == 3 and processes.rank == 1:
                layer = model._model.model.layers[0].mlp
                register = layer.register_full_backward_hook if part == "backward" else layer.register_forward_hook
                handle = register(run_out)

        handle: Any = None
        result = train(tmp_path / "together", base, True, stepped, model)
        assert result.losses == pytest.approx(alone.losses, abs=1e-5)
        if processes.is_main:
            assert "Out of memory" in result.report or "ran out of memory" in result.report

    run_together(2, work, tmp_path / "outputs")
    assert_same_lora(lora_in(tmp_path / "together", alone), alone.files.lora)


def test_a_killed_process_ends_the_other_and_one_alone_resumes(tmp_path: Path) -> None:
    base = save_in_shards(tmp_path / "base", "Qwen3")
    alone = train(tmp_path / "alone", base, False)

    def work(processes: Any) -> None:
        model = TransformersBaseModel(str(base), make_renderer=ChatRenderer, split=True)

        def stepped(report: Any, steps: int) -> None:
            if report.step == 5 and processes.rank == 1:
                layer = model._model.model.layers[1].mlp
                layer.register_forward_hook(lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))

        train(tmp_path / "together", base, True, stepped, model)

    main, other = Launch(2, work, tmp_path / "outputs").ended()
    assert other.status == -signal.SIGKILL
    assert main.status not in (0, -signal.SIGKILL)
    assert main.seconds - other.seconds < 30
    assert "Process 1 of 2" in main.output
    assert "resumes from the last checkpoint" in main.output
    resumed = train(tmp_path / "together", base, False)
    assert_same_lora(resumed.files.lora, alone.files.lora)
    assert resumed.losses == pytest.approx(alone.losses, abs=1e-5)


def test_two_processes_resume_what_one_began(tmp_path: Path) -> None:
    base = save_in_shards(tmp_path / "base", "Qwen3")
    alone = train(tmp_path / "alone", base, False)

    def stepped(report: Any, steps: int) -> None:
        if report.step == 5:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "together", base, False, stepped)

    def work(processes: Any) -> None:
        assert train(tmp_path / "together", base, True).losses == pytest.approx(alone.losses, abs=1e-5)

    run_together(2, work, tmp_path / "outputs")
    assert_same_lora(lora_in(tmp_path / "together", alone), alone.files.lora)


def test_each_process_holds_its_part(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "Llama", num_hidden_layers=4)

    def work(processes: Any) -> None:
        model = TransformersBaseModel(str(base), make_renderer=ChatRenderer, split=True)
        with model.session("fp32"):
            whole, here = model.memory.weights_size()
            blocks = sum(size_of(block.parameters()) for block in model._model.model.layers)
            assert whole == 4 * model.parameters
            assert here == pytest.approx(whole - blocks / 2, rel=0.01)

    run_together(2, work, tmp_path / "outputs")
