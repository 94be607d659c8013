"""The Demo Language Model node: a tiny language model to try training on without a download."""

from .comfy_io import CATEGORY, io


class CrucibleDemoLanguageModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleDemoLanguageModel",
            display_name="Demo Language Model (Crucible)",
            category=CATEGORY,
            description=(
                'A tiny language model that comes with this pack. It turns a few words, such as "red heart", into a '
                "prompt for Demo Model, answers simple questions about colored shapes, and trains in a minute without "
                "a GPU. Once you have seen how training works, replace this node with Load CLIP."
            ),
            search_aliases=["load clip", "demo llm", "demo text model", "qwen"],
            outputs=[
                io.Clip.Output("clip", tooltip="For Train Language LoRA (Crucible), Load LoRA and Generate Text."),
            ],
        )

    @classmethod
    def execute(cls):
        from ..trainer.models.comfyui.language.demo import load_demo_clip

        return io.NodeOutput(load_demo_clip())
