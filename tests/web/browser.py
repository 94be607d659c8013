"""ComfyUI's page in Chromium."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "comfyui"))  # for scripts; pytest has it in its own path

from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright
from server import ROOT, Server

CHROMIUM = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("google-chrome")

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)

SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the template browser lies over the page
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.UseNewMenu": "Top",
    "Comfy.Queue.MaxHistoryItems": 8,
}

EMPTY = {"version": 0.4, "nodes": [], "links": [], "groups": [], "last_node_id": 0, "last_link_id": 0}

RENDERERS = {"canvas": False, "vue": True}
"""ComfyUI's two ways to draw nodes: the classic canvas, and Nodes 2.0."""


BOXES = """
() => [...app.graph.groups, ...app.graph.nodes].map((item) => {
    const title = app.graph.nodes.includes(item) ? LiteGraph.NODE_TITLE_HEIGHT : 0;
    return {
        title: item.title, isNode: title > 0,
        left: item.pos[0], top: item.pos[1] - title,
        right: item.pos[0] + item.size[0], bottom: item.pos[1] + item.size[1],
    };
})
"""

PICTURES = """
([type, renderer, expected]) => {
    const counts = app.graph.nodes.filter((node) => node.type === type).map((node) => {
        const pictures = renderer === "vue"
            ? [...document.querySelectorAll(`[data-node-id="${node.id}"] img`)]
            : (node.imgs ?? []);
        return pictures.filter((picture) => picture.complete && picture.naturalWidth > 0).length;
    });
    return String(counts) === String(expected);
}
"""


