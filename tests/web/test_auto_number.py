"""Tests of number fields that may be auto in a real page, in both renderers."""

from __future__ import annotations

import pytest
from browser import EMPTY
from server import PromptFailed

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect

pytestmark = [pytest.mark.comfyui, pytest.mark.browser]

RED = "#ee0000"

ADD = """
([type, place]) => {
    const node = LiteGraph.createNode(type);
    node.pos = place;
    app.canvas.emitBeforeChange();
    app.graph.add(node);
    app.canvas.emitAfterChange();
    return String(node.id);
}
"""

DRAWN = """
() => {
    const texts = [];
    const {fillText} = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        texts.push([text, this.fillStyle]);
        return fillText.call(this, text, ...rest);
    };
    app.canvas.draw(true, true);
    CanvasRenderingContext2D.prototype.fillText = fillText;
    return texts;
}
"""
"""Draws the canvas, and returns all texts on it with their colours."""

PLACE = """
([id, name]) => {
    const node = app.graph.getNodeById(id);
    const widget = node.widgets.find((widget) => widget.name === name);
    const {left, top} = app.canvas.canvas.getBoundingClientRect();
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10]);
    return [left + x, top + y];
}
"""


class Field:
    """The field of a widget, as the renderer shows it."""

    def __init__(self, comfy, node_id, name, label):
        self.comfy, self.page = comfy, comfy.page
        self.node_id, self.name, self.label = node_id, name, label

    @property
    def input(self):
        return self.page.locator(f'[data-node-id="{self.node_id}"] input[aria-label="{self.name}"]')

    @property
    def shown(self):
        """The text in the field, or its placeholder if it is empty."""
        self.comfy.settle()
        if self.comfy.renderer == "vue":
            return self.input.input_value() or self.input.get_attribute("placeholder")
        texts = [text for text, _ in self.page.evaluate(DRAWN)]
        return texts[texts.index(self.label) + 1]

    @property
    def is_marked(self):
        """Whether the field is marked as wrong."""
        self.comfy.settle()
        if self.comfy.renderer == "vue":
            return self.input.evaluate("(field) => field.matches('.p-invalid, [aria-invalid=true]')")
        drawn = self.page.evaluate(DRAWN)
        at = [text for text, _ in drawn].index(self.label) + 1
        return drawn[at][1] == RED

    def type(self, text):
        if self.comfy.renderer == "vue":
            self.input.click()
            self.page.keyboard.press("Control+a")
            self.page.keyboard.press("Delete")
            self.page.keyboard.type(text)
            self.input.blur()
        else:
            self.page.mouse.click(*self.page.evaluate(PLACE, [self.node_id, self.name]))
            dialog = self.page.locator(".graphdialog")
            dialog.locator("input").fill(text)
            dialog.locator("input").press("Enter")
            expect(dialog).to_have_count(0)
        self.comfy.settle()


@pytest.fixture
def node_id(comfy):
    """A new Configure LoRA node, alone in its workflow."""
    comfy.page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
    node_id = comfy.page.evaluate(ADD, ["CrucibleConfigureLoRA", [300, 100]])
    comfy.look_at(0, 0, 1)
    yield node_id
    assert comfy.errors == []


@pytest.fixture
def rank(comfy, node_id):
    return Field(comfy, node_id, "lora_rank", "rank")


@pytest.fixture
def rate(comfy, node_id):
    return Field(comfy, node_id, "learning_rate", "learning rate")


def in_prompt(comfy, name="lora_rank"):
    return next(node["inputs"][name] for node in comfy.prompt().values() if name in node["inputs"])


def test_a_field_is_on_auto_until_it_has_a_number(comfy, rank, rate):
    assert (rank.shown, rate.shown) == ("auto", "auto")
    assert (in_prompt(comfy), in_prompt(comfy, "learning_rate")) == (-1, -1)
    rank.type("8")
    rate.type("2e-4")
    assert (rank.shown, rate.shown) == ("8", "2e-4")
    assert (in_prompt(comfy), in_prompt(comfy, "learning_rate")) == (8, 2e-4)
    rank.type("")
    rate.type("auto")
    assert (rank.shown, rate.shown) == ("auto", "auto")
    assert (in_prompt(comfy), in_prompt(comfy, "learning_rate")) == (-1, -1)
    assert not rank.is_marked


