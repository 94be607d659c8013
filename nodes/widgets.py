"""Node widgets generated from the settings of the config's schema."""

from ..trainer.config.setting import AUTO_NUMBER
from ..trainer.messages.wording import listed
from .comfy_io import io

SAMPLERS = {"sample_sampler": "SAMPLERS", "sample_scheduler": "SCHEDULERS"}
"""The settings that list ComfyUI's samplers or schedulers, with the attribute of KSampler that has the names."""

LARGEST_INTEGER = 2**53 - 1
"""The largest integer that JavaScript represents exactly."""


def widget(setting, without=()):
    """Return the node input for a setting. A prompt sent to the API may leave it out, which means its default.

    Args:
        without: the choices that the node does not offer.
    """
    shared = {
        "display_name": setting.title.lower(),
        "tooltip": setting.description,
        "optional": True,
    }
    if setting.name in SAMPLERS:
        import comfy.samplers

        options = getattr(comfy.samplers.KSampler, SAMPLERS[setting.name])
        return io.Combo.Input(setting.name, options=options, default=setting.widget_default, **shared)
    if setting.kind == "choice":
        options = [choice for choice in setting.offered if choice not in without]
        return io.Combo.Input(setting.name, options=options, default=setting.widget_default, **shared)
    if setting.kind == "switch":
        return io.Boolean.Input(setting.name, default=setting.widget_default, **shared)
    if setting.kind == "text":
        return io.String.Input(setting.name, default=setting.widget_default, multiline=setting.multiline, **shared)
    number = io.Int if setting.kind == "integer" else io.Float
    if setting.may_be_auto:
        return auto_number(
            number,
            setting.name,
            setting.minimum,
            setting.maximum,
            expected=setting.expected,
            excluded=setting.minimum_excluded,
            default=setting.widget_default,
            step=setting.step,
            **shared,
        )
    if setting.name == "seed":
        # Otherwise ComfyUI would change the seed after every run, and the next one would train from scratch.
        shared["control_after_generate"] = False
    return number.Input(
        setting.name,
        default=setting.widget_default,
        min=setting.minimum,
        max=min(setting.maximum, LARGEST_INTEGER),
        step=setting.step,
        **shared,
    )


def auto_number(
    number, name, minimum, maximum, *, expected, tooltip, excluded=False, default=AUTO_NUMBER, step=None, **shared
):
    """Return the input of a number that may be auto: for the server a number, in the page a field that may be empty.

    Args:
        number: `io.Int` or `io.Float`.
        minimum: the lowest number that is not auto.
        expected: the valid values, as a phrase that follows "must be".
        excluded: whether a number must be above `minimum`.
    """
    limits = {"whole": number is io.Int, "minimum": minimum, "excluded": excluded, "expected": expected}
    return number.Input(
        name,
        default=default,
        min=AUTO_NUMBER,
        max=maximum,
        step=step,
        tooltip=f"{tooltip} Leave it empty for auto ({AUTO_NUMBER} in prompts sent to the API).",
        # web/auto_number.js makes the field.
        extra_dict={"widgetType": "CRUCIBLE_AUTO_NUMBER", "auto_number": limits},
        **shared,
    )


def refuse_unknown_inputs(node):
    """Refuse a prompt that gives a node inputs it does not have, which ComfyUI would ignore.

    Args:
        node: the class of the node, which asks for the hidden inputs `prompt` and `unique_id`.

    Raises:
        CrucibleError: the prompt has such inputs.
    """
    from ..trainer.errors import CrucibleError
    from .options import OPTION_NODES
    from .tagger_options import CrucibleTaggerOptions

    schema = node.SCHEMA
    given = (node.hidden.prompt or {}).get(node.hidden.unique_id, {}).get("inputs", {})
    unknown = [name for name in given if name not in {one.id for one in schema.inputs}]
    if not unknown:
        return
    wanted = set(unknown) - {"options"}
    option_nodes = [one.GET_SCHEMA() for one in (*OPTION_NODES.values(), CrucibleTaggerOptions)]
    titles = [one.display_name for one in option_nodes if wanted & {part.id for part in one.inputs}]
    where = f"Settings such as these are on {listed(titles)}; add it and connect its options. " if titles else ""
    raise CrucibleError(
        f"{schema.display_name} has no input {listed(unknown)}, so its value would be ignored. {where}"
        f"Its inputs are {', '.join(one.id for one in schema.inputs)}. Remove what is not one of them from the prompt."
    )
