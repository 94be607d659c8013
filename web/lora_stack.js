import { app } from "/scripts/app.js";
import { chooseLora, element } from "./lora_chooser.js";

const STRONGEST = 20;
const LINE = 26;
const GAP = 4;
const HEADS = 16;
const TEXT = 160;
const CANVAS_MARGIN = 20; // the canvas keeps 10 pixels free above and below an element

let names = [];
const stacks = new Set();
const owners = new WeakMap();

function readNames({ CrucibleLoadLoRA }) {
    const [kind, options] = CrucibleLoadLoRA.input.optional.lora_name;
    const listed = Array.isArray(kind) ? kind : options.options;
    names = listed.filter((name) => /\.(safetensors|sft)$/i.test(name)); // leaves out the entry None
}

/** Return the rows described by a JSON text, or null if it is not a list of rows. */
function readRows(text) {
    try {
        const rows = JSON.parse(text.trim() || "[]");
        return Array.isArray(rows) && rows.every((row) => typeof row?.name === "string") ? rows : null;
    } catch {
        return null;
    }
}

function writeRows(rows) {
    return rows.length ? `[\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(",\n")}\n]` : "[]";
}

class LoraStack {
    constructor(node, inputName, text) {
        this.node = node;
        this.root = element("div", { className: "crucible-lora-stack" });
        owners.set(this.root, this);
        this.text = text;
        this.rows = [];
        this.separate = false;
        this.widget = node.addDOMWidget(inputName, "crucible_lora_rows", this.root, {
            getValue: () => this.text,
            setValue: (value) => this.show(value),
            getMinHeight: () => this.height + CANVAS_MARGIN,
            socketless: true,
        });
        this.show(text);
        this.root.addEventListener("wheel", (event) => {
            if (!LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event);
        });
    }

    get height() {
        const heads = this.separate ? HEADS + GAP : 0;
        return this.rows ? heads + this.rows.length * (LINE + GAP) + LINE : TEXT;
    }

    show(text) {
        this.text = text;
        this.rows = readRows(text);
        this.separate = this.rows?.some((row) => "strength_clip" in row) ?? false;
        this.draw();
        this.growNode();
    }

    /** Enlarge the node if it is too small for its rows, as in a workflow written by hand or saved with fewer rows. */
    growNode() {
        const [width, height] = this.node.size;
        const [, least] = this.node.computeSize();
        if (height < least) this.node.setSize([width, least]);
    }

    /** Apply a change by the user as one step of undo. */
    change(edit) {
        app.canvas.emitBeforeChange();
        edit();
        this.text = writeRows(this.rows);
        this.widget.callback?.(this.text);
        app.canvas.emitAfterChange();
    }

    /** Apply a change to the number or order of rows, and resize the node to fit them. */
    rearrange(edit) {
        this.change(() => {
            const before = this.height;
            edit();
            this.draw();
            const [width, height] = this.node.size;
            this.node.setSize([width, height + this.height - before]);
            this.node.setDirtyCanvas(true, true);
        });
    }

    move(index, by) {
        this.rearrange(() => this.rows.splice(index + by, 0, ...this.rows.splice(index, 1)));
        this.root.querySelectorAll(by < 0 ? ".up" : ".down")[index + by].focus();
    }

    add(name) {
        const clip = this.separate ? { strength_clip: 1 } : {};
        this.rearrange(() => this.rows.push({ name, strength_model: 1, ...clip, enabled: true }));
    }

    separateClip(separate) {
        this.rearrange(() => {
            this.separate = separate;
            for (const row of this.rows)
                if (separate) row.strength_clip ??= row.strength_model;
                else delete row.strength_clip;
        });
    }

    draw() {
        this.root.style.minHeight = `${this.height}px`;
        if (!this.rows) {
            this.root.replaceChildren(...this.drawText());
            return;
        }
        const heads = element("div", { className: "line heads" }, element("span", {}, "model"), element("span", {}, "clip"));
        this.root.replaceChildren(
            ...(this.separate ? [heads] : []),
            ...this.rows.map((row, index) => this.drawRow(row, index)),
            this.drawFoot(),
        );
    }

    /** Show a value that is not a list of rows as editable text, so that nothing in it is lost. */
    drawText() {
        const text = element("textarea", { value: this.text, ariaLabel: "rows as JSON" });
        text.addEventListener("change", () => {
            this.show(text.value);
            this.widget.callback?.(this.text);
        });
        return [element("div", { className: "problem" }, "These rows cannot be read. Correct the text below:"), text];
    }

