import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { element } from "./lora_chooser.js";

const AUTO = -1;
const STORE = "crucible.auto";
const STORED = 30;
const TYPING = 1000; // milliseconds without a key, after which a text is taken as finished

const fields = new WeakMap();
// From what a node was run with to the values that auto stood for. ComfyUI sends them only when the node really runs,
// so they are kept when the page is loaded again.
const meanings = new Map(JSON.parse(sessionStorage.getItem(STORE) ?? "[]"));
const queued = new WeakMap(); // from a node to what it last was queued with

/** A text field for a number that may be auto: empty for auto, which it then shows as a placeholder. */
class AutoNumber {
    constructor(node, name, { default: initial, display_name: label = name, max, auto_number: limits }) {
        this.node = node;
        this.label = label;
        this.limits = { max, ...limits };
        // Nodes 2.0 gives the options to its field as attributes.
        const options = { placeholder: "auto", "data-auto-number": "" };
        this.widget = node.addWidget("text", name, this.asText(initial), () => this.edited(), options);
        fields.set(this.widget, this);
        this.widget.serializeValue = () => this.asNumber();
        this.drawOnCanvas();
    }

    get text() {
        return String(this.widget.value ?? "").trim();
    }

    get isAuto() {
        return this.text === "" || this.text.toLowerCase() === "auto" || Number(this.text) === AUTO;
    }

    get isWrong() {
        const { whole, minimum, excluded, max } = this.limits;
        const number = Number(this.text);
        const fits = number >= minimum && number <= max && !(excluded && number === minimum);
        return !this.isAuto && !(fits && (!whole || Number.isInteger(number)));
    }

    asText(number) {
        return number === AUTO ? "" : String(number);
    }

    /** Return the value for the server. It refuses a text, and quotes it, where it would cut 8.5 to 8. */
    asNumber() {
        if (this.isWrong) return `${this.text}: it must be ${this.limits.expected}`;
        return this.isAuto ? AUTO : Number(this.text);
    }

    /** Make the classic canvas show the placeholder, and a wrong text in red. */
    drawOnCanvas() {
        const { widget } = this;
        const drawn = {
            _displayValue: () => (widget.computedDisabled ? "" : this.text || widget.options.placeholder),
            text_color: () => {
                if (this.isWrong) return LiteGraph.NODE_ERROR_COLOUR;
                return this.text ? LiteGraph.WIDGET_TEXT_COLOR : LiteGraph.WIDGET_SECONDARY_TEXT_COLOR;
            },
        };
        for (const [name, get] of Object.entries(drawn)) Object.defineProperty(widget, name, { get, configurable: true });
    }

    /** Read a value that was set from outside, such as a number in a workflow, or a typed text. */
    read() {
        const { widget } = this;
        if (typeof widget.value === "number") widget.value = this.asText(widget.value);
        widget.options.invalid = this.isWrong;
    }

    edited() {
        this.read();
        clearTimeout(this.typing);
        this.typing = setTimeout(() => {
            // Nodes 2.0 would make a step of undo, and save the workflow, only at the next click.
            app.canvas.emitBeforeChange();
            app.canvas.emitAfterChange();
            if (this.isWrong) this.complain();
        }, TYPING);
    }

    complain() {
        warn(
            `${this.label}: “${this.text}” cannot be used`,
            `It must be ${this.limits.expected} (empty). Until you change it, ${this.node.title} cannot run.`,
        );
    }

    /** Show what auto stands for; undefined if that is not known. */
    explain(value) {
        const { widget } = this;
        const placeholder = value === undefined ? "auto" : `auto: ${value}`;
        if (widget.options.placeholder === placeholder) return;
        widget.options.placeholder = placeholder;
        // Nodes 2.0 reads the options of a widget again when its label changes.
        const { label } = widget;
        widget.label = `${label} `;
        widget.label = label;
        this.node.setDirtyCanvas(true, true);
    }
}

