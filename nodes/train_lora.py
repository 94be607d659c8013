"""The Train LoRA node: trains a LoRA on the connected model."""

from .browser import tell_lora_saved
from .comfy_io import CATEGORY, Config, Dataset, io, ui
from .folders import NONE, lora_choices, lora_file, lora_folder, lora_is_listed, runs_folder
from .widgets import refuse_unknown_inputs

NAME = "my_lora"


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
                io.String.Input(
                    "output_name",
                    default=NAME,
                    optional=True,
                    display_name="name",
                    tooltip="The LoRA's file name. If it is taken, a number is added: nothing is ever overwritten.",
                ),
                io.Boolean.Input(
                    "retrain",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: always train from the first step. Off: a run that is already finished returns its LoRA "
                        "at once, and one that was interrupted continues where it stopped."
                    ),
                ),
                io.Combo.Input(
                    "continue_from",
                    options=lora_choices(),
                    default=NONE,
                    optional=True,
                    display_name="continue from",
                    tooltip=(
                        "A LoRA to continue training, from any trainer, made for this kind of base model. Its layers "
                        "and algorithm are kept, and its rank unless you set one in Configure LoRA. None: start a new "
                        "LoRA. You do not need this to continue after Cancel: just press Run again."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with the LoRA applied, ready for KSampler."),
                io.Clip.Output("clip", tooltip="The text encoder to use with that model."),
                io.LoraModel.Output("lora", tooltip="The LoRA itself, for Load LoRA or ComfyUI's own LoRA nodes."),
                io.String.Output("lora_name", tooltip="The file name of the LoRA in output/loras."),
                io.LossMap.Output("loss", tooltip="The loss of each step, for ComfyUI's own Plot Loss Graph."),
                io.Image.Output("samples", tooltip="Samples from before, during and after training, same seed."),
                io.String.Output("report", tooltip="What was done, a verdict on the result, and what to try next."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, continue_from=NONE, **_):
        if continue_from is None:  # the value comes from another node, whose own inputs decide
            return ""
        return "" if continue_from == NONE else lora_file(continue_from).stat().st_mtime

    @classmethod
    def execute(cls, model, clip, vae, dataset, config, output_name=NAME, retrain=False, continue_from=NONE):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        import torch

        from ..trainer.models.comfyui.applying import with_lora
        from ..trainer.models.comfyui.model import ComfyUIBaseModel
        from ..trainer.training.resume import train_or_resume

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
            # Without enough memory for samples there are none; the socket still needs an image.
            torch.cat(result.samples) if result.samples else torch.zeros(1, 64, 64, 3),
            result.report,
            # Text only: the node still shows the last sample, and with images here Nodes 2.0 would show it twice.
            ui=ui.PreviewText(result.report),
        )


def _hooks():
    """Return hooks that drive ComfyUI's progress bar and show samples on the node; they raise on Cancel."""
    import comfy.utils

    from ..trainer.events.callbacks import Callbacks

    bar = comfy.utils.ProgressBar(1)
    side = 768  # larger samples are shrunk, and the tiny ones of the demo enlarged
    return Callbacks(
        preparing=lambda done, total, what: bar.update_absolute(done, total),
        stepped=lambda report, steps: bar.update_absolute(report.step, steps),
        sampled=lambda step, steps, picture: bar.update_absolute(step, steps, ("PNG", picture, side)),
    )
