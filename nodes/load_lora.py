"""LoRAs on a model as a node."""

import os

import folder_paths

from .comfy_io import CATEGORY, LoraStack, io
from .folders import NONE, lora_choices, lora_file


class CrucibleLoadLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        strength = {"default": 1.0, "min": -20.0, "max": 20.0, "step": 0.05}
        return io.Schema(
            node_id="CrucibleLoadLoRA",
            display_name="Load LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Puts a LoRA on the model and says what it is: what it was made for, its trigger words, a good "
                "strength. Chain several of these nodes to use several LoRAs, or connect a LoRA stack."
            ),
            search_aliases=["lora loader", "apply lora", "lora stack", "trigger words"],
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip", optional=True, tooltip="Only needed for LoRAs with a text-encoder part."),
                io.Combo.Input("lora_name", options=lora_choices(), default=NONE, display_name="LoRA"),
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
                io.Boolean.Input(
                    "enabled",
                    default=True,
                    tooltip="Off: this node's own LoRA is left out. A connected stack still acts.",
                ),
                LoraStack.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="More LoRAs, from a stacker node of this or another pack. They are applied first.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with the stack and the LoRA on it."),
                io.Clip.Output("clip", tooltip="The text encoder with them."),
                LoraStack.Output(
                    "lora_stack",
                    tooltip=(
                        "The stack with this LoRA added, for Merge LoRA or a loader that gets the bare model. Not for "
                        "one that gets this node's model: it would apply them twice."
                    ),
                ),
                io.String.Output("trigger_words", tooltip="What to put into the prompt, of all LoRAs applied here."),
                io.String.Output("info", tooltip="What each LoRA is, what fits, and a strength to start from."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **_):
        if lora_name in (None, NONE):  # None: another node says which file; that node's inputs decide alone
            return ""
        from ..trainer.formats.trigger_words import sidecar_paths

        path = lora_file(lora_name)
        return [os.path.getmtime(file) for file in (path, *sidecar_paths(path)) if file.exists()]

    @classmethod
    def execute(cls, model, lora_name, strength_model, strength_clip, enabled, clip=None, lora=None, lora_stack=None):
        from ..trainer.base_models.comfyui.stacking import OwnLora, apply_stack
        from ..trainer.formats.lora_stack import read_stack

        listed = folder_paths.get_filename_list("loras")
        own = None
        if enabled and not strength_model == strength_clip == 0 and (lora is not None or lora_name != NONE):
            own = OwnLora(lora if lora is not None else lora_name, strength_model, strength_clip)
        stacked = apply_stack(model, clip, read_stack(lora_stack, listed), own, listed, lora_file)
        return io.NodeOutput(stacked.model, stacked.clip, stacked.lora_stack, stacked.trigger_words, stacked.info)
