"""Drives ComfyUI's page in Chromium, as a user would."""

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

sys.path.append(str(Path(__file__).parent.parent / "comfyui"))  # for scripts; pytest finds this folder by itself

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
    "Comfy.TutorialCompleted": True,  # otherwise the template browser covers the page
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.UseNewMenu": "Top",
    "Comfy.Queue.MaxHistoryItems": 8,
}

EMPTY = {"version": 0.4, "nodes": [], "links": [], "groups": [], "last_node_id": 0, "last_link_id": 0}

RENDERERS = {"canvas": False, "vue": True}
"""The two ways in which ComfyUI draws nodes (classic canvas, Nodes 2.0), and whether each uses Vue."""


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
    """A prompt that is sent with the Run button when this object is created."""

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
        """Wait until the prompt has finished successfully, and return its id."""
        self.page.wait_for_function("() => window.crucibleRun", timeout=seconds * 1000)
        end = self.page.evaluate("() => window.crucibleRun")
        assert end["type"] == "execution_success", end
        return end["prompt_id"]


class ComfyPage:
    """The page of a ComfyUI server, with what a user can do and see on it.

    Attributes:
        errors: uncaught errors of the page, and errors and warnings that the scripts of packs wrote to the console.
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
        """Open a workflow in the same way as the template browser."""
        self.page.evaluate(
            """async ([pack, name]) => {
                const file = await fetch(`/api/workflow_templates/${pack}/${name}.json`);
                await app.loadGraphData(await file.json(), true, true, name);
            }""",
            [pack, name],
        )
        self.settle()

    def settle(self) -> None:
        """Wait until changes to the graph have been drawn and measured."""
        self.page.evaluate(
            """async () => {
                for (let frame = 0; frame < 12; frame++) await new Promise(requestAnimationFrame);
            }"""
        )

    def add_nodes(self, *types: str) -> None:
        """Add nodes of these types below everything else."""
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
        """Set widgets on all nodes of a type.

        Args:
            values: node type to widget name to value.
        """
        self.page.evaluate(
            """(values) => {
                for (const node of app.graph.nodes)
                    for (const [name, value] of Object.entries(values[node.type] ?? {}))
                        node.widgets.find((widget) => widget.name === name).value = value;
            }""",
            values,
        )

    def run(self) -> Run:
        """Press the Run button."""
        return Run(self.page)

    def refresh(self) -> None:
        """Refresh the node definitions, as the R key does."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')")

    def choices(self, widget: str) -> list[list[str]]:
        """Return the options of every combo widget with this name."""
        return self.page.evaluate(
            """(name) => app.graph.nodes
                .flatMap((node) => node.widgets ?? [])
                .filter((widget) => widget.name === name)
                .map((widget) => [...widget.options.values])""",
            widget,
        )

    def wait_for_pictures(self, node_type: str, counts: list[int]) -> None:
        """Wait until the nodes of a type show these numbers of images, one number per node."""
        self.page.wait_for_function(PICTURES, arg=[node_type, self.renderer, counts])

    def overlapping_nodes(self) -> list[str]:
        """Return the titles of each two nodes that overlap."""
        boxes = [box for box in self.page.evaluate(BOXES) if box["isNode"]]
        return [
            f"{one['title']} and {other['title']}"
            for one, other in combinations(boxes, 2)
            if max(one["left"], other["left"]) < min(one["right"], other["right"])
            and max(one["top"], other["top"]) < min(one["bottom"], other["bottom"])
        ]

    def node_id(self, title: str) -> str:
        """Return the id of the node with this title."""
        return self.page.evaluate("(title) => String(app.graph.nodes.find((n) => n.title === title).id)", title)

    def bounds(self, title: str | None = None) -> tuple[float, float, float, float]:
        """Return left, top, width and height of the group or node with this title, or of the whole graph."""
        boxes = [box for box in self.page.evaluate(BOXES) if title in (None, box["title"])]
        left, top = (min(box[side] for box in boxes) for side in ("left", "top"))
        right, bottom = (max(box[side] for box in boxes) for side in ("right", "bottom"))
        return left, top, right - left, bottom - top

    def look_at(self, left: float, top: float, scale: float) -> None:
        """Scroll and zoom the canvas."""
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
        """Wait until all pop-up messages have disappeared."""
        expect(self.page.locator(".p-toast-message")).to_have_count(0, timeout=60_000)

    def prompt(self) -> dict[str, Any]:
        """Return the graph in API form, as Run would send it, without the titles of nodes."""
        nodes = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return {number: {"class_type": node["class_type"], "inputs": node["inputs"]} for number, node in nodes.items()}

    @property
    def complaints(self) -> Locator:
        """The visible dialogs, error panels, and pop-up messages that report errors or warnings."""
        signs = "[role=dialog], [data-testid=error-overlay], .p-toast-message-error, .p-toast-message-warn"
        return self.page.locator(signs).locator("visible=true")


@contextmanager
def comfy_page(
    server: Server, renderer: str = "canvas", width: int = 1600, height: int = 900, zoom: float = 1
) -> Iterator[ComfyPage]:
    """Open ComfyUI as for a returning user, and wait until it is ready.

    Args:
        renderer: one of `RENDERERS`.
        zoom: device pixels per CSS pixel.
    """
    server.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=zoom, service_workers="block"
        )
        # The page asks comfy.org for news. Block that, so that nothing here depends on the network.
        context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        page = context.new_page()
        shown = ComfyPage(page, renderer)
        page.goto(server.url, wait_until="domcontentloaded")
        # Wait for ComfyUI's default workflow, then replace it: its models are missing here.
        page.wait_for_function("() => window.app?.graph?.nodes.length", timeout=120_000)
        shown.settle()
        page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
        try:
            yield shown
        finally:
            browser.close()


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server for a script; tests use a fixture instead."""
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
