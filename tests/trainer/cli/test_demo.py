"""The command demo, on its way to a run and back."""

from __future__ import annotations

from types import SimpleNamespace

from lora_crucible.cli import demo
from lora_crucible.cli.main import main
from lora_crucible.demo.text import showcase


def test_demo_of_texts_trains_the_demo_language_model_and_shows_its_answers(monkeypatch, tmp_path, capsys):
    asked = []

    def run(config, dataset, retrain):
        asked.append((config, dataset, retrain))
        return SimpleNamespace(report="The report.", files=SimpleNamespace(folder=tmp_path / "demo_text"))

    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr(demo, "_load", lambda config: f"the dataset {config.train_data_dir}")
    monkeypatch.setattr(showcase, "measure", lambda folder: SimpleNamespace(text=lambda: f"Answers of {folder}."))
    main(["demo", "--text", "--retrain", "--output_dir", str(tmp_path)])
    [(config, dataset, retrain)] = asked
    assert (config.task_type, config.base_model, config.output_name) == ("text-generation", "demo", "demo_text")
    assert (dataset, retrain) == ("the dataset demo", True)
    assert config.regularization_rows
    said = capsys.readouterr().out
    assert said.endswith(f"The report.\nAnswers of {tmp_path / 'demo_text' / 'adapter'}.\n")
