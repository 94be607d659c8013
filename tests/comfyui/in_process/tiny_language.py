"""Small language models of every architecture: ComfyUI's own classes, and transformers' with the same weights."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import comfy.sd
import comfy.sd1_clip
import torch
import transformers
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama, qwen3vl, qwen35
from lora_crucible.demo.text import model_folder
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, WIDTH, HEADS, GROUPS, HEAD = 600, 32, 4, 2, 16
STOP = [0, 2]

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "max_position_embeddings": 128,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}


@dataclass(frozen=True)
class Tiny:
    """A small language model.

    Attributes:
        kind: ComfyUI's class.
        twin: the name of transformers' classes, without Config and ForCausalLM or TextModel.
        theta: the base of the rotary positions.
        fixed: what ComfyUI has as attributes of its config's class.
        sizes: more sizes, as ComfyUI calls them.
        of_twin: more settings of transformers' config.
        tolerance: the largest difference of logits.
    """

    kind: type
    twin: str
    theta: float
    fixed: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    of_twin: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5

    def make_twin(self) -> Twin:
        """Return transformers' model, with weights such that its logits are about as large as one."""
        text = "Text" if self.twin in ("Gemma3", "Qwen3_5") else ""
        positions = {"rope_type": "default", "rope_theta": self.theta}
        config = getattr(transformers, f"{self.twin}{text}Config")(
            **{**SIZES, "head_dim": HEAD, "rope_parameters": positions, "attn_implementation": "eager", **self.of_twin}
        )
        torch.manual_seed(1)
        if self.twin == "Qwen3VLText":
            decoder: Any = transformers.Qwen3VLTextModel(config)
        else:
            decoder = getattr(transformers, f"{self.twin}ForCausalLM")(config).model
        head = nn.Linear(WIDTH, VOCABULARY, bias=False) if self.has_head else None
        twin = Twin(decoder.float().eval(), head)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                if name.endswith("conv1d.weight"):
                    # ComfyUI leaves out what transformers adds to the length of short queries and keys (1e-6), so
                    # these are long here, as in real models.
                    parameter.normal_(0, 6)
                elif parameter.ndim > 1:
                    parameter.normal_(0, (1.0 if "embed" in name else 1.5) * parameter.shape[1] ** -0.5)
                elif not name.endswith(("A_log", "dt_bias")):
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return twin.requires_grad_(False)

    @property
    def has_head(self) -> bool:
        return bool(self.sizes.get("lm_head"))

    def clip(self, twin: Twin, dtype: torch.dtype = torch.float32) -> Any:
        """Return a CLIP of ComfyUI's classes with the weights of the twin, loaded as in a node."""
        weights = {name: weight.clone().to(dtype) for name, weight in twin.state_dict().items()}
        with torch.inference_mode(), ExitStack() as stack:
            for change in self._changes():
                stack.enter_context(change)
            return comfy.sd.CLIP(
                ClipTarget(
                    partial(comfy.sd1_clip.SD1Tokenizer, name="tiny", tokenizer=_Tokenizer),
                    partial(comfy.sd1_clip.SD1ClipModel, name="tiny", clip_model=self._encoder),
                ),
                state_dict=[weights],
                model_options={"dtype": dtype},
            )

    def _encoder(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> Any:
        return comfy.sd1_clip.SDClipModel(
            device=device,
            textmodel_json_config={**SIZES, **self.sizes},
            dtype=dtype,
            special_tokens={"pad": 0},
            layer_norm_hidden_state=False,
            model_class=self.kind,
            model_options=model_options or {},
        )

    def _changes(self) -> list[Any]:
        """Return contexts in which ComfyUI's classes take these sizes, and see no pictures."""
        without_vision = [
            mock.patch.object(module, name, return_value=nn.Identity())
            for module, name in (
                (llama.qwen_vl, "Qwen2VLVisionTransformer"),
                (qwen3vl, "Qwen3VLVisionModel"),
                (qwen35, "Qwen35VisionModel"),
            )
        ]
        if self.kind is qwen35.Qwen35:
            return without_vision
        attributes = {"head_dim": HEAD, **self.fixed}
        if hasattr(getattr(llama, _CONFIGS.get(self.kind, "Qwen3VL_4BConfig")), "stop_tokens"):
            attributes["stop_tokens"] = STOP
        if self.kind is qwen3vl.Qwen3VL:
            small = type("Small", (llama.Qwen3VL_4BConfig,), attributes)
            return [*without_vision, mock.patch.dict(qwen3vl.QWEN3VL_CONFIGS, {"qwen3vl_8b": small})]
        name = _CONFIGS[self.kind]
        small = type("Small", (getattr(llama, name),), attributes)
        return [*without_vision, mock.patch.object(llama, name, small)]


class Twin(nn.Module):
    """A language model of transformers without its class for causal models, which some lack."""

    def __init__(self, model: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        if head is not None:
            self.model.lm_head = head

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (rows, length, vocabulary)."""
        hidden = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        head = getattr(self.model, "lm_head", self.model.embed_tokens)
        return F.linear(hidden, head.weight)


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        super().__init__(
            str(model_folder()),
            pad_with_end=False,
            embedding_key="tiny",
            tokenizer_class=transformers.PreTrainedTokenizerFast,
            has_start_token=False,
            has_end_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=1,
            pad_token=0,
        )


_CONFIGS: dict[type, str] = {
    llama.Qwen3_4B: "Qwen3_4BConfig",
    llama.Qwen3_8B: "Qwen3_8BConfig",
    llama.Qwen25_7BVLI: "Qwen25_7BVLI_Config",
    llama.Gemma3_4B: "Gemma3_4B_Config",
    llama.Ministral3_3B: "Ministral3_3BConfig",
    llama.Llama2: "Llama2Config",
    llama.Mistral3Small24B: "Mistral3Small24BConfig",
}

_GEMMA_POSITIONS = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

TINY: dict[str, Tiny] = {
    "qwen3": Tiny(llama.Qwen3_4B, "Qwen3", 1e6),
    "qwen3 with a head": Tiny(llama.Qwen3_8B, "Qwen3", 1e6, sizes={"lm_head": True}),
    "qwen2.5 vl": Tiny(llama.Qwen25_7BVLI, "Qwen2", 1e6, {"rope_dims": [2, 3, 3]}),
    "qwen3 vl": Tiny(qwen3vl.Qwen3VL, "Qwen3VLText", 5e6, {"rope_dims": [4, 2, 2]}),
    "qwen3.5": Tiny(
        qwen35.Qwen35,
        "Qwen3_5",
        1e7,
        sizes={
            **LINEAR,
            "num_hidden_layers": 4,
            "layer_types": [*["linear_attention"] * 3, "full_attention"],
            "head_dim": HEAD,
            "mrope_section": [1, 1, 0],
            "stop_tokens": STOP,
        },
        of_twin={
            **LINEAR,
            "num_hidden_layers": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
        },
        tolerance=1e-4,
    ),
    "gemma 3": Tiny(
        llama.Gemma3_4B,
        "Gemma3",
        1e6,
        {"sliding_attention": [6, 6, 6, 6, 6, False]},
        {"num_hidden_layers": 6},
        {
            "num_hidden_layers": 6,
            "sliding_window": 6,
            "query_pre_attn_scalar": HEAD,
            "rope_parameters": _GEMMA_POSITIONS,
        },
    ),
    "ministral 3": Tiny(llama.Ministral3_3B, "Mistral", 1e6, of_twin={"sliding_window": None, "rms_norm_eps": 1e-5}),
    "llama 3": Tiny(llama.Llama2, "Llama", 5e5, of_twin={"rms_norm_eps": 1e-5}),
    "mistral": Tiny(llama.Mistral3Small24B, "Mistral", 1e9, of_twin={"sliding_window": None, "rms_norm_eps": 1e-5}),
}
"""The architectures that are trained, and how transformers has them."""