/** Make ComfyUI's Primitive node, which knows no fields of this kind, give plain numbers to them. */
function describeAsNumbers(node) {
    const names = fieldsOf(node).map(({ widget }) => widget.name);
    for (const { name, widget } of node.inputs ?? [])
        if (names.includes(name))
            for (const getConfig of Object.getOwnPropertySymbols(widget))
                widget[getConfig] = () => node.constructor.nodeData.input.optional[name];
}

function warn(summary, detail) {
    app.extensionManager.toast.add({ severity: "warn", summary, detail, life: 12_000 });
}

function fieldsOf(node) {
    return (node.widgets ?? []).map((widget) => fields.get(widget)).filter(Boolean);
}

/** Return a node and all nodes upstream of it, or those only that are reached through inputs of these names. */
function upstream(node, names = null, found = new Set()) {
    if (!node || found.has(node)) return found;
    found.add(node);
    for (const [slot, { name }] of (node.inputs ?? []).entries())
        if (!names || names.includes(name)) upstream(node.getInputNode(slot), names, found);
    return found;
}

/** Return all that decides what auto stands for on a node: the values of it and of everything upstream of it. */
function setup(node) {
    const parts = [...upstream(node)].map(({ id, type, mode, widgets = [], inputs = [], graph }) => {
        const sources = inputs.map(({ link }) => {
            const { origin_id, origin_slot } = graph.getLink(link) ?? {};
            return [origin_id, origin_slot];
        });
        return [id, type, mode, widgets.map(({ value }) => value), sources];
    });
    return JSON.stringify(parts);
}

function remember(nodes, values) {
    meanings.delete(nodes);
    meanings.set(nodes, values);
    sessionStorage.setItem(STORE, JSON.stringify([...meanings].slice(-STORED)));
}

/** Show on a node, and on the nodes whose settings it takes, what auto stood for when they last were as they are. */
function explain(node) {
    const values = meanings.get(setup(node)) ?? {};
    for (const part of upstream(node, ["options", "dataset"]))
        for (const field of fieldsOf(part)) field.explain(values[field.widget.name]);
}

function deciders(graph = app.rootGraph) {
    return graph.nodes.flatMap((node) => {
        if (node.isSubgraphNode()) return deciders(node.subgraph);
        return node.type === "CrucibleConfigureLoRA" ? [node] : [];
    });
}

function explainAll() {
    deciders().forEach(explain);
}

app.registerExtension({
    name: "crucible.autoNumber",
    getCustomWidgets: () => ({
        CRUCIBLE_AUTO_NUMBER: (node, name, [, options]) => ({ widget: new AutoNumber(node, name, options).widget }),
    }),
    setup() {
        const href = new URL("./auto_number.css", import.meta.url).href;
        document.head.append(element("link", { rel: "stylesheet", href }));
        api.addEventListener("graphChanged", explainAll);
        api.addEventListener("promptQueueing", () => {
            for (const node of deciders()) queued.set(node, setup(node));
        });
    },
    nodeCreated(node) {
        describeAsNumbers(node);
        const { onExecuted } = node;
        node.onExecuted = function (output, ...rest) {
            // Nothing is known about what was changed while the prompt waited.
            if (output?.auto && queued.get(node) === setup(node)) {
                remember(setup(node), output.auto[0]);
                explain(node);
            }
            return onExecuted?.call(this, output, ...rest);
        };
    },
    loadedGraphNode(node) {
        for (const field of fieldsOf(node)) field.read();
        const wrong = fieldsOf(node).filter((field) => field.isWrong);
        if (!wrong.length) return;
        const names = wrong.map((field) => `${field.label} (${field.text})`).join(", ");
        for (const field of wrong) {
            field.widget.value = "";
            field.read();
        }
        warn(
            `${node.title}: some values cannot be used`,
            `They are on auto now: ${names}. Set them again if you need other values.`,
        );
    },
    afterConfigureGraph: explainAll,
});
