"""The Tagger Options node: what taggers keep of the tags that they are unsure of."""

from ..trainer.captioners.options import CaptionStyle
from .comfy_io import CATEGORY, io
from .widgets import refuse_unknown_inputs

TaggerOptions = io.Custom("CRUCIBLE_TAGGER_OPTIONS")


class CrucibleTaggerOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        style = CaptionStyle()
        return io.Schema(
            node_id="CrucibleTaggerOptions",
            display_name="Tagger Options (Crucible)",
            category=f"{CATEGORY}/options",
            description="How certain a tagger must be of a tag, for Auto Caption. Other captioners ignore it.",
            search_aliases=["threshold", "wd14", "rating"],
            inputs=[
                io.Float.Input(
                    "general_threshold",
                    default=style.general_threshold,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_name="tag threshold",
                    tooltip="For taggers: how certain a tag must be. Lower gives more tags, but also more wrong ones.",
                ),
                io.Float.Input(
                    "character_threshold",
                    default=style.character_threshold,
                    optional=True,
                    min=0.0,
                    max=1.01,
                    step=0.01,
                    display_name="character threshold",
                    tooltip="For taggers: how certain a character's name must be. Set it to 1.01 for no names.",
                ),
                io.Boolean.Input(
                    "rating_tag",
                    default=False,
                    optional=True,
                    display_name="rating tag",
                    tooltip="For taggers: add a tag that says how safe for work the image is.",
                ),
            ],
            outputs=[TaggerOptions.Output("options", tooltip="For Auto Caption (Crucible).")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **options):
        refuse_unknown_inputs(cls)
        return io.NodeOutput(options)
