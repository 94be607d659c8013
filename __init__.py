"""LoRA Crucible: train LoRA adapters inside ComfyUI, on the model that is already loaded."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI calls this once, at start. Nothing is imported before, so that tests can load the pack's parts alone."""
    from .nodes.extension import CrucibleExtension

    return CrucibleExtension()
