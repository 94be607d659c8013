"""What the nodes that train have in common: the inputs of a run, its outputs, and the run itself."""

from .browser import tell_lora_saved
from .comfy_io import io
from .folders import NONE, lora_choices, lora_file, lora_folder, lora_is_listed, runs_folder

NAME = "my_lora"


def run_inputs(configured_by):
    """Return the inputs that say what becomes of a run.

    Args:
        configured_by: the name of the node that configures the training.
    """
    return [
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
                "On: always train from the first step. Off: a run that is already finished returns its LoRA at once, "
                "and one that was interrupted continues where it stopped."
            ),
        ),
        io.Combo.Input(
            "continue_from",
            options=lora_choices(),
            default=NONE,
            optional=True,
            display_name="continue from",
            tooltip=(
                "A LoRA to continue training, from any trainer, made for this kind of base model. Its layers and "
                f"algorithm are kept, and its rank unless you set one in {configured_by}. None: start a new LoRA. You "
                "do not need this to continue after Cancel: just press Run again."
            ),
        ),
    ]


def run_outputs(samples):
    """Return the outputs that describe a run.

    Args:
        samples: the output for its samples.
    """
    return [
        io.LoraModel.Output("lora", tooltip="The LoRA itself, for Load LoRA or ComfyUI's own LoRA nodes."),
        io.String.Output("lora_name", tooltip="The file name of the LoRA in output/loras."),
        io.LossMap.Output("loss", tooltip="The loss of each step, for ComfyUI's own Plot Loss Graph."),
        samples,
        io.String.Output("report", tooltip="What was done, a verdict on the result, and what to try next."),
    ]


def fingerprint_of_start(continue_from):
    """Return what changes when the LoRA that a run starts from does."""
    if continue_from is None:  # the value comes from another node, whose own inputs decide
        return ""
    return "" if continue_from == NONE else lora_file(continue_from).stat().st_mtime


def trained(base_model, dataset, config, output_name, retrain, continue_from, show):
    """Train a LoRA, with ComfyUI's progress bar; Cancel stops it.

    Args:
        base_model: the base model to train on.
        continue_from: the name of the LoRA to start from, or `NONE`.
        show: a function called with (the progress bar, the number of steps done, all steps, the samples) when samples
            have been made.

    Returns:
        The result of the run, and the LoRA's file name.
    """
    from ..trainer.training.resume import train_or_resume

    config = _with_run(config, output_name, continue_from)
    result = train_or_resume(
        base_model,
        dataset,
        config,
        lora_folder(),
        runs_folder(),
        _callbacks(show),
        retrain=retrain,
        is_listed=lora_is_listed,
    )
    lora_name = f"{result.files.name}.safetensors"
    tell_lora_saved(lora_name)
    return result, lora_name


def saved(base_model, files, dataset, config, output_name, continue_from):
    """Save a run as a folder instead of training it, and return it.

    Args:
        base_model: the base model to train on.
        files: the files that it comes from.
        continue_from: the name of the LoRA to start from, or `NONE`.
    """
    import comfy.utils

    from ..trainer.files.names import check_output_name, unused_name
    from ..trainer.runs.saved_run import save_run
    from ..trainer.training.plan import plan_run

    name = check_output_name(output_name)
    plan = plan_run(base_model, dataset, _with_run(config, name, continue_from))
    bar = comfy.utils.ProgressBar(1)
    settings = plan.config.model_copy(update=files.settings)
    folder = runs_folder() / unused_name(f"{name}_run", lambda taken: (runs_folder() / taken).exists())
    return save_run(folder, plan.dataset, settings, files.remarks, bar.update_absolute)


def _with_run(config, output_name, continue_from):
    start = None if continue_from == NONE else str(lora_file(continue_from))
    return config.model_copy(update={"output_name": output_name, "continue_from": start})


def _callbacks(show):
    """Return the callbacks that drive ComfyUI's progress bar; they raise on Cancel."""
    import comfy.utils

    from ..trainer.events.callbacks import Callbacks

    bar = comfy.utils.ProgressBar(1)
    return Callbacks(
        preparing=lambda done, total, what: bar.update_absolute(done, total),
        stepped=lambda report, steps: bar.update_absolute(report.step, steps),
        sampled=lambda step, steps, samples: show(bar, step, steps, samples),
    )
