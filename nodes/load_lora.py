"""A LoRA on a model as a node."""

import os

import folder_paths

from .comfy_io import CATEGORY, io

NONE = "None"


class CrucibleLoadLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = [name for name in folder_paths.get_filename_list("loras") if name.lower().endswith(".safetensors")]
        strength = {"default": 1.0, "min": -20.0, "max": 20.0, "step": 0.05}
        return io.Schema(
            node_id="CrucibleLoadLoRA",
            display_name="Load LoRA (Crucible)",
            category=CATEGORY,
            description="Puts a LoRA on the model. Chain several of these nodes to use several LoRAs.",
            search_aliases=["lora loader", "apply lora"],
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip", optional=True, tooltip="Only needed for LoRAs with a text-encoder part."),
                io.Combo.Input("lora_name", options=[NONE, *files], default=NONE, display_name="LoRA"),
                io.LoraModel.Input(
                    "lora",
                    optional=True,
                    tooltip="A LoRA straight from Train LoRA. When connected, it is used instead of the file.",
                ),
                io.Float.Input(
                    "strength_model",
                    **strength,
                    tooltip="How much of the LoRA the model gets; 0.6 to 1.0 is usual.",
                ),
                io.Float.Input("strength_clip", **strength, tooltip="How much of it the text encoder gets."),
                io.Boolean.Input("enabled", default=True, tooltip="Off: model and CLIP pass through untouched."),
            ],
            outputs=[io.Model.Output("model"), io.Clip.Output("clip")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **_):
        if lora_name in (None, NONE):  # None: another node says which file; that node's inputs decide alone
            return ""
        return os.path.getmtime(folder_paths.get_full_path_or_raise("loras", lora_name))

    @classmethod
    def execute(cls, model, lora_name, strength_model, strength_clip, enabled, clip=None, lora=None):
        if not enabled or (lora is None and lora_name == NONE) or strength_model == strength_clip == 0:
            return io.NodeOutput(model, clip)
        from pathlib import Path

        from ..trainer.base_models.comfyui.applying import with_lora
        from ..trainer.formats.lora_file import read_lora
        from ..trainer.formats.lora_model import LoraModel

        if lora is None:
            tensors, metadata = read_lora(Path(folder_paths.get_full_path_or_raise("loras", lora_name)))
            lora = LoraModel(tensors, lora_name, metadata)
        return io.NodeOutput(*with_lora(model, clip, lora, strength_model, strength_clip))