class Run:
    """A prompt that was sent with the Run button."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.evaluate(
            """() => {
                window.crucibleRun = null;
                const end = ({type, detail}) => (window.crucibleRun = {type, ...detail});
                for (const type of ["execution_success", "execution_error", "execution_interrupted"])
                    app.api.addEventListener(type, end, {once: true});
            }"""
        )
        page.get_by_role("button", name="Run", exact=True).first.click()

    def wait(self, seconds: float = 300) -> str:
        """Until it ended well; its id."""
        self.page.wait_for_function("() => window.crucibleRun", timeout=seconds * 1000)
        end = self.page.evaluate("() => window.crucibleRun")
        assert end["type"] == "execution_success", end
        return end["prompt_id"]


class ComfyPage:
    """The page of a server, with what a user would do on it and notice about it.

    Attributes:
        errors: uncaught errors of the page, and what packs' scripts wrote to the console as errors or warnings.
    """

    def __init__(self, page: Page, renderer: str) -> None:
        self.page = page
        self.renderer = renderer
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._read_console)

    def _read_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "/extensions/" in message.location["url"]:
            self.errors.append(message.text)

    def load_template(self, pack: str, name: str) -> None:
        """Open a workflow as the template browser does."""
        self.page.evaluate(
            """async ([pack, name]) => {
                const file = await fetch(`/api/workflow_templates/${pack}/${name}.json`);
                await app.loadGraphData(await file.json(), true, true, name);
            }""",
            [pack, name],
        )
        self.settle()

    def settle(self) -> None:
        """Wait until what was changed in the graph is drawn and measured."""
        self.page.evaluate(
            """async () => {
                for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
            }"""
        )

    def add_nodes(self, *types: str) -> None:
        """Below everything else."""
        self.page.evaluate(
            """(types) => types.forEach((type, index) => {
                const node = LiteGraph.createNode(type);
                node.pos = [index * 400, 3000];
                app.graph.add(node);
            })""",
            list(types),
        )
        self.settle()

    def set_widgets(self, values: dict[str, dict[str, Any]]) -> None:
        """Of all nodes of a type."""
        self.page.evaluate(
            """(values) => {
                for (const node of app.graph.nodes)
                    for (const [name, value] of Object.entries(values[node.type] ?? {}))
                        node.widgets.find((widget) => widget.name === name).value = value;
            }""",
            values,
        )

    def run(self) -> Run:
        return Run(self.page)

    def refresh(self) -> None:
        """What pressing R does."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')")

    def choices(self, widget: str) -> list[list[str]]:
        """What can be chosen in all combos of this name."""
        return self.page.evaluate(
            """(name) => app.graph.nodes
                .flatMap((node) => node.widgets ?? [])
                .filter((widget) => widget.name === name)
                .map((widget) => [...widget.options.values])""",
            widget,
        )

    def wait_for_pictures(self, node_type: str, counts: list[int]) -> None:
        """Until this many are on each node of a type."""
        self.page.wait_for_function(PICTURES, arg=[node_type, self.renderer, counts])

    def overlapping_nodes(self) -> list[str]:
        boxes = [box for box in self.page.evaluate(BOXES) if box["isNode"]]
        return [
            f"{one['title']} and {other['title']}"
            for one, other in combinations(boxes, 2)
            if max(one["left"], other["left"]) < min(one["right"], other["right"])
            and max(one["top"], other["top"]) < min(one["bottom"], other["bottom"])
        ]

    def node_id(self, title: str) -> str:
        return self.page.evaluate("(title) => String(app.graph.nodes.find((n) => n.title === title).id)", title)

    def bounds(self, title: str | None = None) -> tuple[float, float, float, float]:
        """Left, top, width and height of a group or node, or of everything."""
        boxes = [box for box in self.page.evaluate(BOXES) if title in (None, box["title"])]
        left, top = (min(box[side] for box in boxes) for side in ("left", "top"))
        right, bottom = (max(box[side] for box in boxes) for side in ("right", "bottom"))
        return left, top, right - left, bottom - top

    def look_at(self, left: float, top: float, scale: float) -> None:
        self.page.evaluate(
            """([offset, scale]) => {
                app.canvas.ds.offset = offset;
                app.canvas.ds.scale = scale;
                app.canvas.setDirty(true, true);
            }""",
            [[left, top], scale],
        )
        self.settle()

    def wait_for_quiet(self) -> None:
        """Until all messages are gone."""
        expect(self.page.locator(".p-toast-message")).to_have_count(0, timeout=60_000)

    def prompt(self) -> dict[str, Any]:
        """The graph in API form, as Run would send it, without the titles of nodes."""
        nodes = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return {number: {"class_type": node["class_type"], "inputs": node["inputs"]} for number, node in nodes.items()}

    @property
    def complaints(self) -> Locator:
        """All dialogs, the page's panel of errors, and the toasts that are no good news."""
        signs = "[role=dialog], [data-testid=error-overlay], .p-toast-message-error, .p-toast-message-warn"
        return self.page.locator(signs).locator("visible=true")


@contextmanager
def comfy_page(
    server: Server, renderer: str = "canvas", width: int = 1600, height: int = 900, zoom: float = 1
) -> Iterator[ComfyPage]:
    """Open ComfyUI as somebody who has used it before, and wait until it can be used."""
    server.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=zoom, service_workers="block"
        )
        # The page asks comfy.org for news: nothing here depends on the network.
        context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        page = context.new_page()
        shown = ComfyPage(page, renderer)
        page.goto(server.url, wait_until="domcontentloaded")
        # The page opens with ComfyUI's default workflow, whose models are missing.
        page.wait_for_function("() => window.app?.graph?.nodes.length", timeout=120_000)
        shown.settle()
        page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
        try:
            yield shown
        finally:
            browser.close()


@contextmanager
def running_server() -> Iterator[Server]:
    """A server of its own for a script; tests have a fixture."""
    path = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["find_comfyui"]()
    if path is None:
        sys.exit("no ComfyUI found: set COMFYUI_PATH")
    python = os.environ.get("COMFYUI_PYTHON") or str(path / ".venv" / "bin" / "python")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(path, python, Path(folder) / "ComfyUI")
        try:
            yield server
        finally:
            server.stop()
