"""Writes the example workflows and their API forms: `python tests/web/make_workflows.py`.

ComfyUI's own page builds the graphs described in workflow_contents.py and saves them, so the files are what a user's
page would save. Run this script again after changing the widgets of a node. It needs the same programs as the browser
tests.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from browser import ROOT, comfy_page, running_server
from workflow_contents import WORKFLOWS

EXAMPLES = ROOT / "example_workflows"
API_FORMS = Path(__file__).parent / "workflows"

BUILD = """
async ({nodes, groups}) => {
    const empty = {version: 0.4, nodes: [], links: [], groups: [], last_node_id: 0, last_link_id: 0};
    await app.loadGraphData(empty, true, true, "new");
    const made = {};
    for (const spec of nodes) {
        const node = (made[spec.key] = LiteGraph.createNode(spec.type));
        node.pos = spec.place.slice(0, 2);
        app.graph.add(node);
        if (spec.title) node.title = spec.title;
        if (spec.muted) node.mode = LiteGraph.NEVER;
        Object.assign(node.properties, spec.properties);
        for (const [name, value] of Object.entries(spec.widgets)) {
            // A note has a single widget, given without a name.
            const widget = name ? node.widgets.find((w) => w.name === name) : node.widgets[0];
            if (!widget) throw new Error(`${spec.type} has no widget ${name}`);
            widget.value = value;
        }
        node.setSize(spec.place.slice(2));
    }
    for (const spec of nodes)
        for (const [input, [source, output]] of Object.entries(spec.inputs)) {
            const outputs = made[source].outputs;
            const slot = outputs.findIndex((o) => o.name.toLowerCase() === output.toLowerCase());
            const link = made[source].connect(slot, made[spec.key], made[spec.key].findInputSlot(input));
            if (!link) throw new Error(`${spec.key}.${input} cannot be linked to ${source}.${output}`);
        }
    for (const spec of groups) {
        const group = new LiteGraph.LGraphGroup(spec.title);
        [group.pos, group.size] = [spec.place.slice(0, 2), spec.place.slice(2)];
        group.color = spec.color;
        app.graph.add(group);
    }
    return JSON.stringify(app.graph.serialize());
}
"""


def without_traces(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the workflow without what differs between runs and machines, and with the name of the pack it needs."""
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"lora-crucible/{name}"))
    # Shows the whole graph at 1400 x 900.
    workflow["extra"] = {"ds": {"scale": 0.64, "offset": [125, 260]}}
    for node in workflow["nodes"]:
        if node["type"].startswith("Crucible"):
            node["properties"] = {"cnr_id": "lora-crucible", **node["properties"]}
            node["properties"].pop("aux_id", None)
        node["properties"].pop("ver", None)
        node["pos"], node["size"] = [round(x) for x in node["pos"]], [round(x) for x in node["size"]]
    return workflow


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON to a file, and create its folder if needed."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Build all workflows in a page and save them."""
    with running_server() as server, comfy_page(server) as page:
        for workflow in WORKFLOWS:
            nodes = [asdict(node) for node in workflow.nodes]
            groups = [asdict(group) for group in workflow.groups]
            graph = json.loads(page.page.evaluate(BUILD, {"nodes": nodes, "groups": groups}))
            write(EXAMPLES / f"{workflow.name}.json", without_traces(graph, workflow.name))
            write(API_FORMS / f"{workflow.name}.json", page.prompt())
            print(workflow.name)


if __name__ == "__main__":
    main()
