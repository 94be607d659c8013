"""At ComfyUI's start, the pack loads its nodes and their schemas, but no libraries that are slow to import."""

import json
import subprocess

import pytest
from server import ROOT

pytestmark = pytest.mark.comfyui

# This loads the pack as ComfyUI does, gets the schema of every node, and prints which packages were imported.
SCRIPT = """
import asyncio, json, sys

comfyui, pack = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = ["main.py", "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import nodes
import comfy_config.config_parser  # reads the pack's pyproject.toml

import server

server.PromptServer(asyncio.new_event_loop())
before = set(sys.modules)
assert asyncio.run(nodes.load_custom_node(pack))
ours = {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("Crucible")}
for node in ours.values():
    node.GET_NODE_INFO_V1()
pack_module = pack.replace(".", "_x_")
imported = {name.split(".")[0] for name in set(sys.modules) - before if not name.startswith(pack_module)}
print(json.dumps({"nodes": sorted(ours), "imported": sorted(imported - sys.stdlib_module_names)}))
"""

PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


@pytest.fixture(scope="module")
def start(comfyui_path, prepared_python):
    command = [prepared_python, "-c", SCRIPT, str(comfyui_path), str(ROOT)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_every_node_has_a_help_page_and_every_page_a_node(start):
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert set(start["nodes"]) == pages


def test_start_imports_nothing_but_pydantic(start):
    assert set(start["imported"]) <= PYDANTIC
