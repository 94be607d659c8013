"""The Train Language LoRA node: trains a LoRA on the language model in a CLIP."""

import logging
from functools import partial

from .clip_use import conditioning_nodes, image_warning
from .comfy_io import CATEGORY, LanguageConfig, TextDataset, io, ui
from .folders import NONE
from .training import NAME, fingerprint_of_start, run_inputs, run_outputs, trained
from .widgets import refuse_unknown_inputs

log = logging.getLogger(__name__)

CLIP_OUTPUT = 0
"""The index of the output that is the CLIP with the LoRA applied."""


class CrucibleTrainLanguageLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleTrainLanguageLoRA",
            display_name="Train Language LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "Trains a LoRA on the language model that is connected as CLIP and saves it to output/loras. The "
                "connected CLIP itself is not changed; the output clip has the LoRA applied, so you can hear it answer "
                "in Generate Text right away. After Cancel or a crash, press Run again to continue where the run "
                "stopped."
            ),
            search_aliases=["train llm", "language model", "fine-tune", "finetune", "text lora", "prompt writer"],
            is_output_node=True,
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="The language model, from Load CLIP or Demo Language Model, such as Qwen3 or Gemma 3.",
                ),
                TextDataset.Input("dataset", tooltip="Your rows, from Load Text Dataset (Crucible)."),
                LanguageConfig.Input("config", tooltip="The settings, from Configure Language LoRA (Crucible)."),
                *run_inputs("Configure Language LoRA"),
            ],
            outputs=[
                io.Clip.Output("clip", tooltip="The language model with the LoRA applied, for Generate Text."),
                *run_outputs(
                    io.String.Output("samples", tooltip="Sample answers from before, during and after training.")
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, continue_from=NONE, **_):
        return fingerprint_of_start(continue_from)

    @classmethod
    def execute(cls, clip, dataset, config, output_name=NAME, retrain=False, continue_from=NONE):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        from ..trainer.models.comfyui.applying import with_lora
        from .language_models import language_model

        prompt, node_id = cls.hidden.prompt, cls.hidden.unique_id
        warning = image_warning(prompt, node_id, CLIP_OUTPUT)
        if warning:
            log.warning(warning)
        base_model = language_model(clip, dataset.row_settings)
        result, lora_name = trained(
            base_model, dataset, config, output_name, retrain, continue_from, partial(_show, node_id)
        )
        report = "\n\n".join(filter(None, [warning, result.report, _about_original(prompt, node_id)]))
        return io.NodeOutput(
            with_lora(None, clip, result.lora, 0.0, 1.0).clip,
            result.lora,
            lora_name,
            {"loss": result.losses},
            result.sample_texts(),
            report,
            ui=ui.PreviewText(report),
        )


def _show(node_id, bar, step, steps, answers):
    """Show sample answers on the node while it works."""
    from server import PromptServer

    bar.update_absolute(step, steps)
    # Nodes 2.0 shows it without its line breaks.
    text = "\n• ".join([f"Sample answers after step {step} of {steps}:", *answers])
    PromptServer.instance.send_progress_text(text, node_id)


def _about_original(prompt, node_id):
    """Return a note if the CLIP that is trained on makes conditioning for images, or ""."""
    from ..trainer.messages.wording import listed

    link = ((prompt or {}).get(node_id) or {}).get("inputs", {}).get("clip")
    if not isinstance(link, list) or not (found := conditioning_nodes(prompt, link, without=node_id)):
        return ""
    return (
        f"Note: the CLIP that was trained on also makes the conditioning of images, in {listed(found)}. It does so "
        "without the LoRA, as before. Only this node's output clip has the LoRA: connect that one to Generate Text."
    )
