"""The command line in ComfyUI's Python: a checkpoint is checked, several processes train, and a signal stops a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import losses, typed
from processes import wait_until
from server import ONE_THREAD, ROOT

pytestmark = pytest.mark.comfyui

SETTINGS = """\
train_data_dir: demo
output_name: mine
batch_size: 4
sample_steps: 1
sample_every_n_steps: 999
measure: never
"""


@pytest.fixture
def environment(comfyui_path, prepared_python):
    found = {"COMFYUI_PATH": str(comfyui_path), "COMFYUI_PYTHON": prepared_python}
    return {**os.environ, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1", **found}


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(SETTINGS + text)
    return path


def test_a_checkpoint_with_everything_in_it(comfyui_path, prepared_python, environment, tmp_path):
    in_process = Path(__file__).parent / "in_process"
    paths = {"PYTHONPATH": str(ROOT / "tests" / "trainer")}
    command = [prepared_python, in_process / "write_models.py", tmp_path]
    subprocess.run(command, env={**environment, **paths}, check=True)
    config = written(tmp_path, "base_model: sd15.safetensors\nresolution: 64\n")
    said = typed("check", config, comfyui=comfyui_path, python=prepared_python)
    assert said.count("Running in ComfyUI's Python") == 1
    assert "The config file is valid." in said
    assert "usual for AdamW on SD1.5" in said
    assert not (tmp_path / "output" / "mine.safetensors").exists()


def test_two_processes_train_as_one(comfyui_path, prepared_python, environment, tmp_path):
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        config = written(folder, "base_model: demo\nloader: comfyui\nmax_train_steps: 2\n")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        command = [sys.executable, *launcher, "-m", "trainer", "train", str(config)]
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
        said = done.stdout.decode()
        assert done.returncode == 0, said[-4000:]
        assert said.count("Running in ComfyUI's Python") == 1
        found[count] = losses(folder / "output" / "mine")
    assert found[2] == pytest.approx(found[1], abs=1e-5)


def test_sigterm_stops_and_the_same_command_goes_on(comfyui_path, prepared_python, environment, tmp_path):
    config = written(tmp_path, "base_model: demo\nloader: comfyui\nmax_train_steps: 500\nlr_scheduler: constant\n")
    run = tmp_path / "output" / "mine"
    with open(tmp_path / "said.txt", "wb") as output:
        command = [sys.executable, "-m", "trainer", "train", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    log = run / "log.jsonl"
    reached = wait_until(lambda: log.exists() and bool(log.read_text()), process)
    process.send_signal(signal.SIGTERM)  # the process is ComfyUI's Python by now
    status = process.wait()
    said = (tmp_path / "said.txt").read_text()
    assert reached, said
    assert status == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    steps = len(losses(run))
    written(tmp_path, f"base_model: demo\nloader: comfyui\nmax_train_steps: {steps + 1}\nlr_scheduler: constant\n")
    again = typed("train", config, comfyui=comfyui_path, python=prepared_python)
    assert f"Resumed after step {steps} of mine" in again
    assert len(losses(run)) == steps + 1
