"""Saved settings of the kohya_ss GUI, which stand for arguments of sd-scripts.

The GUI saves every field, and leaves an argument out if its field is empty or zero. What it writes instead of other
arguments follows kohya_gui/lora_gui.py in bmaltais/kohya_ss.
"""

from __future__ import annotations

from typing import Any

from .command_lines import options_of
from .conversion import Conversion, as_number, is_off, is_on

MODULES = {
    "standard": ("networks.lora", ""),
    "flux1": ("networks.lora_flux", ""),
    "flux1 oft": ("networks.oft_flux", ""),
    "kohya locon": ("networks.lora", ""),
    "kohya dylora": ("networks.dylora", ""),
    "lora-fa": ("networks.lora_fa", ""),
    "lycoris/locon": ("lycoris.kohya", "locon"),
    "lycoris/loha": ("lycoris.kohya", "loha"),
    "lycoris/lokr": ("lycoris.kohya", "lokr"),
    "lycoris/ia3": ("lycoris.kohya", "ia3"),
    "lycoris/dylora": ("lycoris.kohya", "dylora"),
    "lycoris/diag-oft": ("lycoris.kohya", "diag-oft"),
    "lycoris/boft": ("lycoris.kohya", "boft"),
    "lycoris/glora": ("lycoris.kohya", "glora"),
    "lycoris/native fine-tuning": ("lycoris.kohya", "full"),
}
"""The network module and LyCORIS' algorithm of each LoRA_type."""

OF_NETWORK = (
    *("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas"),
    *("conv_block_dims", "conv_block_alphas", "rank_dropout", "module_dropout", "conv_dims", "conv_alphas"),
)
"""Fields that become arguments of the network."""

OF_LYCORIS = ("use_tucker", "use_cp", "use_scalar", "decompose_both", "dora_wd", "constrain", "rescaled", "bypass_mode")
"""Fields that become arguments of LyCORIS; networks.lora does not know them."""

ONLY_OF_THE_GUI = (
    *("model_list", "gpu_ids", "save_as_bool", "train_on_input", "unit", "use_wandb", "extra_accelerate_launch_args"),
    *(
        "sdxl_no_half_vae",
        "no_token_padding",
        "train_norm",
        "LyCORIS_preset",
        "train_blocks",
        "train_double_block_indices",
    ),
    *("train_single_block_indices", "num_machines", "main_process_port", "sdxl", "flux1_checkbox", "sd3_checkbox"),
    *("v_parameterization", "v2", "use_shell", "pretrained_model_name_or_path_list"),
)
"""Fields that are read elsewhere here, or concern the GUI itself."""


def arguments_of_gui(values: dict[str, Any], conversion: Conversion) -> tuple[dict[str, Any], str]:
    """Return the arguments of sd-scripts that saved settings of the GUI stand for, and the name of the script."""
    kind = str(values.pop("LoRA_type", "Standard")).strip().lower()
    module, algorithm = MODULES.get(kind, ("networks.lora", ""))
    if kind not in MODULES:
        conversion.differ("LoRA_type", kind, "taken as an ordinary LoRA")
    network: dict[str, Any] = {"algo": algorithm} if algorithm else {}
    if module == "lycoris.kohya" and not is_off(values.get("LyCORIS_preset")):
        network["preset"] = values["LyCORIS_preset"]
    if module == "lycoris.kohya" or kind == "kohya locon":
        network |= {key: str(values[key]) for key in ("conv_dim", "conv_alpha") if not is_off(values.get(key))}
    names = (*OF_NETWORK, *OF_LYCORIS, "factor") if module == "lycoris.kohya" else OF_NETWORK
    for key in names:
        value = values.get(key)
        if not is_off(value) and as_number(value) != -1:
            network[key] = str(value)
    for key in ("conv_dim", "conv_alpha", "factor", *OF_NETWORK, *OF_LYCORIS):
        if key in values and key not in network:
            conversion.off.append(key)
        values.pop(key, None)
    ratio = values.pop("loraplus_lr_ratio", None)
    if not is_off(ratio):
        network["loraplus_lr_ratio"] = str(ratio)
    is_flux, is_sd3 = is_on(values.get("flux1_checkbox")) or kind.startswith("flux1"), is_on(values.get("sd3_checkbox"))
    is_sdxl = is_on(values.get("sdxl"))
    script = (
        "flux_train_network"
        if is_flux
        else "sd3_train_network"
        if is_sd3
        else "sdxl_train_network"
        if is_sdxl
        else "train_network"
    )
    for prefix, applies in (("flux1_", is_flux), ("sdxl_", is_sdxl), ("sd3_", is_sd3)):
        for key in [key for key in values if key.startswith(prefix) and key not in ONLY_OF_THE_GUI]:
            value = values.pop(key)
            if applies and not is_off(value):
                values[key.removeprefix(prefix)] = value
            else:
                conversion.off.append(key)
    if not is_flux and not is_sd3:
        for key in (
            "timestep_sampling",
            "discrete_flow_shift",
            "guidance_scale",
            "model_prediction_type",
            "apply_t5_attn_mask",
        ):
            if key in values:
                conversion.off.append(key)
                values.pop(key)
    arguments = _renamed(values, conversion)
    arguments |= {"network_module": module, "network_args": network}
    more, _, _ = options_of(str(values.get("additional_parameters", "") or ""))
    return {**arguments, **more}, script


def _renamed(values: dict[str, Any], conversion: Conversion) -> dict[str, Any]:
    """Return the fields under the names of their arguments, without the empty ones."""
    arguments: dict[str, Any] = {}
    epochs = values.pop("max_train_epochs", None)
    epoch = values.pop("epoch", None)
    steps = values.get("max_train_steps")
    if not is_off(epochs):
        arguments["max_train_epochs"] = epochs
    elif is_off(steps):
        arguments["max_train_epochs"] = epoch or 1
    warmup, warmup_steps = as_number(values.pop("lr_warmup", None)), values.pop("lr_warmup_steps", None)
    if not is_off(warmup_steps):
        arguments["lr_warmup_steps"] = warmup_steps
    elif warmup:
        arguments["lr_warmup_steps"] = f"{warmup:g}%"
    seed = values.pop("seed", None)
    if not is_off(seed):
        arguments["seed"] = seed
    precision = {"xformers": "xformers", "sdpa": "sdpa"}.get(str(values.pop("xformers", "")).lower())
    if precision:
        conversion.tidy(precision)
    renamed = {"max_resolution": "resolution", "optimizer": "optimizer_type", "lora_network_weights": "network_weights"}
    text_rate, model_rate = as_number(values.get("text_encoder_lr")), as_number(values.get("unet_lr"))
    if text_rate == 0 and (model_rate or not is_off(values.get("learning_rate"))) and "text_encoder_lr" in values:
        if model_rate:
            arguments["network_train_unet_only"] = True
        values.pop("text_encoder_lr")
    for key in list(values):
        value = values[key]
        if key in ONLY_OF_THE_GUI:
            conversion.tidy(key)
        elif key == "additional_parameters":
            continue
        elif is_off(value):
            conversion.off.append(key)
        else:
            arguments[renamed.get(key, key)] = value
    return arguments
