"""The training as a node."""

from .browser import tell_lora_saved
from .comfy_io import CATEGORY, Config, Dataset, io, ui
from .folders import NONE, lora_choices, lora_file, lora_folder, lora_is_listed, runs_folder


class CrucibleTrainLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleTrainLoRA",
            display_name="Train LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Trains a LoRA on the connected model and saves it to output/loras. The model itself is not changed; "
                "the outputs model and clip carry the LoRA and can be sampled at once. "
                "After Cancel or a crash the same run goes on where it was."
            ),
            search_aliases=["train lora", "fine-tune", "finetune", "dreambooth"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model to train on, of any architecture."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                Dataset.Input("dataset", tooltip="From Load Dataset (Crucible)."),
                Config.Input("config", tooltip="From Configure LoRA (Crucible)."),
                io.String.Input(
                    "output_name",
                    default="my_lora",
                    display_name="name",
                    tooltip="The LoRA's file name. If it is taken, a number is added: nothing is ever overwritten.",
                ),
                io.Boolean.Input(
                    "retrain",
                    default=False,
                    tooltip=(
                        "Train from the first step, even if the same run is finished (its LoRA would be returned at "
                        "once) or was interrupted (it would go on)."
                    ),
                ),
                io.Combo.Input(
                    "continue_from",
                    options=lora_choices(),
                    default=NONE,
                    display_name="continue from",
                    tooltip=(
                        "A LoRA to train on, from any trainer, made for this kind of model. Its layers and algorithm "
                        "stay, and its rank too, unless Configure LoRA sets one. None starts from zero."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with the LoRA, ready to sample."),
                io.Clip.Output("clip", tooltip="The text encoder that belongs to it."),
                io.LoraModel.Output("lora", tooltip="The LoRA itself, for Load LoRA (Crucible) or core's LoRA nodes."),
                io.String.Output("lora_name", tooltip="Its file name in output/loras."),
                io.LossMap.Output("loss", tooltip="The loss of each step, for core's Plot Loss Graph."),
                io.Image.Output("samples", tooltip="Pictures before, during and after the training, same seed."),
                io.String.Output("report", tooltip="What was done, with all figures."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, continue_from, **_):
        if continue_from is None:  # another node says which file; that node's inputs decide alone
            return ""
        return "" if continue_from == NONE else lora_file(continue_from).stat().st_mtime

    @classmethod
    def execute(cls, model, clip, vae, dataset, config, output_name, retrain, continue_from):
        from ..trainer.requirements import require_packages

        require_packages()
        import torch

        from ..trainer.base_models.comfyui.applying import with_lora
        from ..trainer.base_models.comfyui.model import ComfyUIBaseModel
        from ..trainer.resuming import train_or_resume

        base_model = ComfyUIBaseModel(model, clip, vae)
        start = None if continue_from == NONE else str(lora_file(continue_from))
        config = config.model_copy(update={"output_name": output_name, "continue_from": start})
        result = train_or_resume(
            base_model,
            dataset,
            config,
            lora_folder(),
            runs_folder(),
            _hooks(),
            retrain=retrain,
            is_listed=lora_is_listed,
        )
        lora_name = f"{result.files.name}.safetensors"
        tell_lora_saved(lora_name)
        trained = with_lora(model, clip, result.lora, 1.0, 1.0)
        return io.NodeOutput(
            trained.model,
            trained.clip,
            result.lora,
            lora_name,
            {"loss": result.losses},
            # There are none where memory did not suffice for them.
            torch.cat(result.samples) if result.samples else torch.zeros(1, 64, 64, 3),
            result.report,
            # No pictures: the node still shows the last preview, and Nodes 2.0 would show it twice.
            ui=ui.PreviewText(result.report),
        )


def _hooks():
    """ComfyUI's progress bar with previews on the node; it raises when the user cancels."""
    import comfy.utils

    from ..trainer.run import Hooks

    bar = comfy.utils.ProgressBar(1)
    side = 768  # larger previews are made smaller, and the demo's tiny ones larger
    return Hooks(
        preparing=lambda done, total, what: bar.update_absolute(done, total),
        stepped=lambda report, steps: bar.update_absolute(report.step, steps),
        sampled=lambda step, steps, picture: bar.update_absolute(step, steps, ("PNG", picture, side)),
    )
