"""Files that cannot be read as a LoRA, called by what they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CrucibleError
from ..messages.wording import counted, listed, size_text
from .adapter_keys import has_rank, is_adapter_key, split_key
from .header import LoraHeader

_OTHER_METHODS = (
    ("AdaLoRA", r"\.lora_E(\.|\Z)"),
    ("Diag-OFT in an old form", r"\.oft_diag\Z"),
    ("OFT in PEFT's form", r"\.oft_[rR](\.|\Z)"),
    ("OFT for Flux by kohya's trainer", r"\.oft_blocks\.\d+\Z"),
    ("BOFT in PEFT's form", r"\.boft_[RS](\.|\Z)"),
    ("(IA)³", r"\.ia3_l(\.|\Z)|\.on_input\Z"),
    ("LoRA-XS", r"lora_latent_mapping"),
    ("VeRA", r"vera_(lambda|[AB])"),
    ("VB-LoRA", r"vblora_"),
    ("RandLoRA", r"randlora_"),
    ("HRA", r"\.hra_u(\.|\Z)"),
    ("FourierFT", r"fourierft_"),
    ("WaveFT", r"waveft_"),
    ("MiSS or Bone", r"\.(miss|bone)_(block|\.|\Z)"),
    ("SHiRA", r"\.shira_"),
    ("C³A", r"\.c3a_"),
    ("RoAd", r"\.road_"),
    ("Poly", r"\.poly_lora_"),
    ("X-LoRA", r"xlora_"),
    ("LN tuning", r"\.ln_tuning_layers"),
    ("prompt tuning", r"(\A|\.)prompt_embeddings"),
)
"""Adapter methods that neither ComfyUI nor this package applies from a file, by a pattern in their keys."""

_OF_OTHER_METHODS = re.compile("|".join(pattern for _, pattern in _OTHER_METHODS))

_CHANGE_A_LORA = ("AdaLoRA", "Diag-OFT in an old form", "OFT in PEFT's form", "OFT for Flux by kohya's trainer")
"""Methods whose other keys look like those of a LoRA or OFT that is read in another way."""

_OF_MOTION = re.compile(r"(?<![a-z])(motion_module|temporal_transformer)")
"""The names of AnimateDiff's layers for motion."""

_OTHER_FILES = (
    ("a ControlNet-LLLite", r"lllite_", "Use it with the ControlNet-LLLite nodes"),
    ("an IP-Adapter", r"(\A|\.)(ip_adapter|image_proj)\.|to_[kv]_ip\.", "Use it with the IP-Adapter nodes"),
    ("a motion module of AnimateDiff", r"(\A|\.)motion_modules\.", "Use it with the AnimateDiff nodes"),
    (
        "a ControlNet",
        r"\Acontrol_model\.|(\A|\.)controlnet_|(\A|\.)(zero_convs|input_hint_block)\.",
        "Use it with Load ControlNet Model",
    ),
    ("a style model (Redux)", r"\Aredux_(up|down)\.", "Use it with Load Style Model"),
    ("a GLIGEN model", r"(\A|\.)position_net\.", "Use it with the GLIGEN loader"),
    (
        "an embedding (textual inversion)",
        r"\A(emb_params|string_to_param.*|string_to_token.*|clip_[lgh]|t5xxl|<.+>)\Z",
        "Move it to models/embeddings and write embedding:NAME in the prompt",
    ),
    ("a hypernetwork", r"\A(320|640|768|1024|1280)(\.\d+)?\.", "Use it with Hypernetwork Loader"),
    ("an upscaler", r"\A(RRDB_trunk|conv_first|body\.0\.rdb1|model\.0)\b", "Use it with Load Upscale Model"),
    (
        "a checkpoint",
        r"\A(model\.diffusion_model|cond_stage_model|conditioner|first_stage_model)\.",
        "Use it with Load Checkpoint",
    ),
    (
        "a model without text encoder and VAE",
        r"\A(double_blocks|single_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|blocks|layers"
        r"|input_blocks|down_blocks)\.\d+\..*\.(weight|scale)\Z",
        "Use it with Load Diffusion Model",
    ),
    ("a VAE", r"\A(encoder|decoder)\.(conv_in|mid|down|up|middle|conv1|down_blocks)\b", "Use it with Load VAE"),
    ("a vision model", r"(\A|\.)vision_model\.", "Use it with Load CLIP Vision"),
    (
        "a text encoder",
        r"(\A|\.)(text_model|encoder\.block|model\.layers\.\d+\.self_attn)\.",
        "Use it with Load CLIP",
    ),
)
"""Kinds of files that are often taken for a LoRA, by a pattern in their keys, and what to do with each; the first that
matches is named."""


