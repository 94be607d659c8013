"""LoRA Crucible: train LoRA adapters inside ComfyUI, on the model that is already loaded."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the pack's extension; ComfyUI calls this once, when it starts.

    The nodes are imported here and not above, so that tests can load parts of the pack without ComfyUI.
    """
    from .nodes.extension import CrucibleExtension

    return CrucibleExtension()
