"""The demo language model as CLIP, built from ComfyUI's own classes.

ComfyUI recognizes a language model by its layer sizes, takes its other sizes from the class, and has a tokenizer for
each. It knows no model this small, so its Qwen3 classes are instantiated here with the sizes and the tokenizer of the
demo model's folder. The CLIP is otherwise what ComfyUI makes of Qwen3 for Z-Image, chat template included.
"""

from __future__ import annotations

import json
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.utils
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama, z_image
from torch import nn
from transformers import PreTrainedTokenizerFast

from ....demo.text import model_folder

_NAME = "qwen3_4b"
"""ComfyUI's name for the parts of a Qwen3 for Z-Image, under which it lets others take their place."""


def load_demo_clip(disable_dynamic: bool = False) -> Any:
    """Load the demo language model as CLIP. ComfyUI calls this again to reload it (`cached_patcher_init`)."""
    weights = comfy.utils.load_torch_file(str(model_folder() / "model.safetensors"))
    dtype = comfy.utils.weight_dtype(weights)
    clip = comfy.sd.CLIP(
        ClipTarget(z_image.ZImageTokenizer, z_image.te(dtype_llama=dtype)),
        tokenizer_data={f"{_NAME}_tokenizer_class": _Tokenizer},
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        model_options={f"{_NAME}_class": _Encoder},
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (
        lambda disable_dynamic=False: load_demo_clip(disable_dynamic).patcher,
        (),
    )
    return clip


class _Config(llama.Qwen3_4BConfig):
    """The sizes that ComfyUI takes from the class, not from the arguments."""

    head_dim = 32
    stop_tokens = [0, 2]  # noqa: RUF012 - ComfyUI's form


class CrucibleDemoQwen3(llama.Qwen3_4B):
    """Qwen3 with the sizes of the demo model. Reports show the name of this class as the name of the model."""

    def __init__(self, config_dict: dict[str, Any], dtype: Any, device: Any, operations: Any) -> None:
        nn.Module.__init__(self)
        config = _Config(**config_dict)
        self.num_layers = config.num_hidden_layers
        self.model = llama.Llama2_(config, device=device, dtype=dtype, ops=operations)
        self.dtype = dtype


class _Encoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = {}) -> None:  # noqa: B006
        folder = json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))
        sizes = {name: folder[name] for name in llama.Qwen3_4BConfig.__dataclass_fields__ if name in folder}
        super().__init__(
            device=device,
            layer="hidden",
            layer_idx=-2,
            textmodel_json_config=sizes,
            dtype=dtype,
            special_tokens={"pad": folder["pad_token_id"]},
            layer_norm_hidden_state=False,
            model_class=CrucibleDemoQwen3,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options,
        )


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = {}) -> None:  # noqa: B006
        super().__init__(
            str(model_folder()),
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=0,
            embedding_key=_NAME,
            tokenizer_class=PreTrainedTokenizerFast,
            has_start_token=False,
            has_end_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=1,
            pad_token=0,
            tokenizer_data=tokenizer_data,
        )
