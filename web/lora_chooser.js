/** Create an HTML element with these properties and children. Strings become text, never markup. */
export function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

/** Open a list of LoRA files below a button. Typing keeps only the names that contain every typed word. */
export function chooseLora(button, names, current, onChoose) {
    const placeholder = names.length ? "type to filter" : "no LoRAs found";
    const filter = element("input", { placeholder, ariaLabel: "filter LoRAs" });
    const size = Math.max(2, Math.min(12, names.length)); // with size 1 the browser would show a closed drop-down
    const list = element("select", { size, ariaLabel: "LoRAs", tabIndex: -1 });
    const popover = element("div", { className: "crucible-lora-chooser", popover: "auto" }, filter, list);

    const show = () => {
        const words = filter.value.toLowerCase().split(/\s+/);
        const found = names.filter((name) => words.every((word) => name.toLowerCase().includes(word)));
        list.replaceChildren(...found.map((name) => new Option(name)));
        list.selectedIndex = Math.max(0, found.indexOf(current));
    };
    const choose = () => {
        if (!list.value) return;
        popover.hidePopover();
        onChoose(list.value);
    };

    filter.addEventListener("input", show);
    filter.addEventListener("keydown", (event) => {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (step) {
            event.preventDefault();
            const last = list.options.length - 1;
            list.selectedIndex = Math.min(Math.max(list.selectedIndex + step, 0), last);
        } else if (event.key === "Enter") {
            choose();
        }
    });
    list.addEventListener("click", ({ target }) => target instanceof HTMLOptionElement && choose());
    popover.addEventListener("toggle", ({ newState }) => newState === "closed" && popover.remove());

    show();
    document.body.append(popover);
    popover.showPopover();
    const { left, bottom } = button.getBoundingClientRect();
    popover.style.left = `${Math.min(left, window.innerWidth - popover.offsetWidth)}px`;
    popover.style.top = `${Math.min(bottom, window.innerHeight - popover.offsetHeight)}px`;
    filter.focus();
}