@pytest.mark.parametrize("text", ["eight", "8.5", "0", "5000", "nan", "8 16"])
def test_a_wrong_text_is_marked_explained_and_refused(comfy, rank, text):
    rank.type(text)
    assert rank.is_marked
    toast = comfy.page.locator(".p-toast-message").filter(has_text=f"“{text}” cannot be used")
    expect(toast).to_contain_text("a whole number from 1 to 512, or auto")
    assert comfy.page.evaluate("() => app.graph.nodes[0].title") in toast.text_content()
    assert in_prompt(comfy) == f"{text}: it must be a whole number from 1 to 512, or auto"
    rank.type("16")
    assert not rank.is_marked
    assert in_prompt(comfy) == 16


def test_the_server_refuses_a_wrong_text(comfy, rank, web_server):
    rank.type("8.5")
    comfy.page.evaluate(
        """() => {
            const preview = LiteGraph.createNode("PreviewAny");
            preview.pos = [900, 100];
            app.graph.add(preview);
            app.graph.nodes[0].connect(1, preview, 0);
        }"""
    )
    with pytest.raises(PromptFailed, match=r"lora_rank, 8\.5: it must be a whole number from 1 to 512, or auto"):
        web_server.post("/prompt", {"prompt": comfy.prompt()})


def test_undo_and_redo(comfy, rank):
    rank.type("8")
    comfy.page.wait_for_timeout(1500)
    rank.type("")
    comfy.page.wait_for_timeout(1500)
    for key, shown, number in (("Control+z", "8", 8), ("Control+z", "auto", -1), ("Control+y", "8", 8)):
        comfy.page.keyboard.press(key)
        comfy.page.wait_for_timeout(500)
        assert (rank.shown, in_prompt(comfy)) == (shown, number)


def test_a_saved_workflow_has_the_text_and_opens_with_it(comfy, rank, rate):
    rate.type("2e-4")
    workflow = comfy.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    assert [text for text in workflow["nodes"][0]["widgets_values"] if text == "2e-4"] == ["2e-4"]
    rate.type("")
    comfy.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
    assert (rank.shown, rate.shown) == ("auto", "2e-4")
    assert (in_prompt(comfy), in_prompt(comfy, "learning_rate")) == (-1, 2e-4)


def test_reload_of_the_page(comfy, rank, rate):
    rate.type("2e-4")
    comfy.page.wait_for_timeout(4000)  # the page saves its workflow a moment after the last change
    comfy.page.reload(wait_until="domcontentloaded")
    comfy.page.wait_for_function("() => window.app?.graph?.nodes.length", timeout=120_000)
    assert (rank.shown, rate.shown) == ("auto", "2e-4")


def test_numbers_in_a_workflow_are_read_and_wrong_ones_reset_with_a_message(comfy, rank, rate):
    workflow = comfy.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    names = comfy.page.evaluate("() => app.graph.nodes[0].widgets.map((widget) => widget.name)")
    values = dict(zip(names, workflow["nodes"][0]["widgets_values"], strict=True))
    values |= {"lora_rank": 0, "learning_rate": 0.0002, "epochs": -1, "batch_size": "cosine"}
    workflow["nodes"][0]["widgets_values"] = list(values.values())
    workflow["nodes"][0]["widgets_values_named"] = values
    comfy.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
    assert (rank.shown, rate.shown) == ("auto", "0.0002")
    assert Field(comfy, rank.node_id, "epochs", "epochs").shown == "auto"
    toast = comfy.page.locator(".p-toast-message").filter(has_text="some values cannot be used")
    expect(toast).to_contain_text("Configure LoRA (Crucible)")
    expect(toast).to_contain_text("rank (0), batch size (cosine)")
    assert in_prompt(comfy, "epochs") == in_prompt(comfy, "batch_size") == -1
    comfy.wait_for_quiet()


def test_a_copy_has_numbers_of_its_own(comfy, rank):
    rank.type("8")
    comfy.page.evaluate(
        """() => {
            app.canvas.copyToClipboard(app.graph.nodes);
            app.canvas.pasteFromClipboard({position: [900, 100]});
        }"""
    )
    comfy.settle()
    rank.type("")
    assert sorted(node["inputs"]["lora_rank"] for node in comfy.prompt().values()) == [-1, 8]


