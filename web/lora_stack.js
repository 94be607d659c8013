import { app } from "/scripts/app.js";

const LINE = 26;
const GAP = 4;
const CANVAS_MARGIN = 20; // the canvas leaves 10 pixels above and below an element
const NEW_ROW = { name: "", strength_model: 1, enabled: true };

const choices = document.createElement("datalist");
choices.id = "crucible-lora-names";
let names = new Set();
const stacks = new Set();

function readNames({ CrucibleLoadLoRA }) {
    const [kind, options] = CrucibleLoadLoRA.input.required.lora_name;
    const listed = Array.isArray(kind) ? kind : options.options;
    names = new Set(listed.filter((name) => name.endsWith(".safetensors")));
    choices.replaceChildren(...[...names].map((value) => element("option", { value })));
}

/** The rows that a text holds, or null when they cannot be shown as rows. */
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

function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

class LoraStack {
    constructor(node, inputName, text) {
        this.node = node;
        this.root = element("div", { className: "crucible-lora-stack" });
        this.show(text);
        this.widget = node.addDOMWidget(inputName, "crucible_lora_rows", this.root, {
            getValue: () => this.text,
            setValue: (value) => this.show(value),
            getMinHeight: () => this.height + CANVAS_MARGIN,
            socketless: true,
        });
        this.root.addEventListener("wheel", (event) => {
            if (!LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event);
        });
    }

    get height() {
        const lines = this.rows ? this.rows.length + 1 + (this.separate ? 1 : 0) : 6;
        return lines * (LINE + GAP) - GAP;
    }

    show(text) {
        this.text = text;
        this.rows = readRows(text);
        this.separate = this.rows?.some((row) => "strength_clip" in row) ?? false;
        this.draw();
    }

    /** After the user changed a row. */
    save() {
        this.text = writeRows(this.rows);
        this.widget.callback?.(this.text);
    }

    /** After the user changed which rows there are: the node grows or shrinks with them. */
    rearrange(change) {
        const before = this.height;
        change();
        this.save();
        this.draw();
        const [width, height] = this.node.size;
        this.node.setSize([width, height + this.height - before]);
        this.node.setDirtyCanvas(true, true);
    }

    move(index, by) {
        this.rearrange(() => this.rows.splice(index + by, 0, ...this.rows.splice(index, 1)));
        this.root.querySelectorAll(by < 0 ? ".up" : ".down")[index + by].focus();
    }

    add() {
        const clip = this.separate ? { strength_clip: 1 } : {};
        this.rearrange(() => this.rows.push({ ...NEW_ROW, ...clip }));
        [...this.root.querySelectorAll(".name")].at(-1).focus();
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

    /** For a value that somebody wrote by hand and that is no list of rows: nothing of it is lost. */
    drawText() {
        const text = element("textarea", { value: this.text, ariaLabel: "rows as JSON" });
        text.addEventListener("change", () => {
            this.show(text.value);
            this.widget.callback?.(this.text);
        });
        return [element("div", { className: "problem" }, "These rows cannot be read. Put the text right:"), text];
    }

    drawRow(row, index) {
        const enabled = element("input", {
            type: "checkbox",
            className: "switch",
            checked: row.enabled ?? true,
            ariaLabel: `use LoRA ${index + 1}`,
        });
        const line = element("div", { className: "line row" });
        enabled.addEventListener("change", () => {
            row.enabled = enabled.checked;
            line.classList.toggle("off", !enabled.checked);
            this.save();
        });
        line.classList.toggle("off", !enabled.checked);
        line.append(enabled, this.drawName(row, index), this.drawStrength(row, index, "strength_model"));
        if (this.separate) line.append(this.drawStrength(row, index, "strength_clip"));
        const last = this.rows.length - 1;
        line.append(
            button("up", "↑", `move LoRA ${index + 1} up`, () => this.move(index, -1), index === 0),
            button("down", "↓", `move LoRA ${index + 1} down`, () => this.move(index, 1), index === last),
            button("remove", "✕", `remove LoRA ${index + 1}`, () => this.rearrange(() => this.rows.splice(index, 1))),
        );
        return line;
    }

    /** A text field with suggestions: while it has the focus it is empty, since the browser filters them by its text. */
    drawName(row, index) {
        const field = element("input", { className: "name", ariaLabel: `LoRA ${index + 1}`, autocomplete: "off" });
        field.setAttribute("list", choices.id);
        const showName = () => {
            const missing = !names.has(row.name);
            field.value = row.name;
            field.placeholder = row.name || "choose a LoRA";
            field.title = !row.name ? "" : missing ? `${row.name} is not among ComfyUI's LoRAs` : row.name;
            field.ariaInvalid = String(missing);
        };
        showName();
        field.addEventListener("focus", () => (field.value = ""));
        field.addEventListener("click", () => field.showPicker());
        field.addEventListener("input", () => {
            if (!names.has(field.value)) return;
            row.name = field.value;
            this.save();
        });
        field.addEventListener("blur", showName);
        return field;
    }

    drawStrength(row, index, key) {
        const kind = key === "strength_clip" ? "CLIP strength" : "strength";
        const value = row[key] ?? row.strength_model;
        const field = element("input", { type: "number", min: -20, max: 20, step: 0.05, value, ariaLabel: `${kind} of LoRA ${index + 1}` });
        field.addEventListener("change", () => {
            if (Number.isFinite(field.valueAsNumber)) row[key] = field.valueAsNumber;
            else field.value = row[key];
            this.save();
        });
        return field;
    }

    drawFoot() {
        const separate = element("input", { type: "checkbox", className: "switch", checked: this.separate });
        separate.addEventListener("change", () => this.separateClip(separate.checked));
        const label = element("label", { title: "Off: CLIP gets the same strength as the model" }, separate, "CLIP strength");
        return element("div", { className: "line" }, button("add", "Add LoRA", "", () => this.add()), label);
    }
}

function button(className, text, label, onClick, disabled = false) {
    const made = element("button", { type: "button", className, textContent: text, title: label, disabled });
    if (label) made.ariaLabel = label;
    made.addEventListener("click", onClick);
    return made;
}

app.registerExtension({
    name: "crucible.loraStack",
    init() {
        const href = new URL("./lora_stack.css", import.meta.url).href;
        document.head.append(element("link", { rel: "stylesheet", href }));
        document.body.append(choices);
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
            const { onRemoved } = node;
            node.onRemoved = function (...rest) {
                stacks.delete(stack);
                return onRemoved?.apply(this, rest);
            };
            return { widget: stack.widget, minWidth: 400 };
        },
    }),
});
