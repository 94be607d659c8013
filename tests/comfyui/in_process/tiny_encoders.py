"""CLIPs with language models of ComfyUI's classes and random weights, small enough for a CPU."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders.llama as llama
import comfy.text_encoders.qwen35 as qwen35
import torch

SIZES = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}

QWEN35_SIZES = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 32,
}


class TextPartOfQwen35(qwen35.Qwen35):
    """Qwen3.5 without the layers that see pictures, which are large in every size."""

    def __init__(self, config_dict, dtype, device, operations):
        torch.nn.Module.__init__(self)
        config = qwen35._make_config(self.model_type, {**config_dict, **QWEN35_SIZES})
        self.num_layers, self.dtype = config.num_hidden_layers, dtype
        self.model = qwen35.Qwen35Transformer(config, device=device, dtype=dtype, ops=operations)


CLASSES: dict[str, tuple[str, type]] = {
    "Qwen3": ("qwen3_06b", llama.Qwen3_06B),
    "Qwen2.5": ("qwen25_3b", llama.Qwen25_3B),
    "Qwen3.5": ("qwen35_2b", TextPartOfQwen35),
    "Gemma 3": ("gemma3_4b", llama.Gemma3_4B),
    "Llama 3": ("llama", llama.Llama2),
    "Ministral": ("ministral3_3b", llama.Ministral3_3B),
    "Mistral": ("mistral3_24b", llama.Mistral3Small24B),
}
"""ComfyUI's name and class of the text encoder of each family."""


def clip_of(family: str, **sizes: Any) -> Any:
    """Return a CLIP with a language model of a family, in the sizes of `SIZES` but for those that are given."""
    torch.manual_seed(0)
    name, kind = CLASSES[family]
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = comfy.sd1_clip.SD1ClipModel(
        name=name, clip_model=_encoder(kind, SIZES | sizes), dtype=torch.float32
    )
    for parameter_name, parameter in clip.cond_stage_model.named_parameters():
        parameter.requires_grad_(False)
        # With small embeddings, an answer depends on more than the last token.
        torch.nn.init.normal_(parameter, std=0.02 if "embed_tokens" in parameter_name else 0.2)
    cpu = torch.device("cpu")
    clip.patcher = comfy.model_patcher.ModelPatcher(clip.cond_stage_model, load_device=cpu, offload_device=cpu)
    clip.tokenizer, clip.layer_idx, clip.tokenizer_options = None, None, {}
    clip.use_clip_schedule, clip.apply_hooks_to_conds = False, None
    return clip


def _encoder(kind: type, sizes: dict[str, int]) -> Any:
    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 - ComfyUI's signature
            super().__init__(
                device=device,
                textmodel_json_config=dict(sizes),
                dtype=dtype,
                special_tokens={"pad": 0},
                layer_norm_hidden_state=False,
                model_class=kind,
                model_options=model_options,
            )

    return Encoder


def answer(clip: Any, count: int = 6) -> list[int]:
    """Return the tokens that a CLIP answers a prompt of random tokens with, always the likeliest one."""
    (name,) = (one for one, _ in clip.cond_stage_model.named_children())
    return clip.generate({name: [[(token, 1.0) for token in (5, 9, 2, 30)]]}, do_sample=False, max_length=count)