def test_a_number_arrives_through_the_socket(comfy, rank, web_server):
    assert comfy.page.evaluate(
        """() => {
            const [configure] = app.graph.nodes;
            const number = LiteGraph.createNode("PrimitiveInt");
            const preview = LiteGraph.createNode("PreviewAny");
            number.pos = [0, 600], preview.pos = [900, 100];
            app.graph.add(number), app.graph.add(preview);
            number.widgets[0].value = 24;
            configure.connect(2, preview, 0);
            return Boolean(number.connect(0, configure, configure.findInputSlot("lora_rank")));
        }"""
    )
    texts = web_server.get(f"/history/{comfy.run().wait()}").popitem()[1]["outputs"].values()
    assert "lora_rank: 24" in "".join(text for output in texts for text in output.get("text", []))


def test_a_primitive_node_gives_numbers(comfy, rank):
    kind = comfy.page.evaluate(
        """() => {
            const [configure] = app.graph.nodes;
            const primitive = LiteGraph.createNode("PrimitiveNode");
            app.graph.add(primitive);
            primitive.connect(0, configure, configure.findInputSlot("lora_rank"));
            const [widget] = primitive.widgets;
            widget.value = 12;
            widget.callback(12);
            return widget.type;
        }"""
    )
    assert kind == "number"
    assert in_prompt(comfy) == 12


@pytest.mark.parametrize(("text", "line"), [("", None), ("8", "lora_rank: 8")])
def test_a_field_on_the_outside_of_a_subgraph(comfy, rank, web_server, text, line):
    """The page sends such a field as the text that it is."""
    rank.type(text)
    comfy.page.evaluate(
        """() => {
            const [configure] = app.graph.nodes;
            const preview = LiteGraph.createNode("PreviewAny");
            preview.pos = [900, 100];
            app.graph.add(preview);
            configure.connect(2, preview, 0);
            const {subgraph} = app.graph.convertToSubgraph(new Set([configure]));
            const [inner] = subgraph.nodes;
            subgraph.addInput("rank", "INT").connect(inner.inputs.find(({name}) => name === "lora_rank"), inner);
        }"""
    )
    assert in_prompt(comfy) == text
    outputs = web_server.get(f"/history/{comfy.run().wait()}").popitem()[1]["outputs"].values()
    (yaml,) = (text for output in outputs for text in output.get("text", []))
    ranks = [written for written in yaml.splitlines() if written.startswith("lora_rank")]
    assert ranks == ([line] if line else [])


PLACEHOLDER = """
([id, name]) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === name).options.placeholder
"""

CONNECTED = """
() => {
    const [configure] = app.graph.nodes;
    const add = (type, place) => {
        const node = LiteGraph.createNode(type);
        node.pos = place;
        app.graph.add(node);
        return node;
    };
    const model = add("CrucibleDemoModel", [0, 1300]);
    const dataset = add("CrucibleLoadDataset", [900, 300]);
    const captions = add("CrucibleCaptionOptions", [1300, 300]);
    captions.connect(0, dataset, dataset.findInputSlot("options"));
    const preview = add("PreviewAny", [900, 100]);
    model.connect(0, configure, configure.findInputSlot("model"));
    dataset.connect(0, configure, configure.findInputSlot("dataset"));
    configure.connect(1, preview, 0);
    return String(captions.id);
}
"""


def test_after_a_run_a_field_shows_what_auto_stood_for(comfy, rank, rate):
    captions = comfy.page.evaluate(CONNECTED)

    def dropout():
        return comfy.page.evaluate(PLACEHOLDER, [captions, "caption_dropout_rate"])

    # In a setup of its own: for one that has already run, the server sends nothing.
    own_rate = {"canvas": "2e-4", "vue": "3e-4"}[comfy.renderer]
    rate.type(own_rate)
    assert rank.shown == dropout() == "auto"
    comfy.run().wait()
    assert (rank.shown, rate.shown, dropout()) == ("auto: 8", own_rate, "auto: 0")
    assert in_prompt(comfy) == -1

    rank.type("4")
    comfy.page.wait_for_timeout(1500)
    assert (rank.shown, dropout()) == ("4", "auto"), "what auto stands for may have changed"
    rank.type("")
    comfy.page.wait_for_timeout(1500)
    assert (rank.shown, dropout()) == ("auto: 8", "auto: 0")

    comfy.page.wait_for_timeout(2000)  # the page saves its workflow a moment after the last change
    comfy.page.reload(wait_until="domcontentloaded")
    comfy.page.wait_for_function("() => window.app?.graph?.nodes.length", timeout=120_000)
    assert (rank.shown, dropout()) == ("auto: 8", "auto: 0")
