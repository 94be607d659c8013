"""A base model in a single file starts the command again in ComfyUI's Python, once, and says so."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from lora_crucible.cli import comfyui as module
from lora_crucible.cli.comfyui import enter_comfyui, opened_by_comfyui
from lora_crucible.cli.exit_status import ExitStatus
from lora_crucible.cli.main import main
from lora_crucible.cli.opening import open_base_model
from lora_crucible.config import parse_config
from lora_crucible.doctor.comfyui import python_of
from lora_crucible.errors import CrucibleError

ROOT = Path(__file__).parent.parent.parent.parent
ECHO = """\
#!/bin/sh
echo "arguments: $*"
echo "rank: $RANK"
exit 7
"""
NO_OPTIONS = {
    "set": [],
    "precision": None,
    "reserve_memory": None,
    "needs": "unchanged",
    "arguments": ["typed"],
}
"""What the command line adds to a config: nothing."""


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like ComfyUI's, whose Python only tells how it was started."""
    folder = tmp_path / "ComfyUI"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    (folder / "main.py").write_text("raise SystemExit('imported')")
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    return folder


def config(folder: Path, **settings: str) -> Path:
    path = folder / "config.yaml"
    written = {"base_model": "v1-5.safetensors", "train_data_dir": "demo", "output_dir": str(folder / "out")}
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**written, **settings}.items()))
    return path


def typed(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for ComfyUI's Python is a shell script")
class TestStart:
    def test_the_same_command_runs_there_with_its_environment_and_status(self, comfyui: Path, tmp_path: Path):
        path = config(tmp_path)
        done = typed("train", str(path), "--bf16", RANK="0", WORLD_SIZE="2")
        assert done.returncode == 7
        assert done.stdout == f"arguments: {ROOT / 'trainer'} train {path} --bf16\nrank: 0\n"
        assert done.stderr.count("\n") == 1
        for fact in ("Running in ComfyUI's Python", str(comfyui / ".venv" / "bin" / "python"), "v1-5.safetensors"):
            assert fact in done.stderr
        assert typed("check", str(path), RANK="1").stderr == ""  # one of two processes says it

    def test_a_command_that_names_its_model_itself(self, comfyui: Path, monkeypatch):
        became = []
        monkeypatch.setattr(module, "_become", lambda *command: became.append(command))
        for base_model in ("demo", "v1-5.safetensors"):
            enter_comfyui(argparse.Namespace(base_model=base_model, **NO_OPTIONS))
        assert became == [(comfyui / ".venv" / "bin" / "python", ["typed"])]

    def test_on_systems_without_exec_it_waits_for_the_other(self, comfyui: Path, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(module, "BECOMES", False)
        with pytest.raises(SystemExit) as ended:
            main(["train", str(config(tmp_path))])
        assert ended.value.code == 7

    @pytest.mark.parametrize(
        "settings",
        [{"base_model": "demo"}, {"loader": "diffusers"}, {"network_dimm": "4"}],
        ids=["a model that comes with the package", "diffusers was asked for", "a config with a mistake"],
    )
    def test_what_needs_no_comfyui_stays_here(self, comfyui: Path, tmp_path: Path, settings, monkeypatch, capsys):
        became = []
        monkeypatch.setattr(module, "_become", lambda *command: became.append(command))
        options = argparse.Namespace(config_files=[], config=str(config(tmp_path, **settings)), **NO_OPTIONS)
        enter_comfyui(options)
        assert (became, options.needs, capsys.readouterr().err) == ([], "unchanged", "")
        options.config = str(config(tmp_path))
        enter_comfyui(options)
        assert became == [(comfyui / ".venv" / "bin" / "python", ["typed"])]

    def test_what_that_python_lacks_is_named_with_its_pip(self, comfyui: Path, tmp_path: Path, monkeypatch):
        venv.create(tmp_path / "bare", with_pip=False)
        python = tmp_path / "bare" / "bin" / "python"
        done = typed("train", str(config(tmp_path)), COMFYUI_PYTHON=str(python))
        assert done.returncode != 0
        for fact in ("peft", "which are not installed", f'"{python}" -m pip install'):
            assert fact in done.stderr
        assert "matplotlib" not in done.stderr  # ComfyUI runs without it

    def test_it_is_not_started_again_there(self, comfyui: Path, tmp_path: Path, monkeypatch, capsys):
        monkeypatch.setenv(module.STARTED, "1")
        assert main(["check", str(config(tmp_path))]) == ExitStatus.MODEL
        said = capsys.readouterr().err
        assert f"The ComfyUI in {comfyui} cannot be imported by {sys.executable}" in said
        assert "loader: diffusers" in said


def test_comfyui_python_names_another_one(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert python_of(comfyui) == comfyui / ".venv" / "bin" / "python"
    other = tmp_path / "python"
    other.write_text(ECHO)
    monkeypatch.setenv("COMFYUI_PYTHON", str(other))
    assert python_of(comfyui) == other
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    assert python_of(comfyui) is None


def test_which_base_models_comfyui_opens(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "a model.safetensors"
    folder.mkdir()
    opened = {
        name: opened_by_comfyui(parse_config({"base_model": name}))
        for name in ("demo", "sub/model.safetensors", "MODEL.SFT", "runwayml/stable-diffusion-v1-5", str(folder))
    }
    assert [name for name, is_opened in opened.items() if is_opened] == ["sub/model.safetensors", "MODEL.SFT"]
    assert opened_by_comfyui(parse_config({"base_model": "demo", "loader": "comfyui"}))
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    assert not opened_by_comfyui(parse_config({"base_model": "model.safetensors"}))
    with pytest.raises(CrucibleError) as refused:
        opened_by_comfyui(parse_config({"base_model": "demo", "loader": "comfyui"}))
    for fact in ("loader is comfyui", str(tmp_path / "nowhere"), "main.py"):
        assert fact in str(refused.value)


@pytest.mark.parametrize("loader", ["auto", "comfyui"])
def test_files_of_a_model_that_has_its_own_are_refused(comfyui: Path, loader: str):
    config = parse_config({"base_model": "demo", "vae": "my.safetensors", "clip_type": "flux", "loader": loader})
    with pytest.raises(CrucibleError) as refused:
        open_base_model(config, lambda: None)
    for fact in ("clip_type and vae are set", "base_model = demo", "would be ignored", "Remove them"):
        assert fact in str(refused.value)
    assert refused.value.kind == "settings"


def test_files_beside_a_file_that_diffusers_opens_are_refused():
    config = parse_config({"base_model": "a.safetensors", "vae": "my.safetensors", "loader": "diffusers"})
    with pytest.raises(CrucibleError) as refused:
        open_base_model(config, lambda: None)
    for fact in ("vae is set", "diffusers opens base_model = a.safetensors", "would be ignored", "loader: comfyui"):
        assert fact in str(refused.value)
