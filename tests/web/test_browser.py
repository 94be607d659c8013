"""Tests of the example workflows and the extension in a real page, in both renderers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from server import PACK_FOLDER, ROOT

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

NAMES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
DEMO = "train_your_first_lora_no_downloads"
SDXL = "train_lora_on_your_checkpoint_sdxl"
STACK = "stack_and_merge_loras"
API_FORMS = Path(__file__).parent / "workflows"

FEW_STEPS = {
    "CrucibleConfigureLoRA": {"max_train_steps": 4, "batch_size": 2},
    "KSampler": {"steps": 2},
}


@pytest.mark.parametrize("name", NAMES)
def test_workflow_opens_as_it_was_made(comfy, name):
    comfy.load_template(PACK_FOLDER, name)
    assert comfy.prompt() == json.loads((API_FORMS / f"{name}.json").read_text(encoding="utf-8"))
    assert comfy.overlapping_nodes() == []
    if name in (SDXL, STACK):
        expect(comfy.complaints).to_contain_text("sd_xl_base_1.0.safetensors is missing")
    else:
        expect(comfy.complaints).to_have_count(0)
    assert comfy.errors == []


def test_template_browser_opens_the_demo(comfy):
    page = comfy.page
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    templates = page.get_by_role("dialog")
    templates.get_by_text(PACK_FOLDER, exact=True).dispatch_event("click")
    templates.get_by_text(DEMO).dispatch_event("click")
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'CrucibleDemoModel')")
    expect(comfy.complaints).to_have_count(0)


def test_demo_runs_and_its_lora_is_in_every_list_at_once(comfy):
    """Run the demo with few steps: images on its nodes, the message, and the new file in the lists of two loaders."""
    page = comfy.page
    comfy.load_template(PACK_FOLDER, DEMO)
    comfy.add_nodes("CrucibleLoadLoRA", "LoraLoader")
    comfy.set_widgets({**FEW_STEPS, "CrucibleTrainLoRA": {"output_name": f"from_{comfy.renderer}"}})
    file = f"from_{comfy.renderer}.safetensors"
    assert all(file not in choices for choices in comfy.choices("lora_name"))

    run = comfy.run()
    page.get_by_text(f"{file} is in output/loras").wait_for(timeout=300_000)
    run.wait()

    assert [file in choices for choices in comfy.choices("lora_name")] == [True, True]
    comfy.wait_for_pictures("PreviewImage", [10, 4])
    comfy.wait_for_pictures("CrucibleTrainLoRA", [1])
    expect(comfy.complaints).to_have_count(0)
    assert comfy.errors == []


def test_second_run_trains_nothing(comfy):
    """Nothing has changed since the previous test, so ComfyUI reuses the result."""
    before = comfy.choices("lora_name")
    comfy.run().wait()
    comfy.refresh()
    assert comfy.choices("lora_name") == before
