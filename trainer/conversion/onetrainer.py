"""OneTrainer's configs: the settings of a run, the concepts (datasets) and the samples.

The defaults are those of modules/util/config/TrainConfig.py and ConceptConfig.py in Nerogar/OneTrainer; its presets
only hold what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import CrucibleError
from .conversion import (
    Conversion,
    apply,
    as_number,
    finish,
    flattened,
    is_off,
    is_on,
)
from .images import set_optimizer, set_prompts, set_resolutions, sides_of
from .onetrainer_concepts import set_concepts
from .onetrainer_rules import RULES

UNETS = (
    "STABLE_DIFFUSION_15",
    "STABLE_DIFFUSION_20",
    "STABLE_DIFFUSION_21",
    "STABLE_DIFFUSION_XL",
    "WUERSTCHEN",
    "STABLE_CASCADE",
)
"""The starts of the model types that predict noise; all others are flow models."""

ALGORITHMS = {"LORA": "lora", "LOHA": "loha", "LOKR": "lokr"}
LAYERS = {
    "full": "linear_and_convolution",
    "blocks": "linear",
    "attn-mlp": "attention_and_feed_forward",
    "attn-only": "attention",
    "attn": "attention",
}
"""Our layers for each preset of the layer filter; the rest are chosen by names."""

SCHEDULES = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}
DISTRIBUTIONS = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal", "HEAVY_TAIL": "mode"}

_PARTS = ("unet", "transformer", "prior")
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
_HELD = "the base model is trained in the precision that it is loaded in"
_OWN_FILES = "the base model's own files have it; for one in a single file, text_encoders and vae can name others"
_MEMORY = "memory: auto moves what does not fit to system RAM by itself"

KEPT_WHOLE = ("concepts", "samples", "secrets", "cloud", "optimizer_defaults", "embedding", "scheduler_params")


def convert_onetrainer(
    values: Mapping[str, Any], conversion: Conversion, concepts: Sequence[Mapping[str, Any]] = ()
) -> Conversion:
    """Translate a config of OneTrainer.

    Args:
        values: the config as JSON gives it.
        conversion: what is filled in.
        concepts: the concepts of another file, if the config only names it.

    Raises:
        CrucibleError: the config trains something else than a LoRA.
    """
    method = str(values.get("training_method", "FINE_TUNE")).upper()
    if method != "LORA":
        raise CrucibleError(
            f"{conversion.source} has training_method = {method}, but only LoRAs are trained here, so its settings "
            "would not give what they give in OneTrainer. Set training_method to LORA there, and save it again."
        )
    given = dict(values)
    model = str(given.pop("model_type", "STABLE_DIFFUSION_15"))
    conversion.tidy("model_type")
    conversion.tidy("training_method")
    given.pop("training_method", None)
    for key in ("secrets", "cloud"):
        if given.pop(key, None):
            conversion.tidy(key)
    within = list(given.pop("concepts", None) or [])
    flat = flattened(given, keep=KEPT_WHOLE)
    is_flow = not model.startswith(UNETS)
    _set_adapter(conversion, flat, is_flow=is_flow)
    apply(conversion, RULES, flat)
    _set_optimization(conversion, flat)
    _set_objective(conversion, flat, is_flow=is_flow)
    _set_parts(conversion, flat)
    _set_output(conversion, flat)
    _set_samples(conversion, flat)
    sizes = [sides_of(part) for part in str(flat.pop("resolution", "512")).split(",")]
    set_resolutions(conversion, "resolution", [size for size in sizes if size])
    named = flat.pop("concept_file_name", None)
    if within or concepts:
        set_concepts(conversion, within or concepts)
    else:
        conversion.lose(
            "concept_file_name",
            named or "training_concepts/concepts.json",
            "name this file beside the config to convert both",
        )
    held_out = is_on(flat.pop("validation", False))
    if held_out:
        conversion.lose("validation", True, "validation_percent holds out some of the training images instead")
    finish(conversion, flat)
    defaults: dict[str, Any] = {"learning_rate": 3e-6, "epochs": 100, "batch_size": 1, "gradient_accumulation_steps": 1}
    defaults |= {"mixed_precision": "fp16", "save_precision": "fp32", "aspect_ratio_buckets": True, "lora_dropout": 0}
    for name, value in (
        defaults | {"caption_dropout_rate": 0, "validation_percent": 0, "allow_upscaling": True}
    ).items():
        if name != "lora_dropout" or conversion.settings["algorithm"] not in ("loha", "lokr"):
            conversion.default(name, value)
    conversion.guess("every concept has a seed of its own there; here the seed is 42")
    return conversion


def _set_adapter(conversion: Conversion, flat: dict[str, Any], *, is_flow: bool) -> None:
    kind = str(flat.pop("peft_type", "LORA")).upper()
    algorithm = ALGORITHMS.get(kind, "lora")
    if kind not in ALGORITHMS:
        conversion.differ("peft_type", kind, "not offered here, so an ordinary LoRA is trained instead")
    if is_on(flat.pop("lora_decompose", False)) and algorithm == "lora":
        algorithm = "dora"
    conversion.set("algorithm", algorithm, "peft_type")
    conversion.set("lora_rank", flat.pop("lora_rank", 16), "lora_rank")
    conversion.set("lora_alpha", flat.pop("lora_alpha", 1.0), "lora_alpha")
    if kind == "LOKR" and "lokr_dim" in flat:
        conversion.set("lora_rank", flat.pop("lokr_dim"), "lokr_dim")
    preset = str(flat.pop("layer_filter_preset", "full"))
    names, is_pattern = flat.pop("layer_filter", ""), is_on(flat.pop("layer_filter_regex", False))
    layers = LAYERS.get(preset, "attention_and_feed_forward")
    conversion.set("target_modules", "linear" if is_flow and preset == "full" else layers, "layer_filter_preset")
    if preset not in LAYERS:
        conversion.differ(
            "layer_filter", names, "attention and feed-forward layers instead; layer_patterns names others"
        )
    elif not is_off(names):
        how = "a pattern" if is_pattern else "parts of names"
        conversion.differ(
            "layer_filter", names, f"{how} of the preset {preset}, whose layers are chosen by their kind here"
        )


def _set_optimization(conversion: Conversion, flat: dict[str, Any]) -> None:
    key = "optimizer.optimizer" if "optimizer.optimizer" in flat else "optimizer"
    name = flat.pop("optimizer.optimizer", flat.pop("optimizer", "ADAMW"))
    optimizer = set_optimizer(conversion, key, str(name).replace("_", ""))
    for name, setting in (("weight_decay", "weight_decay"), ("beta1", "adam_beta1"), ("beta2", "adam_beta2")):
        value = flat.pop(f"optimizer.{name}", None)
        if value is not None and not (optimizer == "adafactor" and setting.startswith("adam_")):
            conversion.set(setting, value, f"optimizer.{name}")
    own_ways = (
        "eps",
        "eps2",
        "stochastic_rounding",
        "fused",
        "foreach",
        "fused_back_pass",
        "min_8bit_size",
        "block_wise",
    )
    for path in [path for path in flat if path.startswith("optimizer.")]:
        value = flat.pop(path)
        if path.rsplit(".", 1)[-1] in own_ways:
            conversion.tidy(path)
        else:
            conversion.lose(path, value, "the optimizer has its usual value here")
    schedule = str(flat.pop("learning_rate_scheduler", "CONSTANT"))
    ours = SCHEDULES.get(schedule, "cosine" if schedule == "REX" else "constant")
    if conversion.settings["optimizer"] == "schedule_free_adamw":
        ours = "constant"
    conversion.set("lr_scheduler", ours, "learning_rate_scheduler")
    if schedule not in SCHEDULES:
        conversion.differ("learning_rate_scheduler", schedule, f"{ours} is the nearest")
    cycles = as_number(flat.pop("learning_rate_cycles", 1))
    if ours == "cosine_with_restarts" and cycles and cycles >= 1:
        conversion.set("lr_scheduler_num_cycles", round(cycles), "learning_rate_cycles")
    warmup = as_number(flat.pop("learning_rate_warmup_steps", 200.0)) or 0
    accumulation = int(as_number(conversion.settings.get("gradient_accumulation_steps")) or 1)
    if 0 < warmup <= 1:
        conversion.set("lr_warmup_ratio", warmup, "learning_rate_warmup_steps")
    else:
        conversion.set("lr_warmup_steps", int(warmup / accumulation), "learning_rate_warmup_steps")
        if warmup and accumulation > 1:
            conversion.differ("learning_rate_warmup_steps", f"{warmup:g}", "counted in batches there, in steps here")
    scaler = str(flat.pop("learning_rate_scaler", "NONE"))
    if scaler != "NONE":
        settings = conversion.settings
        batch = settings.get("batch_size", 1) if "BATCH" in scaler or "BOTH" in scaler else 1
        steps = settings.get("gradient_accumulation_steps", 1) if "ACCUMULATION" in scaler or "BOTH" in scaler else 1
        rate = float(settings.get("learning_rate", 3e-6)) * (int(batch) * int(steps)) ** 0.5
        conversion.set(
            "learning_rate", float(f"{rate:.4g}"), f"learning_rate, scaled as learning_rate_scaler = {scaler}"
        )
        conversion.differ("learning_rate_scaler", scaler, "the learning rate is multiplied by the root already")
    ema, decay = str(flat.pop("ema", "OFF")), flat.pop("ema_decay", 0.999)
    if ema != "OFF":
        conversion.set("ema_decay", decay, "ema_decay")


def _set_objective(conversion: Conversion, flat: dict[str, Any], *, is_flow: bool) -> None:
    weighting, strength = str(flat.pop("loss_weight_fn", "CONSTANT")), as_number(flat.pop("loss_weight_strength", 5.0))
    if weighting == "MIN_SNR_GAMMA" and not is_flow:
        conversion.set("loss_weighting", "min_snr", "loss_weight_fn")
        conversion.set("min_snr_gamma", strength, "loss_weight_strength")
    elif weighting == "DEBIASED_ESTIMATION" and not is_flow:
        conversion.set("loss_weighting", "debiased", "loss_weight_fn")
    else:
        conversion.set("loss_weighting", "none", "loss_weight_fn")
        if weighting != "CONSTANT":
            conversion.lose("loss_weight_fn", weighting, "all noise levels count the same")
    names = ("mse_strength", "mae_strength", "huber_strength", "log_cosh_strength")
    usual = {"mse_strength": 1.0}
    strengths = {name: as_number(flat.pop(name, usual.get(name, 0.0))) or 0.0 for name in names}
    ours = {"mse_strength": "mse", "mae_strength": "l1", "huber_strength": "huber", "log_cosh_strength": "huber"}
    strongest = max(strengths, key=lambda name: strengths[name])
    conversion.set("loss_type", ours[strongest], strongest)
    if sum(bool(value) for value in strengths.values()) > 1 or strongest == "log_cosh_strength":
        mixture = ", ".join(f"{name} = {value:g}" for name, value in strengths.items() if value)
        conversion.differ("the loss", mixture, f"{ours[strongest]} alone here")
    delta = flat.pop("huber_delta", 1.0)
    if strongest == "huber_strength":
        conversion.set("huber_delta", delta, "huber_delta")
    way = str(flat.pop("timestep_distribution", "UNIFORM"))
    mean, weight = as_number(flat.pop("noising_bias", 0)) or 0, as_number(flat.pop("noising_weight", 0)) or 0
    conversion.set("timestep_sampling", DISTRIBUTIONS.get(way, "uniform"), "timestep_distribution")
    if way not in DISTRIBUTIONS:
        conversion.differ("timestep_distribution", way, "uniform here; logit_normal and mode are offered too")
    if way == "LOGIT_NORMAL":
        conversion.set("logit_mean", mean, "noising_bias")
        conversion.set("logit_std", weight + 1, "noising_weight + 1, as there")
    elif way == "HEAVY_TAIL":
        conversion.set("mode_scale", weight, "noising_weight")
    shift, dynamic = as_number(flat.pop("timestep_shift", 1.0)), is_on(flat.pop("dynamic_timestep_shifting", False))
    if not is_flow:
        return
    if dynamic:
        conversion.guess("dynamic_timestep_shifting shifts by the image's size; so does timestep_shift on auto")
    else:
        conversion.set("timestep_shift", shift, "timestep_shift")


def _set_parts(conversion: Conversion, flat: dict[str, Any]) -> None:
    """Translate what is said about the parts of the model: what is trained, and how fast."""
    for part in _PARTS:
        rate = flat.pop(f"{part}.learning_rate", None)
        if rate is not None:
            conversion.set("learning_rate", rate, f"{part}.learning_rate")
        if not is_on(flat.pop(f"{part}.train", True)):
            conversion.lose(f"{part}.train", "false", "the model itself is always trained")
    own = {key: value for key, value in flat.items() if key.split(".")[0] in _ENCODERS and key.endswith(".train")}
    written = {key.split(".")[0] for key in flat if key.split(".")[0] in _ENCODERS}
    trained = [part for part in (written or {"text_encoder"}) if is_on(own.get(f"{part}.train", True))]
    conversion.set("train_text_encoder", bool(trained), "text_encoder.train")
    if trained and len(trained) < len(written):
        conversion.differ("text_encoder.train", trained, "either all text encoders are trained or none")
    for part in sorted(written):
        rate = flat.pop(f"{part}.learning_rate", None)
        flat.pop(f"{part}.train", None)
        if part in trained and rate is not None and "text_encoder_learning_rate" not in conversion.settings:
            conversion.set("text_encoder_learning_rate", rate, f"{part}.learning_rate")
        elif part in trained and rate is not None:
            conversion.differ(f"{part}.learning_rate", rate, "all text encoders have the same rate")
        dropped = flat.pop(f"{part}.dropout_probability", None)
        if not is_off(dropped):
            conversion.set("caption_dropout_rate", dropped, f"{part}.dropout_probability")
    if trained:
        rate = conversion.settings.get("learning_rate", 3e-6)
        if "text_encoder_learning_rate" not in conversion.settings:
            conversion.set("text_encoder_learning_rate", rate, "learning_rate, as there")
        stops = {key: flat.pop(key) for key in [key for key in flat if key.endswith(".stop_training_after")]}
        if any(not is_off(value) for value in stops.values()) or not stops:
            conversion.lose("text_encoder.stop_training_after", "30", "the text encoders are trained to the end")
    checkpointing = [key for key in flat if key.endswith(".gradient_checkpointing") and key.split(".")[0] in _PARTS]
    on = [is_on(flat.pop(key)) for key in checkpointing]
    whole = flat.pop("gradient_checkpointing", None)
    conversion.set(
        "gradient_checkpointing",
        any(on) if on else str(whole).upper() not in ("OFF", "FALSE"),
        "gradient_checkpointing",
    )
    for key in [
        key for key in flat if key.count(".") == 1 and key.split(".")[0] in (*_PARTS, *_ENCODERS, *_OTHER_PARTS)
    ]:
        value, last = flat.pop(key), key.split(".")[1]
        if last in ("weight_dtype", "svd_dtype", "layer_filter", "layer_filter_preset", "layer_filter_regex"):
            conversion.lose(key, value if str(value) != "NONE" else None, _HELD)
        elif last in ("offload_fraction", "activation_offloading"):
            conversion.lose(key, value, _MEMORY)
        elif last == "model_name":
            conversion.lose(key, value, _OWN_FILES)
        elif last in ("guidance_scale", "attention_mask"):
            conversion.lose(key, None if as_number(value) == 1 else value, "set by the base model's own class")
        elif last in (
            "train",
            "learning_rate",
            "stop_training_after_unit",
            "stop_training_after",
            "include",
            "gradient_checkpointing",
        ):
            conversion.tidy(key)
        else:
            flat[key] = value


_OTHER_PARTS = (
    "vae",
    "effnet_encoder",
    "decoder",
    "decoder_text_encoder",
    "decoder_vqgan",
    "quantization",
    "unconditional_transformer",
)


def _set_output(conversion: Conversion, flat: dict[str, Any]) -> None:
    destination = flat.pop("output_model_destination", None)
    if not is_off(destination):
        path = PureWindowsPath(str(destination)) if "\\" in str(destination) else PurePosixPath(str(destination))
        conversion.set("output_name", path.stem or "lora", "output_model_destination")
        if str(path.parent) != ".":
            conversion.set("output_dir", str(path.parent), "output_model_destination")
    for kind, ours in (("save_every", True), ("backup_after", False)):
        every, unit = flat.pop(kind, None), str(flat.pop(f"{kind}_unit", "NEVER" if ours else "MINUTE"))
        if is_off(every) or unit == "NEVER":
            continue
        if unit == "STEP":
            conversion.set("save_steps", every, kind)
        elif ours:
            conversion.differ(kind, f"{every} {unit.lower()}", "checkpoints are counted in steps (save_steps)")
        else:
            conversion.tidy(kind)


def _set_samples(conversion: Conversion, flat: dict[str, Any]) -> None:
    samples = [
        one for one in flat.pop("samples", None) or [] if isinstance(one, Mapping) and is_on(one.get("enabled", True))
    ]
    named = flat.pop("sample_definition_file_name", None)
    if not samples:
        conversion.lose("sample_definition_file_name", named, "write the prompts into sample_prompts")
        return
    set_prompts(conversion, "samples", [str(one.get("prompt", "")) for one in samples])
    first = samples[0]
    for key, name in (
        ("diffusion_steps", "sample_steps"),
        ("cfg_scale", "sample_cfg"),
        ("negative_prompt", "sample_negative_prompt"),
    ):
        if not is_off(first.get(key)):
            conversion.set(name, first[key], f"samples, {key}")
    left = sorted(
        {key for one in samples for key in one}
        - {"prompt", "enabled", "diffusion_steps", "cfg_scale", "negative_prompt"}
    )
    if left:
        conversion.lose(f"samples, {', '.join(left)}", True, "samples have the run's resolution and seed, all the same")
