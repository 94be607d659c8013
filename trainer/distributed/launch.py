"""What the launcher asks for: several processes, and the sharding of accelerate's FSDP and DeepSpeed configs.

`accelerate launch` hands its config over in environment variables. Only what a run with adapters can make use of is
read from them: whether the base model is to be split over the processes. The rest is named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CrucibleError
from ..messages.wording import listed

_OFF = ("", "none", "false", "no", "0", "auto", "no_prefetch")

_FSDP_FIELDS = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params (the parts of the base model stay on the cards)",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing (it is gradient_checkpointing in the training "
    "config)",
    "FSDP_IGNORED_MODULES": "fsdp_ignored_modules (all blocks are split)",
}
"""The variables of fields of accelerate's FSDP config that change what a run does elsewhere, and their descriptions."""

_STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2")
"""The names of the numbers that older configs have for strategies, counted from 1."""

_DEEPSPEED_FIELDS = {
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "offload_optimizer_device (that of the adapters is small)",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "offload_param_device (the parts of the base model stay on the cards)",
    "ACCELERATE_GRADIENT_CLIPPING": "gradient_clipping (it is max_grad_norm in the training config)",
}
_DEEPSPEED_SECTIONS = ("optimizer", "scheduler", "gradient_clipping", "zero_quantized_weights", "compression_training")
"""The sections of DeepSpeed's own config files that ask for what the training config decides here."""

_OTHERS = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism_config (tensor, context or sequence parallelism)",
}


def are_several() -> bool:
    """Return whether a launcher has started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@dataclass(frozen=True)
class LaunchRequest:
    """What a launch asks for.

    Attributes:
        by: what asks for it, in the user's words, such as "FSDP"; "" if nothing is asked for.
        splits: whether the base model is to be split over the processes.
        notes: sentences for the user about what is done differently or not used.
    """

    by: str = ""
    splits: bool = False
    notes: tuple[str, ...] = ()


def launch_request(variables: Mapping[str, str] | None = None) -> LaunchRequest:
    """Read what the launcher asks for.

    Args:
        variables: the environment variables; those of this process by default.

    Raises:
        CrucibleError: the launch asks for what no base model can do, or names a file that cannot be read.
    """
    given = os.environ if variables is None else variables
    for variable, name in _OTHERS.items():
        if _is_on(given, variable):
            raise CrucibleError(
                f"The launch config asks for {name}, which splits a model in ways that this trainer does not know. "
                "Launch with examples/accelerate/one_machine_8_gpus.yaml if the base model fits on one card, or with "
                "examples/accelerate/fsdp.yaml if it does not."
            )
    if _is_on(given, "ACCELERATE_USE_FSDP"):
        return _of_fsdp(given)
    if _is_on(given, "ACCELERATE_USE_DEEPSPEED"):
        return _of_deepspeed(given)
    return LaunchRequest()


def _of_fsdp(given: Mapping[str, str]) -> LaunchRequest:
    # accelerate's own reading of these variables fails without a graphics card.
    strategy = given.get("FSDP_RESHARD_AFTER_FORWARD", "true").upper()
    if given.get("FSDP_VERSION", "1") == "1":
        first = given.get("FSDP_SHARDING_STRATEGY") or strategy
        strategy = _STRATEGIES[int(first) - 1] if first in "12345" else first.upper()
    unused = _unused(given, _FSDP_FIELDS)
    if strategy == "NO_SHARD":
        return LaunchRequest("FSDP", False, unused)
    if strategy in ("FALSE", "SHARD_GRAD_OP"):
        name = strategy if strategy != "FALSE" else "fsdp_reshard_after_forward: false"
        return LaunchRequest("FSDP", False, (_stays_whole(f"FSDP with {name}"), *unused))
    notes: tuple[str, ...] = ()
    if strategy.startswith("HYBRID"):
        notes = (
            f"FSDP with {strategy} would split the base model inside each machine only; it is split over all processes "
            "(FULL_SHARD), which takes less memory and more of the network.",
        )
    return LaunchRequest("FSDP", True, (*notes, *unused))


def _of_deepspeed(given: Mapping[str, str]) -> LaunchRequest:
    file = given.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    content: dict[str, Any] = {} if file.lower() in _OFF else _read(Path(file).expanduser())
    zero = content.get("zero_optimization") or {}
    stage = int(zero.get("stage", given.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") or 2))
    sections = [f"{name} of {Path(file).name}" for name in _DEEPSPEED_SECTIONS if content.get(name)]
    offloads = [f"{name} of {Path(file).name}" for name in zero if name.startswith("offload_") and zero[name]]
    unused = _unused(given, _DEEPSPEED_FIELDS, [*sections, *offloads])
    name = f"DeepSpeed ZeRO-{stage}"
    if stage < 3:
        return LaunchRequest(name, False, (_stays_whole(name), *unused) if stage else unused)
    note = f"{name}: the base model is split by PyTorch's FSDP, which does the same; DeepSpeed itself computes nothing."
    return LaunchRequest(name, True, (note, *unused))


def _stays_whole(name: str) -> str:
    return (
        f"{name} splits the gradients and the optimizer of what is trained. Of adapters these are small, so every "
        "process keeps all of them, and the whole base model too. Where that is too big for a card, launch with "
        "examples/accelerate/fsdp.yaml or deepspeed_zero3.yaml."
    )


def _unused(given: Mapping[str, str], fields: Mapping[str, str], more: list[str] | None = None) -> tuple[str, ...]:
    names = [name for variable, name in fields.items() if given.get(variable, "").lower() not in _OFF] + (more or [])
    return (f"Not used from the launch config: {listed(names)}.",) if names else ()


def _is_on(given: Mapping[str, str], variable: str) -> bool:
    return given.get(variable, "").lower() in ("1", "true", "yes", "on")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        reason = "it holds no settings"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise CrucibleError(
        f"deepspeed_config_file is {file}, which cannot be read: {reason}. Without it, it is not known whether the "
        "base model is to be split. Correct the path in the launch config, or use "
        "examples/accelerate/deepspeed_zero3.yaml."
    )
