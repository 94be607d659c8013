"""The single place that imports ComfyUI's node API, plus the socket types that ComfyUI does not have."""

from comfy_api.latest import ComfyExtension, io, ui

CATEGORY = "LoRA Crucible"

Dataset = io.Custom("CRUCIBLE_DATASET")
Config = io.Custom("CRUCIBLE_CONFIG")
TextDataset = io.Custom("CRUCIBLE_TEXT_DATASET")
LanguageConfig = io.Custom("CRUCIBLE_LANGUAGE_CONFIG")
"""Texts and their training have sockets of their own, so that the page connects nothing that cannot be trained."""

LoraStack = io.Custom("LORA_STACK")

__all__ = ["CATEGORY", "ComfyExtension", "Config", "Dataset", "LanguageConfig", "LoraStack", "TextDataset", "io", "ui"]
