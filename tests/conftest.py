"""What all tests share: their processes, the trainer under its installed name, and the ComfyUI that some drive."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Threads that wait for work sleep, in this process and those that tests start. Otherwise they keep a core busy, which
# slows a busy machine down several times. OpenMP reads this when torch is imported.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

ROOT = Path(__file__).parent.parent

MOST_PROCESSES = 4
"""The most processes that share the tests. Each takes some seconds to start and about 1 GB of memory."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the tests among several processes if pytest-xdist is installed, unless paths or `-n` are given.

    Tests that use a ComfyUI stay in one process, because they share its server.
    """
    option = config.option
    if getattr(option, "numprocesses", 0) is not None or option.usepdb or hasattr(config, "workerinput"):
        return
    marks = option.markexpr
    without_comfyui = marks == "slow" or ("not comfyui" in marks and "not browser" in marks)
    if without_comfyui and not option.file_or_dir:
        option.numprocesses = min(MOST_PROCESSES, os.cpu_count() or 1)
        option.dist = "loadfile"


def _alias_trainer() -> None:
    """Make `lora_crucible` import the trainer of this checkout, not a copy that happens to be installed."""
    folder = ROOT / "trainer"
    spec = importlib.util.spec_from_file_location(
        "lora_crucible", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["lora_crucible"] = module
    spec.loader.exec_module(module)


_alias_trainer()


def find_comfyui() -> Path | None:
    """Return the folder of a ComfyUI, or None: COMFYUI_PATH, one that this pack is installed in, or comfy-cli's."""
    candidates = [Path(os.environ["COMFYUI_PATH"])] if os.environ.get("COMFYUI_PATH") else []
    candidates += [parent.parent for parent in ROOT.parents if parent.name == "custom_nodes"]
    candidates += [Path.home() / "comfy" / "ComfyUI"]
    return next((path for path in candidates if (path / "main.py").is_file()), None)


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The folder of ComfyUI; tests that need it are skipped if there is none."""
    path = find_comfyui()
    if path is None:
        pytest.skip("no ComfyUI found: set COMFYUI_PATH to run the tests that need one")
    return path


@pytest.fixture(scope="session")
def comfyui_python(comfyui_path: Path) -> str:
    """ComfyUI's own Python, because the one that runs pytest has a different torch and none of ComfyUI's packages."""
    if os.environ.get("COMFYUI_PYTHON"):
        return os.environ["COMFYUI_PYTHON"]
    for name in ("bin/python", "Scripts/python.exe"):
        if (comfyui_path / ".venv" / name).exists():
            return str(comfyui_path / ".venv" / name)
    pytest.skip(f"ComfyUI in {comfyui_path} has no .venv: set COMFYUI_PYTHON to its Python")


@pytest.fixture(scope="session")
def prepared_python(comfyui_python: str) -> str:
    """ComfyUI's Python, with this pack's requirements, pytest and the packages of some captioners installed."""
    modules = "import accelerate, diffusers, num2words, peft, pytest, timm"
    if subprocess.run([comfyui_python, "-c", modules], capture_output=True).returncode:
        wanted = ["-r", str(ROOT / "requirements.txt"), "num2words", "pytest", "timm"]
        subprocess.run([comfyui_python, "-m", "pip", "install", "-q", *wanted], check=True)
    return comfyui_python
