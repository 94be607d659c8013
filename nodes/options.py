"""The option nodes: the settings that most people leave alone, one node for each group of the config's schema."""

from ..trainer.config import SETTINGS
from .comfy_io import CATEGORY, io
from .widgets import refuse_unknown_inputs, widget

TrainingOptions = io.Custom("CRUCIBLE_OPTIONS")
DataOptions = io.Custom("CRUCIBLE_DATA_OPTIONS")
TextOptions = io.Custom("CRUCIBLE_TEXT_OPTIONS")


def settings_of(group, task=None):
    """Return the settings of a group, in the order of the schema.

    Args:
        task: the task that they must have a meaning for; None takes the settings of all tasks.
    """
    of_group = [setting for setting in SETTINGS.values() if setting.group == group]
    return [setting for setting in of_group if task is None or setting.task in (None, task)]


def _on_node_for(group):
    """Return the settings that the node for a group has.

    What Image Options has for datasets of all kinds is on Text Options as well, because images and rows are loaded by
    two nodes.
    """
    of_datasets = settings_of("images", "text-generation") if group == "text" else []
    return [*settings_of(group), *of_datasets]


def values_of(options):
    """Return the values of a chain of option nodes by setting; `options` is None if there is no such chain."""
    return {name: value for values in (options or {}).values() for name, value in values.items()}


def _options_node(node_id, title, group, socket, taker, description, search_aliases):
    """Return the node class for a group of settings.

    Args:
        socket: the type of its output, and of its input if several nodes have it and can form a chain.
        taker: the name of the node that takes the options.
    """
    display_name = f"{title} (Crucible)"
    earlier = [socket.Input("options", optional=True, tooltip="Other option nodes. Their settings go along.")]
    on_the_way, or_another = ", or to another option node on the way there", ", or for another option node"
    if socket is TextOptions:
        earlier, on_the_way, or_another = [], "", ""

    class OptionsNode(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id=node_id,
                display_name=display_name,
                category=f"{CATEGORY}/options",
                description=f"{description} Connect options to {taker}{on_the_way}.",
                search_aliases=search_aliases,
                inputs=[*(widget(setting) for setting in _on_node_for(group)), *earlier],
                outputs=[socket.Output("options", tooltip=f"For {taker}{or_another}.")],
                hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            )

        @classmethod
        def execute(cls, options=None, **values):
            from ..trainer.errors import CrucibleError

            refuse_unknown_inputs(cls)
            if group in (options or {}):
                raise CrucibleError(
                    f"Two nodes of the kind {display_name} are in one chain of options, so the same settings would "
                    f"have two values. Remove one of them, or connect it to another {taker}."
                )
            return io.NodeOutput({**(options or {}), group: values})

    OptionsNode.__name__ = OptionsNode.__qualname__ = node_id
    return OptionsNode


_CONFIGURE_IMAGES, _LOAD = "Configure LoRA (Crucible)", "Load Dataset (Crucible)"
_CONFIGURE = "Configure LoRA or Configure Language LoRA (Crucible)"

OPTION_NODES = {
    group: _options_node(node_id, title, group, *rest)
    for group, (node_id, title, *rest) in {
        "layers": (
            "CrucibleLayersAndAlgorithm",
            "Layers and Algorithm",
            TrainingOptions,
            _CONFIGURE,
            "Which layers get an adapter, of which kind, and whether the text encoder is trained too.",
            ["alpha", "dora", "lokr", "loha", "text encoder", "target modules"],
        ),
        "optimizer": (
            "CrucibleOptimizerAndSchedule",
            "Optimizer and Schedule",
            TrainingOptions,
            _CONFIGURE,
            "How the steps are made: the optimizer, and the learning rate from the first step to the last.",
            ["adamw", "prodigy", "adafactor", "warmup", "scheduler", "ema"],
        ),
        "objective": (
            "CrucibleObjective",
            "Objective",
            TrainingOptions,
            _CONFIGURE_IMAGES,
            "What the LoRA is trained towards: the loss, its weights, and the timesteps that are drawn.",
            ["loss", "min snr", "noise offset", "timestep", "shift"],
        ),
        "samples": (
            "CrucibleSampleOptions",
            "Sample Options",
            TrainingOptions,
            _CONFIGURE,
            "How samples are drawn or written during training, and how often.",
            ["preview", "sampler", "cfg"],
        ),
        "validation": (
            "CrucibleValidationAndMeasures",
            "Validation and Measures",
            TrainingOptions,
            _CONFIGURE,
            "How the result is measured, and when training stops by itself.",
            ["early stopping", "overfitting", "evaluation"],
        ),
        "memory": (
            "CrucibleMemoryAndCheckpoints",
            "Memory and Checkpoints",
            TrainingOptions,
            _CONFIGURE,
            "How memory is saved, and what is kept on the disk.",
            ["precision", "gradient checkpointing", "gradient accumulation", "cache", "save"],
        ),
        "captions": (
            "CrucibleCaptionOptions",
            "Caption Options",
            DataOptions,
            _LOAD,
            "How captions are put together, varied and left out.",
            ["shuffle tags", "caption dropout", "prefix", "keep tokens"],
        ),
        "images": (
            "CrucibleImageOptions",
            "Image Options",
            DataOptions,
            _LOAD,
            "How images are sized, cropped, mirrored and masked, and how much regularization images count.",
            ["buckets", "crop", "flip", "mask", "regularization"],
        ),
        "text": (
            "CrucibleTextOptions",
            "Text Options",
            TextOptions,
            "Load Text Dataset (Crucible)",
            "Which keys rows have, what of them is trained, what becomes of long ones, and how much regularization "
            "rows count.",
            ["columns", "long rows", "sequence length", "regularization"],
        ),
    }.items()
}
"""The node class of each group of settings that has a node of its own."""
