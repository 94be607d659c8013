import { app } from "/scripts/app.js";

const OURS = /^Crucible/;
const AUTO = [-1, 0, "", "auto"]; // what stood for auto in workflows of earlier versions

/** Return all nodes of a saved graph, those in subgraphs included. */
function* nodesOf({ nodes = [], definitions }) {
    yield* nodes;
    for (const subgraph of definitions?.subgraphs ?? []) yield* nodesOf(subgraph);
}

function inputsOf(type) {
    const { required = {}, optional = {} } = LiteGraph.registered_node_types[type]?.nodeData?.input ?? {};
    return { ...required, ...optional };
}

/** Return the title of the node that has a setting now, and the setting's default. */
function placeOf(setting) {
    for (const [type, { nodeData }] of Object.entries(LiteGraph.registered_node_types)) {
        const spec = OURS.test(type) && inputsOf(type)[setting];
        if (spec) return { title: nodeData.display_name, initial: spec[1]?.default };
    }
    return {};
}

function describe([setting, value]) {
    const { title } = placeOf(setting);
    return `${setting} = ${value}${title ? ` (now on ${title})` : ""}`;
}

/** Return whether a value that has no place any more was chosen by the user. */
function wasChosen([setting, value]) {
    const { initial } = placeOf(setting);
    return value !== initial && !(AUTO.includes(value) && (initial === undefined || AUTO.includes(initial)));
}

/** Take the values out of a saved node that its widgets have no place for, and return a sentence about them. */
function withoutForeignValues(node) {
    const widgets = (LiteGraph.createNode(node.type)?.widgets ?? []).filter(({ serialize }) => serialize !== false);
    const names = widgets.map(({ name }) => name);
    const named = node.widgets_values_named;
    if (named) {
        const foreign = Object.entries(named).filter(([name]) => !names.includes(name));
        if (!foreign.length) return "";
        for (const [name] of foreign) delete named[name];
        node.widgets_values = names.map((name, index) => named[name] ?? widgets[index].value);
        const lost = foreign.filter(wasChosen).map(describe);
        return lost.length ? `left out ${lost.join(", ")}` : "";
    }
    const values = node.widgets_values;
    if (!Array.isArray(values) || values.length === names.length) return "";
    delete node.widgets_values;
    return "all values are at their defaults, because it was saved with other widgets";
}

app.registerExtension({
    name: "crucible.savedWorkflows",
    beforeConfigureGraph(graph) {
        const changes = [...nodesOf(graph)]
            .filter(({ type }) => OURS.test(type) && type in LiteGraph.registered_node_types)
            .map((node) => [node, withoutForeignValues(node)])
            .filter(([, change]) => change)
            .map(([node, change]) => `${node.title ?? node.type}: ${change}.`);
        if (!changes.length) return;
        app.extensionManager.toast.add({
            severity: "warn",
            summary: "This workflow was saved by an earlier version of LoRA Crucible",
            detail: `${changes.join("\n")} Set again what you need.`,
            life: 30_000,
        });
    },
});
