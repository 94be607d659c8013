"""The arguments of kohya's sd-scripts and musubi-tuner, on a command line or in a TOML file.

The defaults are those of the argument parsers in kohya-ss/sd-scripts (library/train_util.py, train_network.py,
library/flux_train_utils.py) and in kohya-ss/musubi-tuner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.foreign_keys import ELSEWHERE
from ..config.paths import OF_MODELS
from ..errors import CrucibleError
from .conversion import (
    Conversion,
    apply,
    as_number,
    finish,
    is_off,
    is_on,
)
from .images import set_optimizer, set_prompts, set_resolutions, sides_of
from .kohya_datasets import Datasets, set_datasets
from .kohya_network import set_network
from .kohya_rules import RULES

NOT_A_LORA = re.compile(
    r"(train_db|fine_tune|sdxl_train|flux_train|sd3_train|train_textual_inversion|train_control)\w*$"
)
"""Scripts that train something else than a LoRA; those that train one end in _network."""

OF_FLOW_MODELS = (
    "flux",
    "sd3",
    "lumina",
    "hunyuan",
    "anima",
    "hv_",
    "wan",
    "qwen",
    "zimage",
    "fpack",
    "kandinsky",
    "chroma",
)
"""Parts of the names of scripts and model types for flow models."""


ENCODERS = ("clip_l", "clip_g", "t5xxl", "t5", "text_encoder", "text_encoder1", "text_encoder2", "gemma2", "qwen3")
"""The arguments that name a file of a text encoder, in the order that models list them."""


def convert_kohya(
    values: dict[str, Any], conversion: Conversion, *, script: str = "", datasets: Datasets | None = None
) -> Conversion:
    """Translate arguments of a script that trains a LoRA.

    Args:
        values: the arguments by name, without dashes; they are taken out.
        conversion: what is filled in.
        script: the name of the script without ending, or "" if it is not known.
        datasets: the datasets of the file that `dataset_config` names, or None.

    Raises:
        CrucibleError: the script trains something else than a LoRA.
    """
    if script and NOT_A_LORA.search(script) and not script.endswith("_network"):
        raise CrucibleError(
            f"{conversion.source} starts {script}.py, which trains a whole model or something else than a LoRA. Only "
            "LoRAs are trained here, so its settings would not give what they give there. Convert a file for one of "
            "the scripts that end in _network.py."
        )
    kind = f"{script} {values.get('model_train_type', '')} {values.get('model_type', '')}".lower()
    is_musubi = conversion.program.startswith("musubi")
    is_flow = is_musubi or any(word in kind for word in OF_FLOW_MODELS) or "timestep_sampling" in values
    values.pop("model_type", None)
    processes = as_number(values.pop("num_processes", None)) or 1
    _set_parts(conversion, values)
    set_network(conversion, values, is_flow=is_flow)
    _set_rates(conversion, values, trains_text=not is_musubi)
    _set_optimizer(conversion, values)
    _set_schedule(conversion, values)
    _set_length(conversion, values)
    _set_objective(conversion, values, is_flow=is_flow)
    _set_samples(conversion, values)
    apply(conversion, RULES, values)
    _set_images(conversion, values, datasets)
    finish(conversion, values)
    defaults = {"batch_size": 1, "gradient_accumulation_steps": 1, "mixed_precision": "fp32", "caption_dropout_rate": 0}
    for name, value in (defaults | {"validation_percent": 0}).items():
        conversion.default(name, value)
    if processes > 1:
        _set_processes(conversion, int(processes))
    if "seed" not in conversion.settings:
        conversion.guess("there is no seed, so every run there is another one; here the seed is 42")
    return conversion


def _set_processes(conversion: Conversion, processes: int) -> None:
    """Translate the number of processes: there each has the batch size, here all of them share it."""
    accumulation = int(conversion.settings["gradient_accumulation_steps"]) * processes
    conversion.set("gradient_accumulation_steps", accumulation, f"gradient_accumulation_steps x {processes} processes")
    batch = int(conversion.settings["batch_size"]) * accumulation
    conversion.differ(
        "num_processes",
        processes,
        f"a step averages {batch} images on all processes together, which share them here; for several cards, start "
        "with accelerate launch -m trainer train",
    )


def _set_parts(conversion: Conversion, values: dict[str, Any]) -> None:
    """Translate the files of text encoders and VAE, which a base model in a single file may need."""
    base_model = str(values.get("pretrained_model_name_or_path") or values.get("dit") or "")
    if Path(base_model).suffix.lower() not in OF_MODELS:
        return  # a folder and a model on the hub have their own
    keys = [key for key in ENCODERS if not is_off(values.get(key))]
    if keys:
        conversion.set("text_encoders", [str(values.pop(key)) for key in keys], ", ".join(keys))
    for key in ("vae", "ae"):
        if not is_off(values.get(key)):
            conversion.set("vae", values.pop(key), key)


def _set_rates(conversion: Conversion, values: dict[str, Any], *, trains_text: bool) -> None:
    """Translate the learning rates. unet_lr takes precedence over learning_rate, as it does there."""
    rate, of_model = as_number(values.pop("learning_rate", None)), values.pop("unet_lr", None)
    of_text = values.pop("text_encoder_lr", None)
    if isinstance(of_text, list):
        if len(set(map(str, of_text))) > 1:
            conversion.differ("text_encoder_lr", of_text, "all text encoders have the first of these rates")
        of_text = of_text[0] if of_text else None
    of_text = as_number(of_text)
    chosen = as_number(of_model)
    if chosen:
        conversion.set("learning_rate", chosen, "unet_lr")
    elif rate:
        conversion.set("learning_rate", rate, "learning_rate")
    else:
        conversion.default("learning_rate", 2e-6)
    only_model = is_on(values.pop("network_train_unet_only", False))
    cached = [
        key for key in ("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk") if is_on(values.get(key))
    ]
    if not trains_text or only_model or cached or (of_text == 0 and chosen):
        reason = "network_train_unet_only" if only_model else cached[0] if cached else "text_encoder_lr = 0"
        conversion.set("train_text_encoder", False, reason if trains_text else "as there")
    else:
        conversion.set("train_text_encoder", True, "as there, unless network_train_unet_only is set")
        of_text = of_text or rate or conversion.settings["learning_rate"]
        conversion.set("text_encoder_learning_rate", of_text, "text_encoder_lr")


def _set_optimizer(conversion: Conversion, values: dict[str, Any]) -> None:
    key = "optimizer_type" if not is_off(values.get("optimizer_type")) else ""
    for old, name in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if is_on(values.pop(old, False)) and not key:
            values[old], key = name, old
    optimizer = set_optimizer(conversion, key or "optimizer_type", values.pop(key, "AdamW") if key else "AdamW")
    values.pop("optimizer_type", None)
    arguments = pairs(values.pop("optimizer_args", None)) | pairs(values.pop("optimizer_args_custom", None))
    if (
        optimizer == "adafactor"
        and is_on(arguments.get("relative_step", True))
        and conversion.settings.get("learning_rate")
    ):
        conversion.lose("optimizer_args, relative_step", True, "Adafactor keeps to learning_rate here")
    for name, value in arguments.items():
        where = f"optimizer_args, {name}"
        if name == "weight_decay":
            conversion.set("weight_decay", as_number(value), where)
        elif name == "betas":
            betas = [as_number(part) for part in re.split(r"[,\s]+", str(value).strip("()[] "))]
            for setting, beta in zip(("adam_beta1", "adam_beta2"), betas, strict=False):
                conversion.set(setting, beta, where)
        elif name in ("scale_parameter", "relative_step", "warmup_init") and not is_on(value):
            conversion.off.append(where)
        elif name == "decouple" and is_on(value):
            conversion.tidy(where)
        else:
            conversion.lose(where, value, "the optimizer has its usual value here")


def _set_schedule(conversion: Conversion, values: dict[str, Any]) -> None:
    name = str(values.pop("lr_scheduler", "") or "constant").strip().lower()
    known = {"constant", "linear", "cosine", "cosine_with_restarts", "polynomial"}
    nearest = {"constant_with_warmup": "constant", "adafactor": "constant", "cosine_with_min_lr": "cosine"}
    ours = name if name in known else nearest.get(name, "constant")
    if conversion.settings["optimizer"] == "schedule_free_adamw":
        ours = "constant"
    conversion.set("lr_scheduler", ours, "lr_scheduler")
    if ours != name and name != "constant_with_warmup":
        conversion.differ("lr_scheduler", name, f"{ours} is the nearest")
    cycles = values.pop("lr_scheduler_num_cycles", values.pop("lr_restart_cycles", None))
    values.pop("lr_restart_cycles", None)
    if ours == "cosine_with_restarts" and (as_number(cycles) or 0) >= 1:
        conversion.set("lr_scheduler_num_cycles", int(as_number(cycles) or 1), "lr_scheduler_num_cycles")
    power = as_number(values.pop("lr_scheduler_power", None))
    if ours == "polynomial" and power:
        conversion.set("lr_scheduler_power", power, "lr_scheduler_power")
    warmup = values.pop("lr_warmup_steps", None)
    if name == "constant" and not is_off(warmup):
        conversion.differ("lr_warmup_steps", warmup, "lr_scheduler = constant ignores it there, so it is 0 here")
        warmup = 0
    if warmup in (None, ""):
        conversion.default("lr_warmup_steps", 0)
    else:
        conversion.set("lr_warmup_steps", warmup, "lr_warmup_steps")


def _set_length(conversion: Conversion, values: dict[str, Any]) -> None:
    epochs, steps = values.pop("max_train_epochs", None), values.pop("max_train_steps", None)
    if not is_off(epochs):
        conversion.set("epochs", int(as_number(epochs) or 1), "max_train_epochs")
        if not is_off(steps):
            conversion.differ("max_train_steps", steps, "max_train_epochs takes precedence, as it does there")
    elif not is_off(steps):
        conversion.set("max_train_steps", int(as_number(steps) or 1), "max_train_steps")
    else:
        conversion.default("max_train_steps", 1600)


def _set_objective(conversion: Conversion, values: dict[str, Any], *, is_flow: bool) -> None:
    gamma, debiased = values.pop("min_snr_gamma", None), is_on(values.pop("debiased_estimation_loss", False))
    if is_flow:
        conversion.lose("min_snr_gamma", gamma, "flow models have no weighting by signal-to-noise ratio")
        conversion.set("loss_weighting", "none", "as there for flow models")
    elif not is_off(gamma):
        conversion.set("loss_weighting", "min_snr", "min_snr_gamma")
        conversion.set("min_snr_gamma", as_number(gamma), "min_snr_gamma")
        if debiased:
            conversion.lose("debiased_estimation_loss", True, "only one weighting applies here: min_snr")
    else:
        conversion.set(
            "loss_weighting", "debiased" if debiased else "none", "debiased_estimation_loss" if debiased else "as there"
        )
    offset = as_number(values.pop("noise_offset", None))
    if offset and str(values.get("noise_offset_type", "")).lower() == "multires":
        conversion.off.append("noise_offset")
    elif offset:
        conversion.set("noise_offset", offset, "noise_offset")
    values.pop("noise_offset_type", None)
    huber = values.pop("huber_c", None)
    if str(values.get("loss_type", "l2")) in ("huber", "smooth_l1") and huber is not None:
        conversion.set("huber_delta", as_number(huber), "huber_c")
    if is_flow:
        _set_noise_levels(conversion, values)
    else:
        conversion.set("timestep_sampling", "uniform", "as there")
        for key in ("timestep_sampling", "discrete_flow_shift", "sigmoid_scale", "weighting_scheme", "logit_mean"):
            values.pop(key, None)
        for key in ("logit_std", "mode_scale", "training_shift"):
            values.pop(key, None)


def _set_noise_levels(conversion: Conversion, values: dict[str, Any]) -> None:
    """Translate which noise levels of a flow model are trained.

    sigmoid, shift and flux_shift draw the sigmoid of normal numbers, of spread sigmoid_scale; the latter two shift
    them, by discrete_flow_shift or by the size of the image. sigma draws from the scheduler's levels, which are
    shifted by discrete_flow_shift, as weighting_scheme says.
    """
    is_musubi = conversion.program.startswith("musubi")
    way = str(values.pop("timestep_sampling", "sigma")).lower()
    scheme = str(values.pop("weighting_scheme", "uniform")).lower()
    shift = as_number(values.pop("discrete_flow_shift", values.pop("training_shift", None)))
    values.pop("training_shift", None)
    scale, mean = as_number(values.pop("sigmoid_scale", None)) or 1.0, as_number(values.pop("logit_mean", None)) or 0.0
    spread, emphasis = (
        as_number(values.pop("logit_std", None)) or 1.0,
        as_number(values.pop("mode_scale", None)) or 1.29,
    )
    if shift is None:
        shift = 1.0 if is_musubi else 3.0
    by_scheme = way == "sigma"
    drawn = {"logit_normal": "logit_normal", "mode": "mode"}.get(scheme, "uniform") if by_scheme else "logit_normal"
    drawn = "uniform" if way == "uniform" else drawn
    conversion.set("timestep_sampling", drawn, f"timestep_sampling = {way}" + (f", {scheme}" if by_scheme else ""))
    if drawn == "logit_normal":
        conversion.set("logit_std", spread if by_scheme else scale, "logit_std" if by_scheme else "sigmoid_scale")
        if by_scheme and mean:
            conversion.set("logit_mean", mean, "logit_mean")
    if drawn == "mode":
        conversion.set("mode_scale", emphasis, "mode_scale")
    if way in ("shift", "sigma"):
        conversion.set("timestep_shift", shift, "discrete_flow_shift")
    elif way in ("uniform", "sigmoid"):
        conversion.set("timestep_shift", 1, f"timestep_sampling = {way} does not shift")
    else:
        conversion.guess(f"timestep_sampling = {way} shifts by the image's size; so does timestep_shift on auto")
    if by_scheme and scheme in ("sigma_sqrt", "cosmap"):
        conversion.lose("weighting_scheme", scheme, "all trained noise levels count the same")


def _set_images(conversion: Conversion, values: dict[str, Any], datasets: Datasets | None) -> None:
    folder, metadata = values.pop("train_data_dir", None), values.pop("in_json", None)
    regularization, repeats = values.pop("reg_data_dir", None), values.pop("dataset_repeats", None)
    if not is_off(values.get("masked_loss")) and not is_off(values.get("conditioning_data_dir")):
        conversion.set("mask_source", "file", "masked_loss")
        conversion.differ(
            "conditioning_data_dir",
            values["conditioning_data_dir"],
            "put the masks into a subfolder masks of the images",
        )
    elif is_on(values.get("alpha_mask")):
        conversion.set("mask_source", "alpha", "alpha_mask")
    for key in ("masked_loss", "conditioning_data_dir", "alpha_mask"):
        values.pop(key, None)
    buckets, no_upscale = is_on(values.pop("enable_bucket", False)), is_on(values.pop("bucket_no_upscale", False))
    for key in ("min_bucket_reso", "max_bucket_reso"):
        if buckets and key in values:
            conversion.lose(key, values.pop(key), ELSEWHERE[key])
        values.pop(key, None)
    extension = values.pop("caption_extension", values.pop("caption_extention", None))
    values.pop("caption_extention", None)
    _check_extension(conversion, extension)
    validation = as_number(values.pop("validation_split", None))
    if validation:
        conversion.set("validation_percent", 100 * validation, "validation_split")
    size = values.pop("resolution", None)
    if datasets is not None:
        values.pop("dataset_config", None)
        if not is_off(folder):
            conversion.lose("train_data_dir", folder, "the dataset file takes precedence, as it does there")
        set_datasets(
            conversion, datasets, {"resolution": size, "enable_bucket": buckets, "bucket_no_upscale": no_upscale}
        )
        return
    if not is_off(values.get("dataset_config")):
        conversion.lose(
            "dataset_config",
            values.pop("dataset_config"),
            "this file was not there; name it beside this one to convert both",
        )
    if not is_off(folder):
        conversion.set("train_data_dir", folder, "train_data_dir")
        if is_off(metadata):
            conversion.guess("repeats are the numbers in front of the names of subfolders (10_cat), as there")
    if not is_off(metadata):
        conversion.set("metadata_path", metadata, "in_json")
        if Path(str(metadata)).suffix.lower() == ".json":
            conversion.differ("in_json", metadata, "metadata files are .jsonl or .csv here, with a row for each image")
        if not is_off(repeats):
            conversion.set("repeats", int(as_number(repeats) or 1), "dataset_repeats")
    if not is_off(regularization):
        conversion.set("reg_data_dir", regularization, "reg_data_dir")
    sides = sides_of(size) if not is_off(size) else []
    if sides:
        set_resolutions(conversion, "resolution", [sides])
    conversion.set("aspect_ratio_buckets", buckets, "enable_bucket")
    conversion.set(
        "allow_upscaling", not (buckets and no_upscale), "bucket_no_upscale" if buckets else "as without buckets"
    )


def _check_extension(conversion: Conversion, extension: Any) -> None:
    if is_off(extension):
        return
    if str(extension).strip(".").lower() in ("txt", "caption"):
        conversion.tidy("caption_extension")
    else:
        conversion.lose("caption_extension", extension, "captions are read from .txt and .caption files; rename them")


def _set_samples(conversion: Conversion, values: dict[str, Any]) -> None:
    prompts = values.pop("sample_prompts", values.pop("positive_prompts", None))
    negative = values.pop("negative_prompts", None)
    values.pop("positive_prompts", None)
    folder = Path(str(values.pop("source_folder", ".")))
    if not is_off(prompts):
        text = str(prompts)
        path = folder / text
        named = re.fullmatch(r"\S.*\.(txt|toml|json)", text.strip(), re.IGNORECASE)
        if named and path.is_file() and path.suffix.lower() == ".txt":
            set_prompts(conversion, "sample_prompts", path.read_text(encoding="utf-8", errors="replace").splitlines())
        elif named:
            conversion.lose("sample_prompts", text, "write the prompts themselves into sample_prompts, one per line")
        else:
            set_prompts(conversion, "sample_prompts", text.splitlines())
    if not is_off(negative):
        conversion.set("sample_negative_prompt", negative, "negative_prompts")
    for key, name in (("sample_cfg", "sample_cfg"), ("sample_steps", "sample_steps")):
        if not is_off(values.get(key)):
            conversion.set(name, as_number(values.pop(key)), key)
    for key in ("sample_width", "sample_height", "sample_seed"):
        if key in values:
            conversion.lose(key, values.pop(key), "samples have the run's resolution and seed, all the same")
    for key in ("sample_every_n_steps", "save_every_n_steps"):
        if is_off(values.get(key)):
            values.pop(key, None)


def pairs(value: Any) -> dict[str, str]:
    """Return arguments such as ["weight_decay=0.1", "betas=.9,.99"], or the same in one text, as a dictionary."""
    if isinstance(value, Mapping):
        return {str(key): str(one) for key, one in value.items()}
    parts = re.findall(r"([A-Za-z_]\w*)\s*=\s*(\([^)]*\)|\[[^\]]*\]|\S+)", value) if isinstance(value, str) else []
    if isinstance(value, list | tuple):
        parts = [str(one).partition("=")[::2] for one in value if "=" in str(one)]
    return {key.strip(): text.strip().strip("\"'") for key, text in parts}
