"""Widgets made from the settings of the config's schema."""

from .comfy_io import io

SAMPLERS = {"sample_sampler": "SAMPLERS", "sample_scheduler": "SCHEDULERS"}


def widget(setting):
    """The input of a node for a setting; 0, -1 or auto stands for a value that the run finds itself."""
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
        # Else ComfyUI changes the seed after every run, and the next one trains from scratch.
        shared["control_after_generate"] = False
    return number.Input(
        setting.name,
        default=setting.widget_default,
        min=setting.widget_minimum,
        # JavaScript's numbers are exact up to here.
        max=min(setting.maximum, 2**53 - 1),
        step=setting.step,
        **shared,
    )


def _how_to_say_auto(setting):
    if not setting.is_number or not setting.may_be_auto:
        return ""
    return f" {setting.auto_number} = auto."