def require_a_lora(path: Path, header: LoraHeader) -> None:
    """Check that a file holds an adapter of a method that can be read.

    Raises:
        CrucibleError: it does not; the error names what the file holds instead, as far as its keys tell.
    """
    keys = header.entries
    method = other_method(keys)
    has_adapter = any(map(is_adapter_key, keys))
    if method and (method in _CHANGE_A_LORA or not has_adapter):
        raise CrucibleError(
            f"{path} ({size_text(header.size)}) is no LoRA but {method} (keys such as {listed(list(keys)[:2])}), which "
            "neither ComfyUI nor LoRA Crucible can apply from a file. Loaded as a LoRA, it would do nothing or "
            "something else than it was trained for. Use it in the program that trained it, merge it into the model "
            "there, or look for a LoRA, LoHa or LoKr of the same."
        )
    if has_adapter and all(_OF_MOTION.search(key) for key in keys if is_adapter_key(key)):
        raise CrucibleError(
            f"{path} ({size_text(header.size)}) is a motion LoRA: all of its {counted(len(keys), 'key')} "
            f"({listed(list(keys)[:2])}) are for the motion module of AnimateDiff, which no image model has, so "
            "it would have no effect here. Put it into models/animatediff_motion_lora and use it with Load AnimateDiff "
            "LoRA of ComfyUI-AnimateDiff-Evolved."
        )
    if has_adapter:
        return
    for kind, pattern, todo in _OTHER_FILES:
        if any(re.search(pattern, key) for key in keys):
            raise CrucibleError(
                f"{path} ({size_text(header.size)}) holds no LoRA but {kind}: none of its {counted(len(keys), 'key')} "
                f"belongs to a LoRA ({_some(keys)}), so it would have no effect. {todo}, or choose a LoRA."
            )
    raise CrucibleError(
        f"{path} ({size_text(header.size)}) holds no LoRA: none of its {len(keys)} keys belongs to "
        f"one{f' ({_some(keys)})' if keys else ''}. It is probably a checkpoint, an embedding or a VAE, which have "
        "loaders of their own. Choose a LoRA, or move the file out of the LoRA folder."
    )


def file_kind(keys: Iterable[str]) -> str:
    """Return what a file with these keys is, such as "a checkpoint" or "a LoRA"; "" if it is unknown."""
    keys = list(keys)
    if any(map(is_adapter_key, keys)) or other_method(keys):
        return "a LoRA"
    return next((kind for kind, pattern, _ in _OTHER_FILES if any(re.search(pattern, key) for key in keys)), "")


def other_method(keys: Iterable[str]) -> str:
    """Return the name of an adapter method that cannot be read from a file with these keys; "" if there is none."""
    keys = list(filter(_OF_OTHER_METHODS.search, keys))
    return next((name for name, pattern in _OTHER_METHODS if any(re.search(pattern, key) for key in keys)), "")


def finite_alphas(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check that all values that count are finite, and return 1 for each alpha that does not count and is not.

    An alpha does not count in a layer without a rank, such as a LoKr of two whole matrices; ai-toolkit writes
    9999999999 there, which is infinite in float16. In OFT, it is a limit that may be infinite.

    Raises:
        CrucibleError: a value is NaN or infinite.
    """
    replaced: dict[str, Tensor] = {}
    suffixes: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        if all_finite(tensor):
            continue
        layer, suffix = split_key(key) or (key, "")
        suffixes = suffixes or _suffixes(tensors)
        if suffix == "alpha" and not any(map(has_rank, suffixes[layer])):
            if not any(one.startswith("oft_") for one in suffixes[layer]):
                replaced[key] = torch.ones_like(tensor)
            continue
        bad = int((~torch.isfinite(tensor.float())).sum())
        raise CrucibleError(
            f"{path} is broken: {bad} of the {tensor.numel()} values of {key} are not finite (NaN or infinite). "
            "Everything made with it would be noise or nonsense. The training that produced it failed; use an earlier "
            "checkpoint, or train again with a lower learning rate."
        )
    return replaced


_ORDERED = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
"""Types of floats whose bits, as a sign and a whole number, are in the order of the values, with infinity and NaN after
the largest."""


def all_finite(tensor: Tensor) -> bool:
    """Return whether no value of a tensor on the CPU is NaN or infinite.

    The bits are compared with those of the largest value, which takes a tenth of a second for a gigabyte;
    `torch.isfinite` takes many times as long for 16-bit floats.
    """
    if not tensor.is_floating_point():
        return True
    if tensor.dtype not in _ORDERED:
        return bool(torch.isfinite(tensor.float()).all())
    size = tensor.element_size()
    bits, largest, negative = _bits(tensor), _largest(tensor.dtype), 1 << (8 * size - 1)
    return bool(
        bits.view(f"i{size}").max(initial=0) <= largest and bits.view(f"u{size}").max(initial=0) <= negative + largest
    )


@cache
def _largest(dtype: torch.dtype) -> int:
    """Return the bits of the largest finite value as a whole number."""
    return int(_bits(torch.tensor(torch.finfo(dtype).max, dtype=dtype)).view(f"u{dtype.itemsize}")[0])


def _bits(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _suffixes(keys: Iterable[str]) -> dict[str, set[str]]:
    """Return the suffixes of each layer's keys."""
    found: dict[str, set[str]] = {}
    for parts in filter(None, map(split_key, keys)):
        found.setdefault(parts[0], set()).add(parts[1])
    return found


def _some(keys: Collection[str]) -> str:
    return ", ".join(list(keys)[:3]) + (", …" if len(keys) > 3 else "")
