"""Tests that the files of the example workflows are complete, consistent and free of anything from other packs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import SETTINGS
from lora_crucible.config.setting import AUTO_NUMBER
from PIL import Image

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
API_FORMS = ROOT / "tests" / "web" / "workflows"

MUTED = 2
NOTES = {"MarkdownNote", "Note"}
AUTO_NUMBERS = {"max_length", *(name for name, one in SETTINGS.items() if one.is_number and one.may_be_auto)}
"""The inputs that the page shows as an empty field and sends as a number."""

PROPERTIES = {"Node name for S&R", "cnr_id", "models"}
"""The allowed node properties: other packs add their own to workflows that are saved while they are loaded."""

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def to_api_form(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return what the page would send to the server: widgets and links by name, without notes and muted nodes."""
    sources = {number: [str(node), slot] for number, node, slot, *_ in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES or node["mode"] == MUTED:
            continue
        inputs = dict(node.get("widgets_values_named", {}))
        inputs.pop("control_after_generate", None)
        inputs |= {name: AUTO_NUMBER for name, value in inputs.items() if value == "" and name in AUTO_NUMBERS}
        inputs |= {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def texts(content: Any) -> Iterator[str]:
    """Yield all strings in JSON data, including keys."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from (key, *texts(value))
    elif isinstance(content, list):
        for value in content:
            yield from texts(value)


def test_workflows_exist_and_say_what_they_do():
    assert [path.stem for path in WORKFLOWS] == [
        "caption_and_check_a_dataset",
        "stack_and_merge_loras",
        "teach_a_language_model_your_words_then_draw_them",
        "train_lora_on_your_checkpoint_sdxl",
        "train_your_first_lora_no_downloads",
    ]


@each_workflow
def test_agrees_with_its_api_form(path):
    assert to_api_form(read(path)) == read(API_FORMS / path.name)


@each_workflow
def test_widgets_are_the_same_by_name_and_by_position(path):
    """Older versions of ComfyUI's page read widget values by position, newer ones by name."""
    for node in read(path)["nodes"]:
        assert list(node.get("widgets_values_named", {}).values()) == node.get("widgets_values", [])


@each_workflow
def test_links_are_known_at_both_ends(path):
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, input_, _ in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][input_]["link"] == number


@each_workflow
def test_holds_nothing_foreign(path):
    workflow = read(path)
    assert set(workflow["extra"]) <= {"ds"}
    for node in workflow["nodes"]:
        assert set(node["properties"]) <= PROPERTIES, node["type"]
    for text in texts(workflow):
        assert not re.match(r"/|~|[A-Za-z]:\\", text), f"{text} looks like a path on somebody's computer"


@each_workflow
def test_seeds_stay(path):
    """If seeds changed, a second run would draw other images, and before and after could not be compared."""
    for node in read(path)["nodes"]:
        assert node.get("widgets_values_named", {}).get("control_after_generate", "fixed") == "fixed"


@each_workflow
def test_has_a_thumbnail(path):
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.size == (400, 400)
