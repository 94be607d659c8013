"""Tests of the project's own rules: imports, dependencies, packages and version numbers."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOORS = (
    {"cli"},
    {"training"},
    {"runs"},
    {"evaluation"},
    {"monitoring", "memory"},
    {"models"},
    {"optim"},
    {"planning", "adapters", "captioners", "merging", "conversion"},
    {"data", "formats"},
    {"config", "demo", "doctor"},
    {"distributed"},
    {"hardware"},
    {"files"},
    {"events", "messages"},
    {"errors", "seeding"},
)
"""The packages of trainer/ from top to bottom: each imports from those below it only."""

COMFYUI_MODULES = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution"}


def imported_modules(file: Path) -> set[str]:
    """Return the top-level names of all absolute imports in a file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_only_one_package_of_the_trainer_knows_comfyui():
    inside = ROOT / "trainer" / "models" / "comfyui"
    for file in (ROOT / "trainer").rglob("*.py"):
        found = imported_modules(file) & COMFYUI_MODULES
        assert not found or file.is_relative_to(inside), f"{file} imports {found}"


def test_the_trainer_imports_itself_relatively():
    """The trainer is loaded under three names: `trainer`, `lora_crucible`, and the pack's name inside ComfyUI."""
    for file in [*(ROOT / "trainer").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        assert not imported_modules(file) & {"trainer", "lora_crucible"}, file


def relative_imports(file: Path) -> set[str]:
    """Return the first parts of all relative imports of a file of the trainer, counted from trainer/."""
    folders = file.relative_to(ROOT / "trainer").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            above = folders[: len(folders) - node.level + 1]
            found |= {[*above, *name.split(".")][0] for name in names}
    return found - {"__version__"}


def test_packages_import_only_from_those_below_them():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    packages = {path.stem for path in (ROOT / "trainer").iterdir() if not path.name.startswith("__")}
    assert packages == floor.keys(), "a package has no floor, or a floor has no package"
    for file in (ROOT / "trainer").rglob("*.py"):
        package = file.relative_to(ROOT / "trainer").parts[0].removesuffix(".py")
        for other in relative_imports(file) - {package}:
            assert package.startswith("__") or floor[other] > floor[package], f"{file} imports {other}, from above"


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:trainer|tests|nodes|web|docs|benchmarks)/[\w/.]+)`", text)
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_config_needs_no_torch():
    """Building the schemas of the nodes must not slow down the start of ComfyUI."""
    code = "import sys; sys.path.insert(0, '.'); import trainer.config; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_line_starts_without_any_package():
    """It says which packages are missing, and starts itself in ComfyUI's Python before torch is imported here."""
    code = (
        "import sys; sys.path.insert(0, '.'); "
        "sys.modules.update(dict.fromkeys(['torch', 'numpy', 'pydantic', 'yaml', 'tqdm', 'filelock', 'PIL'])); "
        "import trainer.cli.main"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_requirements_repeat_the_dependencies():
    """ComfyUI-Manager reads requirements.txt and pip reads pyproject.toml, so both must list the same packages."""
    assert (ROOT / "requirements.txt").read_text().split() == PROJECT["project"]["dependencies"]


def test_no_dependency_replaces_the_users_torch():
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement
        assert not requirement.startswith("torch")


def installed_packages(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Return the folders that setup.py has installed as packages."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: asked.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    folders = asked["package_dir"]
    assert set(folders) == {"lora_crucible"}
    assert len(asked["packages"]) == len(set(asked["packages"]))
    packages = [name.split(".") for name in asked["packages"]]
    return {Path(folders[root], *inner) for root, *inner in packages}


def test_every_package_is_installed(monkeypatch: pytest.MonkeyPatch):
    """A folder of modules without an __init__.py would be missing from the wheel."""
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "trainer").rglob("*.py")}
    assert folders == installed_packages(monkeypatch)


def test_every_data_file_is_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    matched = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath("trainer", *package.split(".")[1:]).glob(pattern)
        if path.is_file()
    }
    files = {path for path in (ROOT / "trainer").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == matched


def test_version_is_one():
    text = (ROOT / "trainer" / "__init__.py").read_text()
    assert f'__version__ = "{PROJECT["project"]["version"]}"' in text
    assert f"## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_nodes_folder_is_no_package():
    """As a package on sys.path, this folder would shadow ComfyUI's own module `nodes`."""
    assert not (ROOT / "nodes" / "__init__.py").exists()
