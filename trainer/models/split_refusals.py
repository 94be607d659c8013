"""Refusals of what does not go together with a base model that is split over the processes of a run."""

from __future__ import annotations

import torch
import torch.distributed.fsdp

from ..adapters.spec import AdapterSpec
from ..errors import CrucibleError
from ..formats.universal import kind_of


def require_splitting() -> None:
    """Check that the installed torch can split a model so that a run survives running out of memory.

    Raises:
        CrucibleError: it cannot.
    """
    if not hasattr(getattr(torch.distributed.fsdp, "FSDPModule", None), "reset_iter_state"):
        raise CrucibleError(
            f"The launch asks for a base model that is split over the processes (FSDP or ZeRO-3), but torch "
            f"{torch.__version__} cannot go on with such a model after a step that ran out of memory. Update torch to "
            "2.13 or newer, or launch without FSDP and DeepSpeed if the model fits on one card."
        )


def refuse_split_comfyui(base_model: str) -> None:
    """Refuse to split a model that ComfyUI has opened.

    Raises:
        CrucibleError: always.
    """
    raise CrucibleError(
        f"The launch asks for a base model that is split over the processes (FSDP or ZeRO-3), but {base_model} is "
        "opened by ComfyUI, which keeps its models whole. Launch with examples/accelerate/one_machine_8_gpus.yaml, so "
        "that each process has the whole model, parts of it in main memory (RAM) where the card is too small; or set "
        "base_model to a folder with the model in diffusers' format."
    )


def refuse_split_4bit(split: bool) -> None:
    """Check that a model in 4 bits is not to be split.

    Raises:
        CrucibleError: it is.
    """
    if split:
        raise CrucibleError(
            "The launch asks for a base model that is split over the processes (FSDP or ZeRO-3), and load_in_4bit is "
            "on, but packed 4-bit weights cannot be cut into parts. Leave load_in_4bit out, so that each process "
            "holds a part in 16 bits; or launch with examples/accelerate/one_machine_8_gpus.yaml, so that each holds "
            "the whole model in 4 bits."
        )


def refuse_split_dora(spec: AdapterSpec) -> None:
    """Check that adapters do not need the whole weights of their layers outside of the layers' computation.

    Raises:
        CrucibleError: they do.
    """
    if "dora" in {spec.algorithm, *map(kind_of, spec.start.values())}:
        raise CrucibleError(
            "The algorithm is dora, whose files hold lengths of the base model's weights, but the launch asks for a "
            "base model that is split over the processes (FSDP or ZeRO-3), so that no process has them whole when it "
            "saves. Set algorithm to lora, rslora, loha or lokr; or launch with "
            "examples/accelerate/one_machine_8_gpus.yaml if the model fits on one card."
        )
