"""The Load LoRA node: applies LoRAs to a model."""

import os
from dataclasses import replace

import folder_paths

from .clip_use import image_warning
from .comfy_io import CATEGORY, LoraStack, io
from .folders import NONE, lora_choices, lora_file
from .widgets import refuse_unknown_inputs

CLIP_OUTPUT = 1

NO_MODEL = (
    "Load LoRA (Crucible) has only a CLIP connected, so its model output is empty, and nothing can be drawn with it. "
    "Connect a MODEL to Load LoRA, or take the model from the loader."
)
"""What a node says that gets the model output although there is no model."""


class CrucibleLoadLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        strength = {"default": 1.0, "optional": True, "min": -20.0, "max": 20.0, "step": 0.05}
        return io.Schema(
            node_id="CrucibleLoadLoRA",
            display_name="Load LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Applies a LoRA to the model and tells you about it: the base model it was made for, its trigger words "
                "and a good strength. For a LoRA of a language model, connect clip alone. For several LoRAs, chain "
                "several of these nodes or connect a LoRA stack."
            ),
            search_aliases=["lora loader", "apply lora", "lora stack", "trigger words", "peft adapter", "llm lora"],
            inputs=[
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to apply the LoRA to. Not needed for LoRAs of language models.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "For LoRAs of language models, which ComfyUI loads as CLIP. Otherwise only needed for LoRAs "
                        "that change the text encoder."
                    ),
                ),
                io.Combo.Input(
                    "lora_name",
                    options=lora_choices(),
                    default=NONE,
                    optional=True,
                    display_name="LoRA",
                    tooltip="The LoRA file. Press R if a new one is missing from the list. None: use only the stack.",
                ),
                io.LoraModel.Input(
                    "lora",
                    optional=True,
                    tooltip="A LoRA directly from Train LoRA. While connected, it is used instead of the file above.",
                ),
                io.Float.Input(
                    "strength_model",
                    **strength,
                    tooltip="How strongly the LoRA acts on the model. 0.6 to 1.0 is usual, 0 turns it off.",
                ),
                io.Float.Input(
                    "strength_clip",
                    **strength,
                    tooltip="How strongly it acts on the text encoder, or on a language model.",
                ),
                io.Boolean.Input(
                    "enabled",
                    default=True,
                    optional=True,
                    tooltip="Off: skip this node's own LoRA. A connected stack is still applied.",
                ),
                LoraStack.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="More LoRAs, from LoRA Stack or a stack node of another pack. They are applied first.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with the stack and the LoRA applied."),
                io.Clip.Output("clip", tooltip="The text encoder with the stack and the LoRA applied."),
                LoraStack.Output(
                    "lora_stack",
                    tooltip=(
                        "The stack with this LoRA added, for Merge LoRA or a loader that gets the original model. Do "
                        "not connect it to a loader that gets this node's model: the LoRAs would be applied twice."
                    ),
                ),
                io.String.Output("trigger_words", tooltip="Words to put in your prompt, for all LoRAs applied here."),
                io.String.Output("info", tooltip="What each LoRA is, whether it fits, and a strength to start with."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name=NONE, **_):
        if lora_name in (None, NONE):  # None: the value comes from another node, whose own inputs decide
            return ""
        from ..trainer.formats.lora_sidecars import sidecar_paths
        from ..trainer.formats.peft_scale import config_paths

        path = lora_file(lora_name)
        return [os.path.getmtime(file) for file in (path, *sidecar_paths(path), *config_paths(path)) if file.exists()]

    @classmethod
    def execute(
        cls,
        model=None,
        lora_name=NONE,
        strength_model=1.0,
        strength_clip=1.0,
        enabled=True,
        clip=None,
        lora=None,
        lora_stack=None,
    ):
        from ..trainer.formats.lora_stack import read_stack
        from ..trainer.models.comfyui.stacking import OwnLora, apply_stack

        refuse_unknown_inputs(cls)
        listed, folders = folder_paths.get_filename_list("loras"), folder_paths.get_folder_paths("loras")
        own = None
        if enabled and not strength_model == strength_clip == 0 and (lora is not None or lora_name != NONE):
            own = OwnLora(lora if lora is not None else lora_name, strength_model, strength_clip)
        stacked = apply_stack(model, clip, read_stack(lora_stack, listed, folders), own, listed, lora_file)
        prompt, node_id = cls.hidden.prompt, cls.hidden.unique_id
        warning = image_warning(prompt, node_id, CLIP_OUTPUT) if stacked.of_language_model else ""
        info = "\n\n".join(filter(None, [stacked.info, warning]))
        if model is None:
            from comfy_execution.graph_utils import ExecutionBlocker

            stacked = replace(stacked, model=ExecutionBlocker(NO_MODEL))
        return io.NodeOutput(stacked.model, stacked.clip, stacked.lora_stack, stacked.trigger_words, info)
