"""Tests of workflows that were saved before settings moved to other nodes, in a real page, in both renderers."""

from __future__ import annotations

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

LOAD = """
async (nodes) => {
    const [named, unnamed] = nodes.map((values, index) => ({
        id: index + 1, type: ["CrucibleConfigureLoRA", "CrucibleLoadDataset"][index], pos: [400 * index, 0],
        size: [300, 400], flags: {}, order: index, mode: 0, inputs: [], outputs: [], properties: {}, ...values,
    }));
    const graph = {
        version: 0.4, nodes: [named, unnamed], links: [], groups: [], last_node_id: 2, last_link_id: 0, extra: {},
    };
    await app.loadGraphData(graph, true, true, "old");
    const values = ({widgets}) => Object.fromEntries(widgets.map(({name, value}) => [name, value]));
    return app.graph.nodes.map(values);
}
"""

NAMED = {"purpose": "style", "lora_rank": 16, "lora_alpha": 8, "optimizer": "lion", "save_steps": 0, "seed": 7}


def test_values_without_a_place_are_named_and_none_slips_into_another_widget(comfy):
    old = [
        {"widgets_values": list(NAMED.values()), "widgets_values_named": NAMED},
        {"widgets_values": ["demo", "ohwx", 512, "auto", "use_trigger_word", "", "", True, 0, 0.1, 1, "", "path"]},
    ]
    configure, load = comfy.page.evaluate(LOAD, old)
    comfy.settle()
    assert (configure["purpose"], str(configure["lora_rank"]), configure["seed"]) == ("style", "16", 7)
    assert configure["learning_rate"] == ""
    assert (load["trigger_word"], load["repeats"], load["path"]) == ("", 1, "")
    message = comfy.page.get_by_text("saved by an earlier version of LoRA Crucible")
    expect(message).to_have_count(1)
    detail = comfy.page.locator("body")
    expect(detail).to_contain_text("lora_alpha = 8 (now on Layers and Algorithm (Crucible))")
    expect(detail).to_contain_text("optimizer = lion (now on Optimizer and Schedule (Crucible))")
    expect(detail).not_to_contain_text("save_steps = 0")
    expect(detail).to_contain_text("all values are at their defaults")


def test_a_workflow_of_this_version_opens_without_a_word(comfy):
    comfy.page.reload()
    comfy.page.wait_for_function("() => window.app?.graph")
    comfy.load_template("lora-crucible", "train_your_first_lora_no_downloads")
    expect(comfy.page.get_by_text("saved by an earlier version of LoRA Crucible")).to_have_count(0)
