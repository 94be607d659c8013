"""Tests of the example workflows on a real server."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from server import PACK_FOLDER, ROOT

pytestmark = pytest.mark.comfyui

NAMES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
API_FORMS = Path(__file__).parent / "workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

each_workflow = pytest.mark.parametrize("name", NAMES)


def prompt(name):
    """Return the API form of a workflow."""
    return json.loads((API_FORMS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_template_browser_lists_them(web_server):
    assert sorted(web_server.get("/workflow_templates")[PACK_FOLDER]) == NAMES


@each_workflow
def test_the_template_browser_shows_their_thumbnails(web_server, name):
    picture = web_server.get_bytes(f"/api/workflow_templates/{PACK_FOLDER}/{name}.jpg")
    assert Image.open(io.BytesIO(picture)).format == "JPEG"


@each_workflow
def test_nodes_have_these_inputs_in_this_order(object_info, name):
    """If this fails, the inputs of a node have changed: run make_workflows.py."""
    for node in prompt(name).values():
        inputs = object_info[node["class_type"]]["input"]
        known = {**inputs["required"], **inputs.get("optional", {})}
        # The inputs of a node that grows with its links are called inputs.input0, inputs.input1 and so on.
        given = {key.split(".")[0] for key in node["inputs"]}
        assert set(inputs["required"]) <= given <= set(known), node["class_type"]
        widgets = [
            key
            for key, spec in known.items()
            if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not (spec[1:] and spec[1].get("forceInput"))
        ]
        assert [key for key in node["inputs"] if key in widgets] == widgets, node["class_type"]


def test_the_server_misses_nothing_but_the_checkpoint(web_server):
    """The server checks all outputs before it runs any, then runs those without errors: here, the dataset's preview."""
    reply = web_server.post("/prompt", {"prompt": prompt("train_lora_on_your_checkpoint_sdxl")})
    web_server.wait(reply["prompt_id"])
    (faulty,) = reply["node_errors"].values()
    (error,) = faulty["errors"]
    assert faulty["class_type"] == "CheckpointLoaderSimple"
    assert (error["type"], error["extra_info"]["input_name"]) == ("value_not_in_list", "ckpt_name")


def test_help_pages_are_served(web_server, object_info):
    for node_id in (node_id for node_id in object_info if node_id.startswith("Crucible")):
        page = web_server.get_bytes(f"/extensions/{PACK_FOLDER}/docs/{node_id}.md").decode()
        assert page.startswith(f"# {object_info[node_id]['display_name']}\n")


@pytest.mark.parametrize(
    "name", ["train_your_first_lora_no_downloads", "teach_a_language_model_your_words_then_draw_them"]
)
def test_a_demo_is_understood_at_first_sight(name):
    demo = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(demo["nodes"]) <= 14


@each_workflow
def test_the_whole_workflow_is_seen_when_it_opens(name):
    """It opens on a page of 1,400 x 900 pixels, whose bars take 60 at the left and 100 at the top."""
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    scale, (x, y) = workflow["extra"]["ds"]["scale"], workflow["extra"]["ds"]["offset"]
    for group in workflow["groups"]:
        left, top, width, height = group["bounding"]
        assert (left + x) * scale >= 60
        assert (top + y) * scale >= 100
        assert (left + x + width) * scale <= 1400
        assert (top + y + height) * scale <= 900
