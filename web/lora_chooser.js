/** An HTML element; children that are strings become text. */
export function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

/** Opens a list of files below a button. Typing leaves those that contain all typed words. */
export function chooseLora(button, names, current, onChoose) {
    const filter = element("input", { placeholder: names.length ? "filter" : "no LoRAs found", ariaLabel: "filter LoRAs" });
    const size = Math.max(2, Math.min(12, names.length)); // of size 1 it would be closed
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
