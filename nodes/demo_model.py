"""The demo model as a node."""

from .comfy_io import CATEGORY, io


class CrucibleDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleDemoModel",
            display_name="Demo Model (Crucible)",
            category=CATEGORY,
            description=(
                "A tiny model that comes with this pack and draws one coloured shape on a plain background, 64 x 64 "
                'pixels: "a red circle on a white background". It trains in a minute without a GPU. Replace this node '
                "by Load Checkpoint when you have seen how it goes."
            ),
            search_aliases=["load checkpoint", "demo checkpoint"],
            outputs=[io.Model.Output("model"), io.Clip.Output("clip"), io.Vae.Output("vae")],
        )

    @classmethod
    def execute(cls):
        from ..trainer.base_models.comfyui.demo import load_demo_clip, load_demo_model, load_demo_vae

        return io.NodeOutput(load_demo_model(), load_demo_clip(), load_demo_vae())
