"""Tests of the rows of the LoRA Stack node in a real page, in both renderers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

INK, OIL, HOSTILE = "ink.safetensors", "styles/oil.safetensors", "<img src=x onerror=window.broken=1>.safetensors"
TWO_ROWS = [{"name": INK, "strength_model": 0.8, "enabled": True}, {"name": OIL, "strength_model": 0.5}]


def save_lora(server, name):
    """Put a file with this name into the server's LoRA folder."""
    path = server.base / "models" / "loras" / name
    path.parent.mkdir(exist_ok=True)
    save_file({"tensor": np.zeros(1, np.float32)}, path)


@pytest.fixture(scope="module", autouse=True)
def lora_files(web_server):
    for name in (INK, OIL, HOSTILE):
        save_lora(web_server, name)


class Stack:
    """The first LoRA Stack node on the page."""

    def __init__(self, comfy):
        self.page = comfy.page
        self.element = comfy.page.locator(".crucible-lora-stack").locator("visible=true").first

    @property
    def text(self):
        return self.page.evaluate(
            """() => app.graph.nodes.find((node) => node.type === "CrucibleLoRAStack")
                .widgets.find((widget) => widget.name === "loras").value"""
        )

    @property
    def rows(self):
        return json.loads(self.text)

    @property
    def names(self):
        return [row["name"] for row in self.rows]

    @property
    def names_shown(self):
        return self.element.locator(".row .name").all_text_contents()

    @property
    def height(self):
        return self.page.evaluate("() => app.graph.nodes[0].size[1]")

    def button(self, name):
        return self.element.get_by_role("button", name=name, exact=True)

    def switch(self, name):
        return self.element.get_by_role("checkbox", name=name, exact=True)

    def strength(self, name):
        return self.element.get_by_role("spinbutton", name=name, exact=True)

    def add(self, name):
        self.button("Add LoRA").click()
        self.page.get_by_role("option", name=name, exact=True).click()


@pytest.fixture
def stack(comfy):
    """A new LoRA Stack node, alone in its workflow."""
    comfy.page.evaluate(
        """() => {
            app.graph.clear();
            const node = LiteGraph.createNode("CrucibleLoRAStack");
            node.pos = [300, 200];
            app.graph.add(node);
        }"""
    )
    comfy.look_at(0, 0, 1)
    yield Stack(comfy)
    assert comfy.errors == []


def set_rows(comfy, rows):
    text = rows if isinstance(rows, str) else json.dumps(rows)
    comfy.set_widgets({"CrucibleLoRAStack": {"loras": text}})
    comfy.settle()


def test_rows_are_added_removed_and_reordered_with_the_mouse(comfy, stack):
    empty = stack.height
    for name in (INK, OIL, HOSTILE):
        stack.add(name)
    assert stack.rows == [{"name": name, "strength_model": 1, "enabled": True} for name in (INK, OIL, HOSTILE)]
    comfy.settle()
    full = stack.height
    assert full > empty

    stack.button("move LoRA 3 up").click()
    assert stack.names == stack.names_shown == [INK, HOSTILE, OIL]
    stack.button("move LoRA 1 down").click()
    assert stack.names == stack.names_shown == [HOSTILE, INK, OIL]
    expect(stack.button("move LoRA 1 up")).to_be_disabled()
    expect(stack.button("move LoRA 3 down")).to_be_disabled()

    stack.button("remove LoRA 2").click()
    assert stack.names == stack.names_shown == [HOSTILE, OIL]
    comfy.settle()
    assert empty < stack.height < full


def test_rows_are_made_with_the_keyboard(comfy, stack):
    keyboard = comfy.page.keyboard
    stack.button("Add LoRA").focus()
    keyboard.press("Enter")
    keyboard.type("OIL sty")
    keyboard.press("Enter")
    stack.button("Add LoRA").focus()
    keyboard.press("Enter")
    keyboard.type("ink")
    keyboard.press("ArrowDown")
    keyboard.press("ArrowUp")
    keyboard.press("Enter")
    assert stack.names == [OIL, INK]

    stack.strength("strength of LoRA 1").focus()
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    keyboard.press("Tab")  # to the button that moves it down: the first row cannot move up
    keyboard.press("Enter")
    assert stack.names == [INK, OIL]
    stack.switch("use LoRA 2").focus()
    keyboard.press("Space")
    assert [row["strength_model"] for row in stack.rows] == [1, 0.9]
    assert [row["enabled"] for row in stack.rows] == [True, False]


def test_escape_leaves_the_rows_as_they_are(comfy, stack):
    stack.add(INK)
    stack.element.locator(".row .name").click()
    comfy.page.keyboard.press("Escape")
    expect(comfy.page.get_by_role("listbox")).to_have_count(0)
    assert stack.names == [INK]


def test_strengths_and_switches(comfy, stack):
    set_rows(comfy, TWO_ROWS)
    strength = stack.strength("strength of LoRA 1")
    strength.fill("0.33")
    strength.blur()
    stack.switch("use LoRA 2").uncheck()
    assert stack.rows == [
        {"name": INK, "strength_model": 0.33, "enabled": True},
        {"name": OIL, "strength_model": 0.5, "enabled": False},
    ]
    for not_a_strength in ("", "21"):
        strength.fill(not_a_strength)
        strength.blur()
        expect(strength).to_have_value("0.33")
    assert stack.rows[0]["strength_model"] == 0.33


