"""The Merge LoRA node: combines several LoRAs into one file."""

import folder_paths

from ..trainer.config.setting import AUTO_NUMBER
from ..trainer.formats.architectures import NAMEABLE
from ..trainer.merging.recipe import MAJORITY_SIGNS, METHODS, Recipe
from .browser import tell_lora_saved
from .comfy_io import CATEGORY, LoraStack, io, ui
from .folders import lora_file, lora_folder, lora_is_listed
from .widgets import LARGEST_INTEGER, auto_number, refuse_unknown_inputs

MEMORY = 2 * 1024**3
"""The GPU memory in bytes to free before merging: about what the largest layers of image models take."""

NAME = "merged_lora"


class CrucibleMergeLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        recipe = Recipe()
        return io.Schema(
            node_id="CrucibleMergeLoRA",
            display_name="Merge LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Combines a stack of LoRAs into one LoRA and saves it to output/loras. The LoRAs may come from any "
                "trainer and use any algorithm. linear gives the same result as using them all together; ties and dare "
                "resolve conflicts between them."
            ),
            search_aliases=["merge lora", "combine lora", "bake lora", "ties", "dare"],
            is_output_node=True,
            inputs=[
                LoraStack.Input("lora_stack", tooltip="The LoRAs, from LoRA Stack, Load LoRA or another pack."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=recipe.method,
                    optional=True,
                    tooltip=(
                        "How to combine the LoRAs. linear: add them up. ties: keep each LoRA's largest values, and "
                        "where LoRAs pull in opposite directions, only the stronger side. dare_linear, dare_ties: keep "
                        "values at random, scale them up, then do as linear or ties. magnitude_prune: add up only the "
                        "largest values of each."
                    ),
                ),
                auto_number(
                    io.Int,
                    "lora_rank",
                    1,
                    1024,
                    expected="a whole number from 1 to 1,024, or auto",
                    optional=True,
                    display_name="rank",
                    tooltip=(
                        "The rank of the merged LoRA; a lower rank gives a smaller file. auto is as high as needed, so "
                        "that linear loses nothing."
                    ),
                ),
                io.Float.Input(
                    "density",
                    default=recipe.density,
                    optional=True,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of each LoRA's values to keep, from 0 to 1. Ignored by linear.",
                ),
                io.String.Input(
                    "output_name",
                    default=NAME,
                    optional=True,
                    display_name="name",
                    tooltip="The LoRA's file name. If it is taken, a number is added: nothing is ever overwritten.",
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="The base model. Only needed if the stack contains a DoRA."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Only needed if a DoRA in the stack changes the text encoder or is for a language model.",
                ),
                io.Combo.Input(
                    "majority_sign",
                    options=list(MAJORITY_SIGNS),
                    default=recipe.majority_sign,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "For ties and dare_ties: which direction wins where LoRAs pull in opposite ones. total: the "
                        "stronger one. frequency: the one that more LoRAs have."
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=recipe.seed,
                    optional=True,
                    min=0,
                    max=LARGEST_INTEGER,
                    advanced=True,
                    control_after_generate=False,
                    tooltip="For dare: decides which values are dropped at random.",
                ),
                io.Combo.Input(
                    "architecture",
                    options=["auto", *NAMEABLE],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "The model that the LoRAs were trained on, if info says that their files do not tell. auto: as "
                        "their layers, their metadata and the connected model tell."
                    ),
                ),
            ],
            outputs=[
                io.LoraModel.Output("lora", tooltip="The merged LoRA, for Load LoRA (Crucible)."),
                io.String.Output("lora_name", tooltip="The file name of the merged LoRA in output/loras."),
                io.String.Output("info", tooltip="What was merged, and how accurate the result is."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, lora_stack, lora_rank=AUTO_NUMBER, output_name=NAME, architecture="auto", model=None, clip=None, **how
    ):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        import comfy.model_management
        import comfy.utils
        import torch

        from ..trainer.files.names import unused_path
        from ..trainer.formats.lora_model import load_lora
        from ..trainer.formats.lora_stack import read_stack
        from ..trainer.merging.architecture import architecture_of_all
        from ..trainer.merging.ingredients import Strengths
        from ..trainer.merging.result import merge_to_file
        from ..trainer.models.comfyui.naming import architecture_of
        from ..trainer.models.comfyui.weights import base_weights_of

        bar = comfy.utils.ProgressBar(1)

        def progress(done, total):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        stack = [
            Strengths(load_lora(lora_file(entry.name), entry.name), entry.strength_model, entry.strength_clip)
            for entry in read_stack(
                lora_stack, folder_paths.get_filename_list("loras"), folder_paths.get_folder_paths("loras")
            )
        ]
        of_model = [] if model is None else [architecture_of(model.model)]
        known = architecture_of_all([one.lora for one in stack], architecture, of_model)
        recipe = Recipe(rank=lora_rank if lora_rank > 0 else None, **how)
        device = comfy.model_management.get_torch_device()
        if device.type == "cuda":
            comfy.model_management.free_memory(MEMORY, device)
        else:  # other devices do not support all operations used here
            device = torch.device("cpu")
        path = unused_path(lora_folder(), output_name, lora_is_listed)
        lora, info = merge_to_file(
            path, stack, recipe, base_weights_of(model, clip), progress, device=device, architecture=known
        )
        tell_lora_saved(lora.name)
        return io.NodeOutput(lora, lora.name, info, ui=ui.PreviewText(info))
