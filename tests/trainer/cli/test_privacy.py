"""Nothing phones home: a whole run opens no connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import socket, sys

tried = []

def refuse(what):
    def refused(*arguments, **options):
        tried.append((what, arguments[1:] if what == "connect" else arguments))
        raise OSError("no network here")
    return refused

socket.socket.connect = refuse("connect")
socket.socket.connect_ex = refuse("connect")
socket.getaddrinfo = refuse("getaddrinfo")
socket.gethostbyname = refuse("gethostbyname")

from trainer.cli.main import main

status = main(["train", sys.argv[1]])
print("TRIED", tried)
sys.exit(status)
"""

CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
max_train_steps: 1
batch_size: 1
sample_prompts: a
sample_steps: 1
measure: never
"""


@pytest.mark.slow
def test_a_run_opens_no_connection(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(folder=tmp_path / "out"))
    root = Path(__file__).parents[3]
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE",)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(config)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "TRIED []" in done.stdout, done.stdout
