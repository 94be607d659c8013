"""The LoRA Stack node: a list of LoRAs with their strengths."""

import os

from .comfy_io import CATEGORY, LoraStack, io
from .folders import lora_entry, lora_file
from .widgets import refuse_unknown_inputs


class CrucibleLoRAStack(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleLoRAStack",
            display_name="LoRA Stack (Crucible)",
            category=CATEGORY,
            description="A list of LoRAs with their strengths, for Load LoRA and any node that takes a LoRA stack.",
            search_aliases=["lora stacker", "multiple loras", "power lora loader"],
            inputs=[
                io.String.Input(
                    "loras",
                    default="[]",
                    multiline=True,
                    socketless=True,
                    optional=True,
                    # For the server this is text; web/lora_stack.js shows it as rows.
                    extra_dict={"widgetType": "CRUCIBLE_LORA_ROWS"},
                    display_name="LoRAs",
                    tooltip="Applied from top to bottom. LoRAs that are off or have strength 0 are skipped.",
                ),
                LoraStack.Input(
                    "lora_stack", optional=True, tooltip="Another stack. Its LoRAs come before those of this node."
                ),
            ],
            outputs=[
                LoraStack.Output("lora_stack", tooltip="For Load LoRA, Merge LoRA, or a node of another pack."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, loras="[]", **_):
        if loras is None:  # the value comes from another node, whose own inputs decide
            return ""
        from ..trainer.formats.lora_rows import read_lora_rows

        return [os.path.getmtime(lora_file(row.name)) for row in read_lora_rows(loras) if row.acts]

    @classmethod
    def execute(cls, loras="[]", lora_stack=None):
        from ..trainer.formats.lora_rows import read_lora_rows

        refuse_unknown_inputs(cls)
        rows = [row for row in read_lora_rows(loras) if row.acts]
        for row in rows:
            lora_file(row.name)
        own = [(lora_entry(row.name), row.strength_model, row.strength_clip) for row in rows]
        return io.NodeOutput([*(lora_stack or []), *own])