def test_clip_has_its_own_strength_when_asked(comfy, stack):
    set_rows(comfy, TWO_ROWS)
    stack.switch("CLIP strength").check()
    stack.strength("CLIP strength of LoRA 2").fill("0")
    stack.strength("CLIP strength of LoRA 2").blur()
    assert [(row["strength_model"], row["strength_clip"]) for row in stack.rows] == [(0.8, 0.8), (0.5, 0)]
    stack.switch("CLIP strength").uncheck()
    assert stack.rows == TWO_ROWS


def test_another_file_is_chosen_for_a_row(comfy, stack):
    set_rows(comfy, TWO_ROWS)
    stack.button(INK).click()
    comfy.page.get_by_role("option", name=HOSTILE, exact=True).click()
    assert stack.rows == [{**TWO_ROWS[0], "name": HOSTILE}, TWO_ROWS[1]]
    assert stack.names_shown == [HOSTILE, OIL]


def test_names_are_shown_as_text(comfy, stack):
    stack.add(HOSTILE)
    set_rows(comfy, [{"name": HOSTILE, "strength_model": 1}, {"name": f"gone {HOSTILE}", "strength_model": 1}])
    stack.button("Add LoRA").click()
    comfy.settle()
    assert stack.names_shown == [HOSTILE, f"gone {HOSTILE}"]
    expect(comfy.page.locator(":is(.crucible-lora-stack, .crucible-lora-chooser) img")).to_have_count(0)
    assert comfy.page.evaluate("() => window.broken") is None
    comfy.page.keyboard.press("Escape")


def test_a_missing_file_is_marked_until_it_is_there(comfy, stack, web_server):
    late = f"late_in_{comfy.renderer}.safetensors"
    set_rows(comfy, [TWO_ROWS[0], {"name": late, "strength_model": 1}])
    missing = stack.element.locator(".missing")
    expect(missing).to_have_text([late])
    expect(missing).to_have_attribute("title", f"{late} is not in ComfyUI's LoRA folders")
    save_lora(web_server, late)
    comfy.refresh()
    expect(missing).to_have_count(0)
    stack.add(late)
    assert stack.names == [INK, late, late]
    comfy.wait_for_quiet()


def test_text_that_holds_no_rows_is_kept_and_can_be_put_right(comfy, stack):
    set_rows(comfy, '[{"name": 3}]')
    field = stack.element.get_by_role("textbox", name="rows as JSON")
    expect(field).to_have_value('[{"name": 3}]')
    assert stack.text == '[{"name": 3}]'
    field.fill(json.dumps(TWO_ROWS))
    field.blur()
    assert stack.names_shown == [INK, OIL]
    assert stack.rows == TWO_ROWS


def test_each_change_is_a_step_of_undo(comfy, stack):
    stack.add(INK)
    stack.add(OIL)
    stack.button("remove LoRA 1").click()
    for names in ([INK, OIL], [INK]):
        comfy.page.keyboard.press("Control+z")
        expect(stack.element.locator(".row .name")).to_have_text(names)
        assert stack.names == names


def test_the_value_is_one_text_in_workflow_and_prompt_and_comes_back(comfy, stack):
    set_rows(comfy, TWO_ROWS)
    stack.switch("use LoRA 1").uncheck()
    text = stack.text
    rows = [{**TWO_ROWS[0], "enabled": False}, TWO_ROWS[1]]
    assert json.loads(text) == rows
    (node,) = comfy.prompt().values()
    assert node["inputs"] == {"loras": text}
    workflow = comfy.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    assert workflow["nodes"][0]["widgets_values"] == [text]

    set_rows(comfy, [])
    comfy.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
    comfy.settle()
    assert stack.text == text
    assert stack.names_shown == [INK, OIL]
    assert stack.height == workflow["nodes"][0]["size"][1]


def test_a_copy_has_rows_of_its_own(comfy, stack):
    set_rows(comfy, TWO_ROWS)
    comfy.page.evaluate(
        """() => {
            app.canvas.copyToClipboard(app.graph.nodes);
            app.canvas.pasteFromClipboard({position: [300, 600]});
        }"""
    )
    comfy.settle()
    stack.button("remove LoRA 1").click()
    values = comfy.page.evaluate("() => app.graph.nodes.map((node) => node.widgets[0].value)")
    assert sorted(len(json.loads(value)) for value in values) == [1, 2]
    assert comfy.page.locator(".crucible-lora-stack .row").locator("visible=true").count() == 3


def test_reload_of_the_page_keeps_the_rows(comfy, stack):
    stack.add(OIL)
    stack.strength("strength of LoRA 1").fill("0.25")
    stack.strength("strength of LoRA 1").blur()
    comfy.page.wait_for_timeout(2000)  # the page saves its workflow a moment after the last change
    comfy.page.reload(wait_until="domcontentloaded")
    comfy.page.wait_for_function("() => window.app?.graph?.nodes.length", timeout=120_000)
    comfy.settle()
    assert stack.rows == [{"name": OIL, "strength_model": 0.25, "enabled": True}]
    assert stack.names_shown == [OIL]


def test_the_stack_arrives_at_the_server(comfy, stack, web_server):
    for name in (INK, OIL):
        stack.add(name)
    stack.strength("strength of LoRA 2").fill("0.5")
    stack.strength("strength of LoRA 2").blur()
    comfy.page.evaluate(
        """() => {
            const preview = LiteGraph.createNode("PreviewAny");
            preview.pos = [800, 200];
            app.graph.add(preview);
            app.graph.nodes[0].connect(0, preview, 0);
        }"""
    )
    (shown,) = web_server.get(f"/history/{comfy.run().wait()}").popitem()[1]["outputs"].values()
    assert json.loads(shown["text"][0]) == [[INK, 1, 1], [OIL, 0.5, 0.5]]