    drawRow(row, index) {
        const last = this.rows.length - 1;
        const number = index + 1;
        const line = element("div", { className: "line row" });
        const enabled = element("input", { type: "checkbox", className: "switch", ariaLabel: `use LoRA ${number}` });
        enabled.checked = row.enabled ?? true;
        enabled.addEventListener("change", () => {
            this.change(() => (row.enabled = enabled.checked));
            line.classList.toggle("off", !enabled.checked);
        });
        line.classList.toggle("off", !enabled.checked);
        line.append(enabled, this.drawName(row), this.drawStrength(row, index, "strength_model"));
        if (this.separate) line.append(this.drawStrength(row, index, "strength_clip"));
        line.append(
            iconButton("up", "↑", `move LoRA ${number} up`, () => this.move(index, -1), index === 0),
            iconButton("down", "↓", `move LoRA ${number} down`, () => this.move(index, 1), index === last),
            iconButton("remove", "✕", `remove LoRA ${number}`, () => this.rearrange(() => this.rows.splice(index, 1))),
        );
        return line;
    }

    drawName(row) {
        const choose = (name) => {
            this.change(() => (row.name = name));
            this.draw();
        };
        const open = () => chooseLora(made, names, row.name, choose);
        const made = button("name", row.name || "choose a LoRA", open, { title: row.name });
        if (!names.includes(row.name)) {
            made.classList.add("missing");
            made.title = row.name ? `${row.name} is not in ComfyUI's LoRA folders` : "No LoRA is chosen";
        }
        return made;
    }

    drawStrength(row, index, key) {
        const kind = key === "strength_clip" ? "CLIP strength" : "strength";
        const value = row[key] ?? row.strength_model;
        const field = element("input", { type: "number", min: -STRONGEST, max: STRONGEST, step: 0.05, value });
        field.title = field.ariaLabel = `${kind} of LoRA ${index + 1}`;
        field.addEventListener("change", () => {
            const typed = field.valueAsNumber;
            if (Math.abs(typed) <= STRONGEST) this.change(() => (row[key] = typed));
            else field.value = row[key] ?? row.strength_model;
        });
        return field;
    }

    drawFoot() {
        const separate = element("input", { type: "checkbox", className: "switch", checked: this.separate });
        separate.addEventListener("change", () => this.separateClip(separate.checked));
        const title = "Set a separate strength for CLIP. Off: CLIP gets the same strength as the model.";
        const label = element("label", { title }, separate, "CLIP strength");
        const add = button("add", "Add LoRA", () => chooseLora(add, names, "", (name) => this.add(name)));
        return element("div", { className: "line" }, add, label);
    }
}

function button(className, text, onClick, properties = {}) {
    const made = element("button", { type: "button", className, textContent: text, ...properties });
    made.addEventListener("click", onClick);
    return made;
}

function iconButton(className, icon, label, onClick, disabled = false) {
    return button(className, icon, onClick, { title: label, ariaLabel: label, disabled });
}

/** Replace outdated elements: after undo or a reload, Nodes 2.0 may show that of a removed node with the same id. */
function replaceStaleElements() {
    for (const shown of document.querySelectorAll(".crucible-lora-stack")) {
        const owner = owners.get(shown);
        if (stacks.has(owner)) continue;
        const heir = [...stacks].find(({ node }) => node.graph === app.canvas.graph && node.id === owner.node.id);
        if (heir) shown.replaceWith(heir.root);
    }
}

app.registerExtension({
    name: "crucible.loraStack",
    init() {
        const href = new URL("./lora_stack.css", import.meta.url).href;
        document.head.append(element("link", { rel: "stylesheet", href }));
    },
    addCustomNodeDefs: readNames,
    refreshComboInNodes(definitions) {
        readNames(definitions);
        for (const stack of stacks) stack.draw();
    },
    getCustomWidgets: () => ({
        CRUCIBLE_LORA_ROWS(node, inputName, [, options]) {
            const stack = new LoraStack(node, inputName, options.default);
            stacks.add(stack);
            requestAnimationFrame(replaceStaleElements); // waits until the node has its id
            const { onRemoved } = node;
            node.onRemoved = function (...rest) {
                stacks.delete(stack);
                return onRemoved?.apply(this, rest);
            };
            return { widget: stack.widget, minWidth: 400 };
        },
    }),
});
