"""Several LoRAs as one, as a node."""

import folder_paths

from ..trainer.merging.recipe import MAJORITY_SIGNS, METHODS, Recipe
from .browser import tell_lora_saved
from .comfy_io import CATEGORY, LoraStack, io, ui
from .folders import lora_file, lora_folder, lora_is_listed

MEMORY = 2 * 1024**3
"""Bytes; the largest layers of image models take about this much."""


class CrucibleMergeLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        recipe = Recipe()
        return io.Schema(
            node_id="CrucibleMergeLoRA",
            display_name="Merge LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Makes one LoRA of a stack of LoRAs, of any trainer and algorithm, and saves it to output/loras. "
                "Linear does exactly what all do together; TIES and DARE settle where they contradict each other."
            ),
            search_aliases=["merge lora", "combine lora", "bake lora", "ties", "dare"],
            is_output_node=True,
            inputs=[
                LoraStack.Input("lora_stack", tooltip="From LoRA Stack or Load LoRA (Crucible), or another pack."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=recipe.method,
                    tooltip=(
                        "linear: the sum. ties: keeps each LoRA's largest values and, where signs differ, the side "
                        "that weighs more. dare: keeps values at random and scales them up. magnitude_prune: the sum "
                        "of the largest values."
                    ),
                ),
                io.Int.Input(
                    "lora_rank",
                    default=0,
                    min=0,
                    max=1024,
                    display_name="rank",
                    tooltip="0 = as high as needed: nothing is lost by linear. Lower gives a smaller file.",
                ),
                io.Float.Input(
                    "density",
                    default=recipe.density,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of each LoRA's values that is kept. Not for linear.",
                ),
                io.String.Input(
                    "output_name",
                    default="merged_lora",
                    display_name="name",
                    tooltip="The LoRA's file name. If it is taken, a number is added: nothing is ever overwritten.",
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="The base model. Only needed where a LoRA of the stack is a DoRA."
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Only needed where a LoRA of the stack is a DoRA of text encoders."
                ),
                io.Combo.Input(
                    "majority_sign",
                    options=list(MAJORITY_SIGNS),
                    default=recipe.majority_sign,
                    advanced=True,
                    tooltip="For TIES: whose sign wins. total: that of the sum; frequency: that of more LoRAs.",
                ),
                io.Int.Input(
                    "seed",
                    default=recipe.seed,
                    min=0,
                    max=2**53 - 1,
                    advanced=True,
                    control_after_generate=False,
                    tooltip="Of the values that DARE drops.",
                ),
            ],
            outputs=[
                io.LoraModel.Output("lora", tooltip="The LoRA itself, for Load LoRA (Crucible)."),
                io.String.Output("lora_name", tooltip="Its file name in output/loras."),
                io.String.Output("info", tooltip="What was merged, and how exact the result is."),
            ],
        )

    @classmethod
    def execute(cls, lora_stack, method, lora_rank, density, output_name, majority_sign, seed, model=None, clip=None):
        from ..trainer.requirements import require_packages

        require_packages()
        import comfy.model_management
        import comfy.utils
        import torch

        from ..trainer.base_models.comfyui.weights import base_weights_of
        from ..trainer.formats.lora_model import load_lora
        from ..trainer.formats.lora_stack import read_stack
        from ..trainer.formats.output_name import unused_path
        from ..trainer.merging.ingredients import Strengths
        from ..trainer.merging.result import merge_to_file

        bar = comfy.utils.ProgressBar(1)

        def progress(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        stack = [
            Strengths(load_lora(lora_file(entry.name), entry.name), entry.strength_model, entry.strength_clip)
            for entry in read_stack(lora_stack, folder_paths.get_filename_list("loras"))
        ]
        recipe = Recipe(method, lora_rank or None, density, majority_sign, seed)
        device = comfy.model_management.get_torch_device()
        if device.type == "cuda":
            comfy.model_management.free_memory(MEMORY, device)
        else:  # others lack what is computed here
            device = torch.device("cpu")
        path = unused_path(lora_folder(), output_name, lora_is_listed)
        lora, info = merge_to_file(path, stack, recipe, base_weights_of(model, clip), progress, device=device)
        tell_lora_saved(lora.name)
        return io.NodeOutput(lora, lora.name, info, ui=ui.PreviewText(info))
