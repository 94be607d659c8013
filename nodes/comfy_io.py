"""The single place that imports ComfyUI's node API, plus the socket types that ComfyUI does not have."""

from comfy_api.latest import ComfyExtension, io, ui

CATEGORY = "LoRA Crucible"

Dataset = io.Custom("CRUCIBLE_DATASET")
Config = io.Custom("CRUCIBLE_CONFIG")
LoraStack = io.Custom("LORA_STACK")

__all__ = ["CATEGORY", "ComfyExtension", "Config", "Dataset", "LoraStack", "io", "ui"]
