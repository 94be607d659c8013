"""What this pack does with a prompt before ComfyUI checks it."""


def leave_out_empty_numbers(request):
    """Remove the empty numbers of this pack's nodes from a prompt, so that they are on auto.

    The page sends a number for each empty field, but a subgraph with the field on its outside sends the empty text
    itself, which ComfyUI would refuse as no number.
    """
    import nodes

    for node in request.get("prompt", {}).values():
        kind = nodes.NODE_CLASS_MAPPINGS.get(node.get("class_type"))
        inputs = node.get("inputs") or {}
        empty = [name for name, value in inputs.items() if value == ""]
        if kind is None or not empty or not str(kind.__name__).startswith("Crucible"):
            continue
        specs = kind.INPUT_TYPES().get("optional", {})
        for name in empty:
            if specs.get(name, ("",))[0] in ("INT", "FLOAT"):
                del inputs[name]
    return request
