"""What the nodes that configure a training have in common: their inputs, their outputs, and the config they make."""

from ..trainer.config.tasks import IMAGE_PURPOSES
from .comfy_io import io
from .options import TrainingOptions, settings_of
from .widgets import widget

_NOT_FOR_TEXTS = {"purpose": IMAGE_PURPOSES}
"""The choices of a setting that have no meaning for language models."""


def setting_inputs(task):
    """Return the widgets of the settings that most people change, and the input for all others."""
    without = _NOT_FOR_TEXTS if task == "text-generation" else {}
    return [
        *(widget(setting, without.get(setting.name, ())) for setting in settings_of("main", task)),
        TrainingOptions.Input(
            "options", optional=True, tooltip="All other settings, from the nodes for options, in a chain."
        ),
    ]


def yaml_input():
    """Return the input for a config file."""
    return io.String.Input(
        "config_yaml",
        optional=True,
        force_input=True,
        display_name="settings as YAML",
        tooltip=(
            "The text of a config file, for example from ComfyUI's node for multiline text. Its values replace those "
            "of widgets that are on auto or at their default. If you changed a widget and the YAML has a different "
            "value for it, you get an error that names both. Settings that belong to other nodes, such as "
            "train_data_dir, are ignored."
        ),
    )


def config_outputs(socket, taker):
    """Return the outputs of a config.

    Args:
        socket: the type of the config.
        taker: the name of the node that trains with it.
    """
    return [
        socket.Output("config", tooltip=f"The settings, for {taker}."),
        io.String.Output("summary", tooltip="The settings in words, with the reason for each auto value."),
        io.String.Output("yaml", tooltip="The settings as a config file for python -m trainer train."),
    ]


def configured(task, values, config_yaml, known):
    """Return a config and its summary as a node's outputs.

    Args:
        task: the task that is configured.
        values: the values of the widgets, on this node and on its nodes for options.
        config_yaml: the text of a config file, or "".
        known: a function from the config to the dataset, the facts about the model and the warnings about it, as
            `summarise` takes them.
    """
    from ..trainer.config.widgets_and_yaml import from_widgets_and_yaml, split_of_other_nodes
    from ..trainer.planning.summary import summarise

    config, elsewhere = split_of_other_nodes(from_widgets_and_yaml(values, config_yaml, task))
    summary = summarise(config, *known(config), elsewhere)
    return io.NodeOutput(config, summary.text, summary.yaml, ui={"auto": [summary.chosen]})
