"""The Demo Model node: a tiny model to try training on without a download."""

from .comfy_io import CATEGORY, io


class CrucibleDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleDemoModel",
            display_name="Demo Model (Crucible)",
            category=CATEGORY,
            description=(
                "A tiny model that comes with this pack. It draws one colored shape on a plain background, such as "
                '"a red circle on a white background", at 64 x 64 pixels, and trains in a minute without a GPU. Once '
                "you have seen how training works, replace this node with Load Checkpoint."
            ),
            search_aliases=["load checkpoint", "demo checkpoint"],
            outputs=[io.Model.Output("model"), io.Clip.Output("clip"), io.Vae.Output("vae")],
        )

    @classmethod
    def execute(cls):
        from ..trainer.models.comfyui.demo import load_demo_clip, load_demo_model, load_demo_vae

        return io.NodeOutput(load_demo_model(), load_demo_clip(), load_demo_vae())
