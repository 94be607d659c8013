"""Every command says what is wrong with its input, ends with the status of that kind of failure, and writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lora_crucible.cli.main import main

CONFIG = "base_model: demo\ntrain_data_dir: demo\n"

READING = {
    "train": ["train", "{0}"],
    "check": ["check", "{0}"],
    "caption": ["caption", "{0}"],
    "sample": ["sample", "--base_model", "demo", "--prompt", "a", "--lora", "{0}"],
    "merge": ["merge", "{0}", "--output", "{folder}/new.safetensors"],
    "resize": ["resize", "{0}", "--rank", "2", "--output", "{folder}/new.safetensors"],
    "convert": ["convert", "{0}", "--output", "{folder}/new.safetensors"],
    "convert-config": ["convert-config", "{0}", "--output", "{folder}/new.yaml"],
}
"""The commands that read a file or a folder, which stands for {0}."""

LORAS = ("sample", "merge", "resize", "convert")


def made(tmp_path: Path, kind: str, command: str) -> Path:
    """Make the wrong thing of a kind, and return its path."""
    path = tmp_path / ("wrong.safetensors" if command in LORAS else "wrong.yaml")
    if kind == "missing":
        return path
    if kind == "of another kind" and command == "caption":
        path.write_text("a file in place of a folder")
    elif kind == "of another kind" or command == "caption":
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(bytes(range(256)) * 4)
    elif kind == "empty":
        path.touch()
    return path


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    """Run a command that fails; return its exit status and what it said on the standard error stream."""
    try:
        status = main(arguments)
    except SystemExit as ended:  # by argparse
        status = int(str(ended.code))
    said = capsys.readouterr().err
    assert status, said
    assert "Traceback" not in said
    assert "error: " in said
    return status, said


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (command, kind)
        for command in READING
        for kind in ("missing", "of another kind", "empty", "garbage")
        if (command, kind) != ("caption", "garbage")  # that is found out by the captioner
    ],
)
def test_a_file_that_cannot_be_read(command, kind, tmp_path, capsys):
    path = made(tmp_path, kind, command)
    before = sorted(tmp_path.rglob("*"))
    status, said = refused(capsys, [part.format(path, folder=tmp_path) for part in READING[command]])
    assert path.name in said
    expected = {"train": 2, "check": 2, "convert-config": 2, "caption": 3}.get(command, 4)
    assert status == expected, said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may read everything")
@pytest.mark.parametrize("command", [name for name in READING if name != "caption"])
def test_a_file_that_may_not_be_read(command, tmp_path, capsys):
    path = made(tmp_path, "garbage", command)
    path.chmod(0)
    _, said = refused(capsys, [part.format(path, folder=tmp_path) for part in READING[command]])
    assert path.name in said


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--nonsense"], ("COMMAND",)),
        (["nonsense"], ("nonsense", "train", "doctor")),
        ([], ("COMMAND",)),
        *((([command, "--nonsense"]), ()) for command in (*READING, "demo", "doctor")),
        (["train"], ("No config file",)),
        (["check"], ("No config file",)),
        (["train", "a.yaml", "--config", "b.yaml"], ("a.yaml", "--config b.yaml")),
        (["train", "a.yaml", "a.yaml"], ("a.yaml is named twice",)),
        (["check", "a.yaml", "b.yaml"], ("b.yaml",)),
        (["train", "a.yaml", "--fp16", "--bf16"], ("--bf16", "--fp16")),
        (["caption"], ("FOLDER",)),
        (["caption", ".", "--mode", "sometimes"], ("sometimes", "only_missing")),
        (["caption", ".", "--batch_size", "-1"], ("-1",)),
        (["caption", ".", "--general_threshold", "3"], ("3", "0 to 1")),
        (["sample"], ("--base_model",)),
        (["sample", "--base_model", "demo", "--prompt", "a", "--steps", "few"], ("few",)),
        (["sample", "--base_model", "demo", "--prompt", "a", "--lora", "a.ckpt"], ("a.ckpt",)),
        (["merge", "a.safetensors"], ("--output",)),
        (["merge", "a.safetensors", "--output", "b.safetensors", "--method", "mix"], ("mix", "linear")),
        (["merge", "a.safetensors:much", "--output", "b.safetensors"], ("a.safetensors:much", "strength")),
        (["merge", "a.safetensors", "--into", "m", "--rank", "2", "--output", "b.safetensors"], ("--rank", "--into")),
        (["resize", "a.safetensors", "--output", "b.safetensors"], ("--rank", "--energy")),
        (["resize", "a.safetensors", "--rank", "1.5", "--output", "b.safetensors"], ("1.5",)),
        (["convert", "a.safetensors", "--to", "word", "--output", "b.safetensors"], ("word", "kohya")),
        (["convert-config"], ("FILE",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_are_wrong(arguments, facts, tmp_path, capsys):
    status, said = refused(capsys, arguments)
    assert status == 2
    assert all(fact in said for fact in facts), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize(
    ("line", "status", "facts"),
    [
        ("lora_rank: -3", 2, ("line 3: lora_rank = -3", "from 1 to 512")),
        ("lora_rank: four", 2, ("line 3: lora_rank = four",)),
        ("train_datadir: x", 2, ("line 3: train_datadir", "train_data_dir")),
        ("lora_rank 4", 2, ("line 3",)),
        ("resume_from_checkpoint: none", 2, ("none",)),
        ("continue_from: none.safetensors", 4, ("none.safetensors",)),
    ],
)
def test_settings_that_are_wrong(command, line, status, facts, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(f"{CONFIG}{line}\n")
    assert refused(capsys, [command, "c.yaml"])[0] == status
    _, said = refused(capsys, [command, "c.yaml"])
    assert all(fact in said for fact in facts), said


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize(
    ("lines", "status", "fact"),
    [
        ("base_model: nowhere\ntrain_data_dir: demo\n", 4, "nowhere"),
        ("base_model: c.yaml\ntrain_data_dir: demo\n", 4, "c.yaml"),
        ("base_model: demo\ntrain_data_dir: nowhere\n", 3, "nowhere"),
        ("base_model: demo\ntrain_data_dir: empty\n", 3, "empty"),
        ("base_model: demo\ntrain_data_dir: demo\noutput_dir: c.yaml\n", 6, "c.yaml"),
        ("base_model: demo\n", 2, "train_data_dir"),
        (f"base_model: {'m' * 300}.safetensors\ntrain_data_dir: demo\n", 2, "longer than the name of a file"),
        (f"base_model: demo\ntrain_data_dir: {'d' * 300}\n", 2, "longer than the name of a file"),
    ],
)
def test_a_model_data_or_a_folder_that_is_none(command, lines, status, fact, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(lines)
    (tmp_path / "empty").mkdir()
    found, said = refused(capsys, [command, "c.yaml"])
    assert fact in said
    assert found == status, said


@pytest.mark.parametrize("command", ["merge", "resize", "convert", "sample"])
def test_an_output_that_cannot_be_written(command, tmp_path, capsys):
    """A file stands where a folder would have to be."""
    from lora_crucible.formats.lora_file import lora_layer, write_lora
    from torch import ones

    lora, blocked = tmp_path / "a.safetensors", tmp_path / "blocked"
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    layer = lora_layer(ones(2, 64), ones(64, 2), 1.0)
    write_lora(lora, {key + suffix: tensor for suffix, tensor in layer.items()}, {})
    blocked.touch()
    output = blocked / ("new.png" if command == "sample" else "new.safetensors")
    arguments = [*READING[command][:-2], "--output"] if command != "sample" else [*READING["sample"], "--output"]
    status, said = refused(capsys, [part.format(lora) for part in arguments] + [str(output)])
    assert "blocked" in said
    assert status == 6, said
