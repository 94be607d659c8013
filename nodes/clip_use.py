"""Which nodes of a prompt make conditioning for images from a CLIP, and what users are told about it."""


def image_warning(prompt, node_id, output):
    """Return a warning if a CLIP with a language model's LoRA makes conditioning for images, or "".

    Args:
        prompt: the prompt in ComfyUI's API format, or None.
        node_id: the id of the node that gives the CLIP.
        output: the index of its output.
    """
    from ..trainer.messages.wording import listed

    if not (found := conditioning_nodes(prompt, [node_id, output])):
        return ""
    return (
        f"Warning: this node's clip also makes the conditioning of images, in {listed(found)}. A language LoRA changes "
        "what a text encoder sees in a prompt, so the images will change, and usually for the worse. Branch the CLIP: "
        "connect the one from the loader there, and this node's clip to Generate Text only."
    )


def conditioning_nodes(prompt, link, without=None):
    """Return the nodes that make conditioning from a CLIP, directly or through nodes that hand the CLIP on.

    Args:
        prompt: the prompt in ComfyUI's API format, or None.
        link: the output that gives the CLIP, as [id of its node, index of the output].
        without: the id of a node that is not followed.

    Returns:
        A title for each node, with its id, such as "CLIP Text Encode (Prompt) (node 7)".
    """
    import nodes

    prompt, found, links, followed = prompt or {}, {}, [list(link)], set()
    while links:
        source = links.pop()
        if tuple(source) in followed:
            continue
        followed.add(tuple(source))
        for node_id, node in prompt.items():
            if node_id == without or source not in (node.get("inputs") or {}).values():
                continue
            kind = nodes.NODE_CLASS_MAPPINGS.get(node.get("class_type"))
            outputs = list(getattr(kind, "RETURN_TYPES", None) or ())
            if "CONDITIONING" in outputs:
                found[node_id] = _title(node, node_id)
            links += [[node_id, place] for place, one in enumerate(outputs) if one == "CLIP"]
    return list(found.values())


def _title(node, node_id):
    import nodes

    kind = node["class_type"]
    title = (node.get("_meta") or {}).get("title") or nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind) or kind
    return f"{title} (node {node_id})"
