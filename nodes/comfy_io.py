"""The one place where ComfyUI's node API is imported, and the sockets that are ours."""

from comfy_api.latest import ComfyExtension, io, ui

CATEGORY = "LoRA Crucible"

Dataset = io.Custom("CRUCIBLE_DATASET")
Config = io.Custom("CRUCIBLE_CONFIG")
LoraStack = io.Custom("LORA_STACK")

__all__ = ["CATEGORY", "ComfyExtension", "Config", "Dataset", "LoraStack", "io", "ui"]
