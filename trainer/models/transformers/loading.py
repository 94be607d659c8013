"""Loading a language model and its tokenizer with transformers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ...distributed.processes import current
from ...doctor.requirements import pip_command
from ...errors import CrucibleError
from ...files.pretrained import pretrained
from ...hardware.device_memory import available_memory
from ...hardware.out_of_memory import is_out_of_memory
from ...messages.wording import counted, first_line, listed, size_text
from ..splitting import split_blocks
from .folder import LanguageFolder
from .suitability import decoder

ROOM = 0.8
"""The share of a device's free memory that the weights may fill before a model is spread."""

BITS_4 = 0.3
"""The size of a model in 4 bits as a share of its size in 16 bits; embeddings and the head stay as they are."""


def load_tokenizer(folder: LanguageFolder) -> Any:
    """Load the tokenizer of a model.

    Raises:
        CrucibleError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder.path, **pretrained(auto=True))
    except Exception as error:  # OSError, ValueError, ImportError, and whatever the tokenizers raise
        raise CrucibleError(
            f"The tokenizer in {folder.path} cannot be loaded ({first_line(error)}), so no text can be turned into "
            "what the model reads. Copy the tokenizer's files from the place that the model came from."
        ) from error


def outline(folder: LanguageFolder) -> Any:
    """Return the model with all of its layers and without weights, on the meta device.

    Raises:
        CrucibleError: the config does not describe a model that the installed transformers can make.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder.path, **pretrained(auto=True))
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError, AttributeError and more
        raise _cannot_load(folder, error) from error


def load_model(
    folder: LanguageFolder, parameters: int, dtype: torch.dtype, device: torch.device, *, load_in_4bit: bool
) -> Any:
    """Load a model with frozen weights in eval mode.

    Args:
        folder: its folder.
        parameters: the number of its parameters.
        dtype: the dtype of the weights, and of the matrix products with those in 4 bits.
        device: the device to load it to; a model that is too big for one is spread over several and main memory.
        load_in_4bit: whether to hold linear layers in 4 bits: NF4, with the scales quantized too (Dettmers et al.
            2023, arXiv:2305.14314).

    Raises:
        CrucibleError: the weights do not match the config, a package is missing.
    """
    from transformers import AutoModelForCausalLM

    settings = pretrained(dtype, auto=True)
    if load_in_4bit:
        settings["quantization_config"] = _four_bits(dtype)
    if load_in_4bit or device.type != "cpu":
        spread = is_spread(parameters, device, dtype, load_in_4bit=load_in_4bit)
        if spread and current().on_this_machine > 1:
            raise CrucibleError(
                f"{folder.name} is too big for one graphics card, so a single process would spread it over all cards "
                f"of this machine, but {current().on_this_machine} processes were started there, each for a card of "
                "its own. Start one process (without accelerate launch), set load_in_4bit to true, or choose a smaller "
                "model."
            )
        settings["device_map"] = "auto" if spread else {"": device}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder.path, output_loading_info=True, **settings)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _cannot_load(folder, error) from error
    _require_all_weights(folder, info)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On some CPUs bitsandbytes would repack and round the weights for good at the first forward without
            # gradients, and layers in that form give no gradients afterwards.
            module.support_avx512bf16_for_cpu = False
    return frozen(model, dtype)


def load_split_model(folder: LanguageFolder, parameters: int, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a model as `load_model` does, with its blocks split over the processes of the run.

    Only the main process reads the files, and holds the whole model in main memory (RAM) meanwhile.

    Args:
        folder, parameters, dtype: as for `load_model`.
        device: the device of this process.
    """
    if current().is_main:
        model = load_model(folder, parameters, dtype, torch.device("cpu"), load_in_4bit=False)
    else:
        model = frozen(outline(folder), dtype)
    split_blocks(model, decoder(model)[1], device)
    return model


def frozen(model: Any, dtype: torch.dtype) -> Any:
    """Return a model whose weights are of a dtype, in eval mode and without gradients to its weights."""
    if dtype is torch.float16:
        # Sums over many layers exceed float16's range in many models, so what runs through the layers is float32.
        model.get_input_embeddings().register_forward_hook(_to_float32)
    return model.requires_grad_(False).eval()


def size_in_memory(parameters: int, dtype: torch.dtype = torch.bfloat16, *, load_in_4bit: bool) -> int:
    """Return about how many bytes a model needs without adapters."""
    return int(parameters * dtype.itemsize * (BITS_4 if load_in_4bit else 1))


def is_spread(
    parameters: int, device: torch.device, dtype: torch.dtype = torch.bfloat16, *, load_in_4bit: bool
) -> bool:
    """Return whether a model is too big for one device, so that it is spread over all of them and main memory."""
    if device.type != "cuda":
        return False
    return size_in_memory(parameters, dtype, load_in_4bit=load_in_4bit) > ROOM * available_memory(device)


def require_4bit() -> None:
    """Check that models can be held in 4 bits.

    Raises:
        CrucibleError: bitsandbytes is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise CrucibleError(
            "load_in_4bit is on, but the package bitsandbytes, which holds weights in 4 bits, is not installed in this "
            f"Python. Install it with:\n  {pip_command('bitsandbytes')}\nthen start again, or turn load_in_4bit off."
        )


def _four_bits(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    require_4bit()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _require_all_weights(folder: LanguageFolder, info: Any) -> None:
    missing = sorted(map(str, info["missing_keys"]))
    mismatched = sorted(str(one[0] if isinstance(one, tuple) else one) for one in info["mismatched_keys"])
    if missing or mismatched:
        wrong = missing or mismatched
        raise CrucibleError(
            f"The weights in {folder.path} do not match its config.json: {counted(len(wrong), 'layer')} "
            f"{'are not there' if missing else 'have another shape'} ({listed(wrong)}), so the model would answer with "
            "random numbers in their place. Download or copy the model again, with config.json and all weights of the "
            "same version."
        )


def _to_float32(module: nn.Module, arguments: Any, embedded: torch.Tensor) -> torch.Tensor:
    return embedded.float()


def _cannot_load(folder: LanguageFolder, error: Exception) -> CrucibleError:
    import transformers

    return CrucibleError(
        f"The language model in {folder.path} ({size_text(folder.size)}) cannot be loaded ({first_line(error)}). Its "
        "files are incomplete or damaged, or need a newer transformers than the installed "
        f"{transformers.__version__}. Download or copy the model again, or choose another."
    )
