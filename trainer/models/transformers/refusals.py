"""Models that cannot be trained: recognized by what their files are, and refused with what to use instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...errors import CrucibleError

_KINDS = {
    b"GGUF": "a GGUF file",
    b"lmgg": "a GGML file",
    b"fmgg": "a GGML file (GGMF)",
    b"tjgg": "a GGML file (GGJT)",
    b"algg": "a GGML adapter (GGLA)",
    b"PK\x03\x04": "a PyTorch pickle",
    b"\x80": "a Python pickle",
    b"version https://git-lfs": "a Git LFS pointer without the file that it points to",
    b"<": "a web page, such as a login page saved in place of the file",
}
"""The first bytes of files that are found in place of safetensors."""

_NATIVE = {
    "chatglm": "zai-org/glm-4-9b-chat-hf (GLM-4) or zai-org/GLM-4-9B-0414",
    "qwen": "Qwen/Qwen2.5-7B-Instruct or Qwen/Qwen3-8B",
    "RefinedWeb": "tiiuae/falcon-40b",
    "RefinedWebModel": "tiiuae/falcon-7b",
    "mixformer-sequential": "microsoft/phi-2",
    "phi-msft": "microsoft/phi-2",
    "baichuan": "Qwen/Qwen3-8B",
    "internlm": "Qwen/Qwen3-8B",
    "internlm2": "Qwen/Qwen3-8B",
    "aquila": "Qwen/Qwen3-8B",
}
"""For models that only run with code from their own repository: what transformers has classes for."""

_ANSWERERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def kind_of_file(path: Path) -> str | None:
    """Return what a file is by its first bytes, such as "a GGUF file"; None if they say nothing."""
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return None
    return next((kind for beginning, kind in _KINDS.items() if start.startswith(beginning)), None)


def weights_in_other_formats(folder: Path, file: Path | None = None) -> CrucibleError | None:
    """Return the error for a model that is stored as GGUF or GGML, whatever its files are called; None if it is not."""
    for path in [file] if file else sorted(folder.iterdir()):
        kind = kind_of_file(path) if path.is_file() else None
        if kind and kind.startswith(("a GGUF", "a GGML")):
            return CrucibleError(
                f"{path} is {kind}. Such files are made for running a model, their weights are mostly rounded to few "
                "bits, and they cannot be trained. Use the model that it was made from, in safetensors: on the hub it "
                "usually has the same name without -GGUF or -GGML. Where the card is too small for it, set "
                "load_in_4bit: true."
            )
    return None


def pickled(folder: Path) -> CrucibleError | None:
    """Return the error for a model whose weights are pickles; None if there are none."""
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files or weights_in_other_formats(folder):
        return None
    return CrucibleError(
        f"The weights in {folder} are pickles ({files[0].name}), which can run code when they are opened, so they are "
        "not loaded. Convert them once, in a mode that runs no code:\n  "
        f"{conversion_command(folder)}\nThen start again; the .bin files can be deleted."
    )


def conversion_command(folder: Path) -> str:
    """Return the command that writes pickled weights as safetensors into the same folder."""
    # transformers reads pickles with torch's weights_only, which runs no code.
    code = (
        "import sys, transformers as t; "
        "t.AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype='auto', local_files_only=True)"
        ".save_pretrained(sys.argv[1])"
    )
    return f'"{sys.executable}" -c "{code}" "{folder}"'


def refuse_model(folder: Path, config: dict[str, Any]) -> None:
    """Check that transformers has a class of its own for a model, and that this class writes text.

    Raises:
        CrucibleError: the model is of another kind, needs code from its repository, or its weights are quantized.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.get("model_type", ""))
    names = config.get("architectures")
    classes = [str(one) for one in names] if isinstance(names, list) else []
    what = classes[0] if classes else kind or "a model of an unknown kind"
    is_known = kind in CONFIG_MAPPING_NAMES
    if not is_known and (config.get("auto_map") or kind in _NATIVE):
        native = _NATIVE.get(kind)
        instead = (
            f"Use {native} instead, which need{'' if ' or ' in native else 's'} no such code"
            if native
            else ("Use a model that transformers has a class for, such as one of the Qwen3, Llama or Mistral models")
        )
        raise CrucibleError(
            f"{folder} contains {what} (model_type {kind!r}), which only runs with Python code from its own repository "
            f"(trust_remote_code). Code from the hub can do anything on this computer, so it is not run. {instead}."
        )
    if not is_known:
        import transformers

        raise CrucibleError(
            f"{folder} contains {what} (model_type {kind!r}), which the installed transformers "
            f"{transformers.__version__} does not know. Update transformers if the model is new, or choose another "
            "model."
        )
    writes = not classes or any(one.endswith(_ANSWERERS) for one in classes)
    if not writes or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or config.get("is_encoder_decoder"):
        raise CrucibleError(
            f"{folder} contains {what}, which does not write text by continuing it, as a causal language model does, "
            "so it cannot be trained here. Choose a model whose class ends in ForCausalLM, such as one of the Qwen3, "
            "Llama or Mistral models."
        )
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "few bits") if isinstance(quantization, dict) else "few bits"
        raise CrucibleError(
            f"The weights in {folder} are quantized already ({method}), and adapters would be trained to make up for "
            "errors that other copies of the model do not have. Use the model in bf16 or fp16 that it was made from, "
            "with load_in_4bit: true to hold it in 4 bits."
        )
