"""Config files in the words of guides: each is read as it is, or refused by what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.cli.main import main
from lora_crucible.config.yaml_file import read_config
from PIL import Image

STYLE = """
train_data_dir: "./data/pictures"
metadata_path: "./data/pictures/metadata.csv"
base_model: "demo"
lora_rank: 8
batch_size: 4
epochs: 3
learning_rate: 2e-4
output_dir: "./output/my_style"
save_steps: 100
"""
WARMUP = """
train_data_dir: "./data/pictures"
base_model: "demo"
lora_rank: 12
batch_size: 2
gradient_accumulation_steps: 2
epochs: 4
learning_rate: 2e-4
resolution: 64
num_warmup_steps: 2
lora_dropout: 0.1
"""
KOHYA_WORDS = """
pretrained_model_name_or_path: demo
train_data_dir: ./data/pictures
reg_data_dir: ./data/regularization
output_dir: ./output
resolution: 64
train_batch_size: 2
gradient_accumulation_steps: 2
max_train_steps: 3
learning_rate: 1e-4
network_dim: 64
network_alpha: 32
lr_scheduler: cosine_with_restarts
save_every_n_epochs: 1
"""
QUESTIONS = """
base_model: "demo"
task_type: "text-generation"
train_data_dir: "./data/qa"
max_seq_length: 512
"""
QLORA = """
base_model: "owner/Model-7B"
task_type: "text-generation"
train_data_dir: "./data/rows.jsonl"
load_in_4bit: true
lora_rank: 16
lora_alpha: 32
lora_dropout: 0.05
target_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
max_seq_length: 1024
learning_rate: 2e-4
max_grad_norm: 1.0
weight_decay: 0.01
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the data that guides have."""
    for name, count in (("pictures", 4), ("regularization", 2)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            color = (40 * number, 200 - 30 * number, 20 * number)
            Image.effect_noise((64, 64), 90).convert("RGB").point(lambda v, c=color: (v + c[0]) % 256).save(
                folder / f"image_{number:03}.jpg"
            )
        rows = [f'image_{number:03}.jpg,"a picture, number {number}, of noise"' for number in range(1, count + 1)]
        (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def written(project: Path, text: str) -> Path:
    path = project / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_of_a_guide_is_understood(project: Path) -> None:
    style = read_config(written(project, STYLE))
    assert (style.lora_rank, style.batch_size, style.epochs, style.learning_rate, style.save_steps) == (
        8,
        4,
        3,
        2e-4,
        100,
    )
    assert style.metadata_path == str(project / "data" / "pictures" / "metadata.csv")
    warmup = read_config(written(project, WARMUP))
    assert (warmup.lr_warmup_steps, warmup.lora_dropout) == (2, 0.1)
    kohya = read_config(written(project, KOHYA_WORDS))
    assert (kohya.lora_rank, kohya.lora_alpha, kohya.lr_scheduler) == (64, 32, "cosine_with_restarts")
    assert kohya.save_every_n_epochs == 1
    assert kohya.reg_data_dir == str(project / "data" / "regularization")
    qlora = read_config(written(project, QLORA))
    assert (qlora.load_in_4bit, qlora.batch_size, qlora.base_model) == (True, 2, "owner/Model-7B")
    assert qlora.layer_patterns.split() == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    questions = read_config(written(project, QUESTIONS))
    assert (questions.task_type, questions.max_seq_length) == ("text-generation", 512)


@pytest.mark.parametrize("text", [STYLE, WARMUP], ids=["style", "warmup"])
def test_a_guide_is_checked_as_it_is(project: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(written(project, text)), "--fp16"]) == 0
    said = capsys.readouterr().out
    assert "The config file is valid." in said
    assert "mixed_precision = fp16" in said
    assert "Relative paths count from the folder of the config file" in said


@pytest.mark.slow
@pytest.mark.parametrize("text", [STYLE, WARMUP, KOHYA_WORDS], ids=["style", "warmup", "kohya"])
def test_a_guide_trains(project: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert main(["train", "--config", str(written(project, text))]) == 0
    assert len(list((project / "output").rglob("lora.safetensors"))) >= 1


@pytest.mark.slow
def test_a_guide_with_fp16_trains_on_a_cpu_and_says_that_it_is_slow(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = STYLE.replace("epochs: 3", "epochs: 1").replace("batch_size: 4", "batch_size: 1")
    assert main(["train", "--config", str(written(project, f"{text}sample_steps: 1\nmeasure: never\n")), "--fp16"]) == 0
    said = capsys.readouterr().out
    assert "there is no graphics card that PyTorch can use" in said
    assert ", fp16\n" in said


@pytest.mark.slow
def test_the_questions_of_a_guide_train(project: Path) -> None:
    folder = project / "data" / "qa"
    folder.mkdir()
    rows = [f'{{"text": "Q: What is {number}?\\nA: It is the number {number}."}}' for number in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    text = f"{QUESTIONS}max_train_steps: 2\nmeasure: never\n"
    assert main(["train", "--config", str(written(project, text))]) == 0
    assert (project / "output" / "lora.safetensors").is_file()


def test_a_ggml_file_is_refused_by_what_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "models").mkdir()
    (project / "models" / "chat.ggmlv3.q4_0.bin").write_bytes(b"tjgg\x03\0\0\0" + bytes(100))
    (project / "data" / "qa").mkdir()
    (project / "data" / "qa" / "rows.jsonl").write_text('{"text": "Q: a\\nA: b"}')
    text = 'base_model: "./models/chat.ggmlv3.q4_0.bin"\ntask_type: "text-generation"\ntrain_data_dir: "./data/qa"\n'
    assert main(["train", "--config", str(written(project, text)), "--fp16"]) != 0
    assert "is a GGML file" in capsys.readouterr().err


def test_settings_on_one_line_are_refused_as_that(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'train_data_dir: "./data/style" base_model: "./models/base.safetensors" lora_rank: 8 learning_rate: 2e-4'
    assert main(["train", "--config", str(written(project, text))]) != 0
    error = capsys.readouterr().err
    assert "are on one line" in error
    assert "\n  lora_rank: 8\n" in error
