"""ai-toolkit's jobs, in YAML or JSON.

The defaults are those of toolkit/config_modules.py in ostris/ai-toolkit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from .ai_toolkit_rules import OF_DATASETS, RULES
from .conversion import (
    Conversion,
    apply,
    as_number,
    finish,
    flattened,
    is_off,
    is_on,
    plain_number,
)
from .images import set_optimizer, set_prompts, set_resolutions, sides_of

TRAINS = ("sd_trainer", "diffusion_trainer", "ui_trainer")
"""The types of a process that trains a LoRA."""


def convert_ai_toolkit(
    job: Mapping[str, Any], name: str, process: Mapping[str, Any], conversion: Conversion
) -> Conversion:
    """Translate one process of a job.

    Args:
        job: the rest of the file.
        name: the name of the job.
        process: the process.
        conversion: what is filled in.
    """
    given = dict(process)
    datasets = [dict(one) for one in given.pop("datasets", None) or [] if isinstance(one, Mapping)]
    flat = {
        **flattened(job),
        **flattened(given, keep=("network.network_kwargs",)),
    }
    conversion.set("output_name", re.sub(r'[<>:"/\\|?*]', "_", name) or "lora", "name")
    flat.pop("config.name", None)
    trigger = str(flat.get("trigger_word") or "")
    kind = str(flat.get("model.arch") or "")
    is_unet = any(is_on(flat.get(f"model.{key}")) for key in ("is_xl", "is_v2", "is_ssd", "is_vega")) or kind in (
        "sd1",
        "sd2",
        "sdxl",
        "ssd",
        "vega",
    )
    is_flow = str(flat.get("train.noise_scheduler", "")) == "flowmatch" or (bool(kind) and not is_unet)
    _set_network(conversion, flat, is_flow=is_flow)
    _set_length_and_rates(conversion, flat)
    _set_objective(conversion, flat, is_flow=is_flow)
    _set_samples(conversion, flat, trigger)
    apply(conversion, RULES, flat)
    _set_datasets(conversion, datasets, trigger)
    finish(conversion, flat)
    defaults = {"batch_size": 1, "mixed_precision": "fp32", "gradient_checkpointing": True, "caption_dropout_rate": 0}
    for setting, value in (defaults | {"lora_dropout": 0, "validation_percent": 0, "save_precision": "fp16"}).items():
        if setting != "lora_dropout" or conversion.settings["algorithm"] != "lokr":
            conversion.default(setting, value)
    conversion.guess("there is no seed for the training, so every run there is another one; here the seed is 42")
    return conversion


def _set_network(conversion: Conversion, flat: dict[str, Any], *, is_flow: bool) -> None:
    kind = str(flat.pop("network.type", "lora")).lower()
    algorithm = {"lora": "lora", "locon": "lora", "lierla": "lora", "dora": "dora", "lokr": "lokr"}.get(kind)
    conversion.set("algorithm", algorithm or "lora", "network.type")
    if algorithm is None:
        conversion.differ("network.type", kind, "not offered here, so an ordinary LoRA is trained instead")
    rank = as_number(flat.pop("network.rank", None)) or as_number(flat.pop("network.linear", None))
    flat.pop("network.linear", None)
    alpha = flat.pop("network.linear_alpha", None)
    alpha = as_number(flat.pop("network.alpha", None) if alpha is None else alpha)
    flat.pop("network.alpha", None)
    if rank:
        conversion.set("lora_rank", plain_number(rank), "network.linear")
    else:
        conversion.default("lora_rank", 4)
    if alpha:
        conversion.set("lora_alpha", plain_number(alpha), "network.linear_alpha")
    else:
        conversion.default("lora_alpha", 1)
    if algorithm == "lokr" and is_on(flat.pop("network.lokr_full_rank", True)):
        conversion.differ("network.lokr_full_rank", "true", "the rank of LoKr's second matrix is lora_rank")
        conversion.default("lora_alpha", conversion.settings["lora_rank"])
    flat.pop("network.lokr_full_rank", None)
    dropout = flat.pop("network.dropout", None)
    if not is_off(dropout) and algorithm != "lokr":
        conversion.set("lora_dropout", dropout, "network.dropout")
    elif not is_off(dropout):
        conversion.lose("network.dropout", dropout, "lokr has no dropout here")
    convolutions, conv_alpha = as_number(flat.pop("network.conv", None)), flat.pop("network.conv_alpha", None)
    if convolutions and not is_flow:
        conversion.set("target_modules", "linear_and_convolution", "network.conv")
        if convolutions != rank or not is_off(conv_alpha):
            conversion.differ(
                "network.conv", plain_number(convolutions), "convolutions have the rank and alpha of the rest"
            )
    elif is_flow:
        conversion.set("target_modules", "linear", "as there: all linear layers")
        conversion.guess("the LoRA is on all linear layers of the model, those outside its blocks included")
    else:
        conversion.set("target_modules", "attention_and_feed_forward", "as there: the layers of the transformer blocks")
    kept = flat.pop("network.network_kwargs", None) or {}
    only = [str(name) for name in kept.get("only_if_contains") or []]
    if only:
        patterns = "\n".join(f"*{name.removeprefix('transformer.').removeprefix('unet.')}*" for name in only)
        conversion.set("layer_patterns", patterns, "network.network_kwargs.only_if_contains")
        conversion.guess(
            "only_if_contains names layers as diffusers does; layers that no name here fits are an error of check"
        )
    for key, value in kept.items():
        if key != "only_if_contains":
            conversion.lose(
                f"network.network_kwargs.{key}", value, "layer_patterns names what is trained, not what is not"
            )


def _set_length_and_rates(conversion: Conversion, flat: dict[str, Any]) -> None:
    steps = int(as_number(flat.pop("train.steps", None)) or 1000)
    whole, legacy = flat.pop("train.gradient_accumulation", None), flat.pop("train.gradient_accumulation_steps", None)
    accumulation, old = int(as_number(whole) or 1), int(as_number(legacy) or 1)
    if old > 1:
        conversion.differ(
            "train.gradient_accumulation_steps",
            old,
            f"a step there is one batch, so {steps} of them are {math.ceil(steps / old)} steps here",
        )
        steps, accumulation = math.ceil(steps / old), old
    conversion.set("max_train_steps", steps, "train.steps")
    conversion.set("gradient_accumulation_steps", accumulation, "train.gradient_accumulation")
    rate = as_number(flat.pop("train.lr", None)) or 1e-6
    own = as_number(flat.pop("train.unet_lr", None))
    conversion.set("learning_rate", own or rate, "train.unet_lr" if own else "train.lr")
    trains_text, of_text = is_on(flat.pop("train.train_text_encoder", False)), flat.pop("train.text_encoder_lr", None)
    conversion.set("train_text_encoder", trains_text, "train.train_text_encoder")
    if trains_text:
        conversion.set("text_encoder_learning_rate", as_number(of_text) or rate, "train.text_encoder_lr")
    name = str(flat.pop("train.optimizer", "adamw"))
    optimizer = set_optimizer(conversion, "train.optimizer", name)
    for key in [key for key in flat if key.startswith("train.optimizer_params.")]:
        value, last = flat.pop(key), key.rsplit(".", 1)[-1]
        if last == "weight_decay":
            conversion.set("weight_decay", as_number(value), key)
        elif last == "betas" and isinstance(value, list) and optimizer != "adafactor":
            for setting, beta in zip(("adam_beta1", "adam_beta2"), value, strict=False):
                conversion.set(setting, as_number(beta), key)
        else:
            conversion.lose(key, value, "the optimizer has its usual value here")
    flat.pop("train.optimizer_params", None)
    schedule = str(flat.pop("train.lr_scheduler", "constant"))
    known = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine"}
    known |= {"cosine_with_restarts": "cosine_with_restarts", "step": "constant"}
    conversion.set(
        "lr_scheduler",
        "constant" if "schedule_free" in optimizer else known.get(schedule, "constant"),
        "train.lr_scheduler",
    )
    if schedule not in known or schedule == "step":
        conversion.differ("train.lr_scheduler", schedule, "constant is the nearest")
    warmup = flat.pop(
        "train.lr_scheduler_params.num_warmup_steps", flat.pop("train.lr_scheduler_params.warmup_steps", 0)
    )
    conversion.set("lr_warmup_steps", warmup or 0, "train.lr_scheduler_params" if warmup else "as there")
    on, decay = is_on(flat.pop("train.ema_config.use_ema", False)), flat.pop("train.ema_config.ema_decay", 0.999)
    if on:
        conversion.set("ema_decay", decay, "train.ema_config.ema_decay")
    else:
        conversion.off.append("train.ema_config")


def _set_objective(conversion: Conversion, flat: dict[str, Any], *, is_flow: bool) -> None:
    gamma = flat.pop("train.min_snr_gamma", None) or flat.pop("train.snr_gamma", None)
    if gamma and not is_flow:
        conversion.set("loss_weighting", "min_snr", "train.min_snr_gamma")
        conversion.set("min_snr_gamma", gamma, "train.min_snr_gamma")
    else:
        conversion.set("loss_weighting", "none", "as there")
        conversion.lose("train.min_snr_gamma", gamma, "flow models have no weighting by signal-to-noise ratio")
    if str(flat.get("train.content_or_style", "balanced")) == "balanced":
        flat.pop("train.content_or_style", None)
    loss = str(flat.pop("train.loss_type", "mse"))
    conversion.set(
        "loss_type", {"mse": "mse", "mae": "l1", "pseudo_huber": "huber"}.get(loss, "mse"), "train.loss_type"
    )
    if loss not in ("mse", "mae"):
        conversion.differ("train.loss_type", loss, f"{conversion.settings['loss_type']} is the nearest")
    way = str(flat.pop("train.timestep_type", "sigmoid"))
    if not is_flow:
        conversion.set("timestep_sampling", "uniform", "as there for models that predict noise")
        return
    ours = {"sigmoid": "logit_normal", "linear": "uniform", "shift": "uniform", "flux_shift": "uniform"}.get(
        way, "uniform"
    )
    conversion.set("timestep_sampling", ours, f"train.timestep_type = {way}")
    if way in ("sigmoid", "linear"):
        conversion.set("timestep_shift", 1, f"train.timestep_type = {way} does not shift")
    elif way in ("shift", "flux_shift", "lumina2_shift"):
        conversion.guess(f"timestep_type = {way} shifts as the model does; so does timestep_shift on auto")
    else:
        conversion.differ("train.timestep_type", way, "uniform here, and all noise levels count the same")


def _set_samples(conversion: Conversion, flat: dict[str, Any], trigger: str) -> None:
    prompts = list(flat.pop("sample.prompts", None) or [])
    samples = [one for one in flat.pop("sample.samples", None) or [] if isinstance(one, Mapping)]
    prompts += [str(one.get("prompt", "")) for one in samples]
    left = sorted({key for one in samples for key in one} - {"prompt"})
    if left:
        conversion.lose(f"sample.samples, {', '.join(left)}", True, "samples are drawn from their prompts alone")
    if prompts:
        set_prompts(conversion, "sample.prompts", list(map(str, prompts)), trigger)


def _set_datasets(conversion: Conversion, datasets: Sequence[dict[str, Any]], trigger: str) -> None:
    trained = [one for one in datasets if not is_on(one.get("is_reg", False))]
    sizes: list[list[float]] = []
    for one in trained:
        value = one.pop("resolution", 512)
        sizes += [[number] for number in sides_of(value)]
    if sizes:
        set_resolutions(conversion, "datasets.resolution", [list(one) for one in dict.fromkeys(map(tuple, sizes))])
    folders: list[tuple[str, int]] = []
    for one in datasets:
        folder = str(one.pop("folder_path", None) or one.pop("dataset_path", None) or "")
        one.pop("dataset_path", None)
        repeats = int(as_number(one.pop("num_repeats", None)) or 1)
        if is_on(one.pop("is_reg", False)):
            conversion.set("reg_data_dir", folder, "the dataset with is_reg")
            one.pop("resolution", None)
        elif folder:
            folders.append((folder, repeats))
        mask, alpha = one.pop("mask_path", None), is_on(one.pop("alpha_mask", False))
        if alpha:
            conversion.set("mask_source", "alpha", "datasets.alpha_mask")
        elif not is_off(mask):
            conversion.set("mask_source", "file", "datasets.mask_path")
            conversion.differ("datasets.mask_path", mask, "put the masks into a subfolder masks of the images")
        extension = str(one.pop("caption_ext", "txt")).strip(".")
        if extension in ("txt", "caption"):
            conversion.tidy("datasets.caption_ext")
        else:
            conversion.lose(
                "datasets.caption_ext", extension, "captions are read from .txt and .caption files; rename them"
            )
        prefixed = Conversion(conversion.program, "", "", conversion.settings, conversion.reasons)
        apply(prefixed, OF_DATASETS, one)
        finish(prefixed, one)
        for ours, theirs in (
            (conversion.lost, prefixed.lost),
            (conversion.off, prefixed.off),
            (conversion.housekeeping, prefixed.housekeeping),
        ):
            ours.extend(line for line in (f"datasets.{text}" for text in theirs) if line not in ours)
    unique = dict(folders)
    if len(unique) == 1:
        ((folder, repeats),) = unique.items()
        conversion.set("train_data_dir", folder, "datasets.folder_path")
        conversion.set("repeats", repeats, "datasets.num_repeats")
    elif unique:
        conversion.set("train_data_dir", "all_images", "a folder for all datasets; make it as said below")
        for folder, repeats in unique.items():
            name = f"{repeats}_{PurePosixPath(folder).name}"
            conversion.differ(
                "datasets.folder_path",
                folder,
                f"put it into all_images under the name {name}; the number is its repeats",
            )
    if trigger:
        conversion.guess("[trigger] inside captions is replaced by the trigger word there; here it stays as it is")
