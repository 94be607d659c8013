"""Node widgets generated from the settings of the config's schema."""

from .comfy_io import io

SAMPLERS = {"sample_sampler": "SAMPLERS", "sample_scheduler": "SCHEDULERS"}
"""The settings that list ComfyUI's samplers or schedulers, with the attribute of KSampler that has the names."""


def widget(setting):
    """Return the node input for a setting.

    The values 0, -1 or `auto` (whichever the setting uses) leave the choice to the run.
    """
    shared = {
        "display_name": setting.title.lower(),
        "tooltip": setting.description + _how_to_say_auto(setting),
        "advanced": setting.advanced or None,
    }
    if setting.name in SAMPLERS:
        import comfy.samplers

        options = getattr(comfy.samplers.KSampler, SAMPLERS[setting.name])
        return io.Combo.Input(setting.name, options=options, default=setting.widget_default, **shared)
    if setting.kind == "choice":
        return io.Combo.Input(setting.name, options=setting.offered, default=setting.widget_default, **shared)
    if setting.kind == "switch":
        return io.Boolean.Input(setting.name, default=setting.widget_default, **shared)
    if setting.kind == "text":
        return io.String.Input(setting.name, default=setting.widget_default, multiline=setting.multiline, **shared)
    number = io.Int if setting.kind == "integer" else io.Float
    if setting.name == "seed":
        # Otherwise ComfyUI would change the seed after every run, and the next one would train from scratch.
        shared["control_after_generate"] = False
    return number.Input(
        setting.name,
        default=setting.widget_default,
        min=setting.widget_minimum,
        # The largest integer that JavaScript represents exactly.
        max=min(setting.maximum, 2**53 - 1),
        step=setting.step,
        **shared,
    )


def _how_to_say_auto(setting):
    if not setting.is_number or not setting.may_be_auto:
        return ""
    return f" {setting.auto_number} = auto."
