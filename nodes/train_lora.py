"""The Train LoRA node: trains a LoRA on the connected model."""

from .comfy_io import CATEGORY, Config, Dataset, io, ui
from .folders import NONE
from .training import NAME, fingerprint_of_start, run_inputs, run_outputs, saved, trained
from .widgets import refuse_unknown_inputs


class CrucibleTrainLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleTrainLoRA",
            display_name="Train LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Trains a LoRA on the connected model and saves it to output/loras. The connected model itself is not "
                "changed; the outputs model and clip have the LoRA applied, so you can try it right away. "
                "After Cancel or a crash, press Run again to continue where the run stopped."
            ),
            search_aliases=["train lora", "fine-tune", "finetune", "dreambooth"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model to train the LoRA on."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                io.Vae.Input("vae", tooltip="The VAE of this model."),
                Dataset.Input("dataset", tooltip="Your images and captions, from Load Dataset (Crucible)."),
                Config.Input("config", tooltip="The training settings, from Configure LoRA (Crucible)."),
                *run_inputs("Configure LoRA"),
                io.Boolean.Input(
                    "save_run",
                    default=False,
                    optional=True,
                    display_name="save run",
                    tooltip=(
                        "On: train nothing, and write everything that the run needs into a folder in output/crucible: "
                        "its settings as config.yaml, its images, masks and final captions. Copy it to another "
                        "computer, and train it there with python -m trainer train. The report says what was written."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with the LoRA applied, ready for KSampler."),
                io.Clip.Output("clip", tooltip="The text encoder to use with that model."),
                *run_outputs(
                    io.Image.Output("samples", tooltip="Samples from before, during and after training, same seed.")
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, continue_from=NONE, **_):
        return fingerprint_of_start(continue_from)

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset,
        config,
        output_name=NAME,
        retrain=False,
        continue_from=NONE,
        save_run=False,
    ):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        import torch

        from ..trainer.models.comfyui.applying import with_lora
        from ..trainer.models.comfyui.model import ComfyUIBaseModel

        base_model = ComfyUIBaseModel(model, clip, vae)
        if save_run:
            return _saved(cls, base_model, dataset, config, output_name, continue_from)
        result, lora_name = trained(base_model, dataset, config, output_name, retrain, continue_from, _show)
        applied = with_lora(model, clip, result.lora, 1.0, 1.0)
        return io.NodeOutput(
            applied.model,
            applied.clip,
            result.lora,
            lora_name,
            {"loss": result.losses},
            # Without enough memory for samples there are none; the socket still needs an image.
            torch.cat(result.samples) if result.samples else torch.zeros(1, 64, 64, 3),
            result.report,
            # Text only: the node still shows the last sample, and with images here Nodes 2.0 would show it twice.
            ui=ui.PreviewText(result.report),
        )


def _saved(node, base_model, dataset, config, output_name, continue_from):
    """Save the run as a folder, and return the report; what is connected to other outputs does not run."""
    from comfy_execution.graph_utils import ExecutionBlocker

    from .base_model_files import base_model_files

    files = base_model_files(node.hidden.prompt, node.hidden.unique_id)
    report = saved(base_model, files, dataset, config, output_name, continue_from).text
    nothing = ExecutionBlocker(None)
    return io.NodeOutput(*[nothing] * (len(node.SCHEMA.outputs) - 1), report, ui=ui.PreviewText(report))


def _show(bar, step, steps, picture):
    """Show samples on the node: larger ones are shrunk to 768 pixels, and the tiny ones of the demo enlarged."""
    bar.update_absolute(step, steps, ("PNG", picture, 768))
