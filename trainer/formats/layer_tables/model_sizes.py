"""The sizes of the published models of each architecture, by which LoRAs of different architectures are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SMALLEST = 1024
"""The least width of a published diffusion transformer. Narrower models are toys, such as those of tests."""


@dataclass(frozen=True)
class ModelSize:
    """A published model, or several of the same size.

    Attributes:
        name: what people call it.
        width: the number of channels that its blocks work on.
        blocks: the number of blocks in each list, by ComfyUI's name.
        lengths: the values of the words in the tables of layers, except those that depend on the width alone.
    """

    name: str
    width: int
    blocks: Mapping[str, int]
    lengths: Mapping[str, int] = field(default_factory=dict)


_FLUX1 = {"double_blocks": 19, "single_blocks": 38}
_LUMINA = {"noise_refiner": 2, "context_refiner": 2}
_COSMOS = {"text": 1024, "adaln": 256}

SIZES: dict[str, tuple[ModelSize, ...]] = {
    "sd3": (
        ModelSize("Stable Diffusion 3 and 3.5 Medium", 1536, {"joint_blocks": 24}),
        ModelSize("Stable Diffusion 3.5 Large", 2432, {"joint_blocks": 38}),
    ),
    "flux1": (ModelSize("Flux.1", 3072, _FLUX1),),
    "chroma": (ModelSize("Chroma", 3072, {**_FLUX1, "distilled_guidance_layer.layers": 5}),),
    "flux2": (
        ModelSize("Flux.2 dev", 6144, {"double_blocks": 8, "single_blocks": 48}),
        ModelSize("Flux.2 klein 4B", 3072, {"double_blocks": 5, "single_blocks": 20}),
        ModelSize("Flux.2 klein 9B", 4096, {"double_blocks": 8, "single_blocks": 24}),
    ),
    "lumina2": (ModelSize("Lumina Image 2.0", 2304, {"layers": 26, **_LUMINA}, {"ff": 9216, "time": 1024}),),
    "z_image": (ModelSize("Z-Image", 3840, {"layers": 30, **_LUMINA}, {"ff": 10240, "time": 256}),),
    "qwen_image": (ModelSize("Qwen-Image", 3072, {"transformer_blocks": 60}),),
    "auraflow": (ModelSize("AuraFlow", 3072, {"double_layers": 4, "single_layers": 32}, {"ff": 8192}),),
    "pixart_alpha": (ModelSize("PixArt-alpha", 1152, {"blocks": 28}),),
    "pixart_sigma": (ModelSize("PixArt-Sigma", 1152, {"blocks": 28}),),
    "hunyuan_dit": (ModelSize("Hunyuan-DiT", 1408, {"blocks": 40}, {"ff": 6144, "text": 1024}),),
    "hidream": (
        ModelSize(
            "HiDream-I1",
            2560,
            {"double_stream_blocks": 16, "single_stream_blocks": 32},
            {"ff": 6912, "shared": 3584},
        ),
    ),
    "cosmos_predict2": (
        ModelSize("Cosmos-Predict2 2B", 2048, {"blocks": 28}, _COSMOS),
        ModelSize("Cosmos-Predict2 14B", 5120, {"blocks": 36}, _COSMOS),
    ),
    "anima": (ModelSize("Anima", 2048, {"blocks": 28, "llm_adapter.blocks": 6}, _COSMOS),),
    "wan": (
        ModelSize("Wan 1.3B", 1536, {"blocks": 30}, {"ff": 8960}),
        ModelSize("Wan 14B", 5120, {"blocks": 40}, {"ff": 13824}),
        ModelSize("Wan 2.2 5B", 3072, {"blocks": 30}, {"ff": 14336}),
    ),
    "hunyuan_video": (
        ModelSize(
            "HunyuanVideo",
            3072,
            {"double_blocks": 20, "single_blocks": 40, "txt_in.individual_token_refiner.blocks": 2},
        ),
    ),
    "ltxv": (
        ModelSize("LTX-Video 2B", 2048, {"transformer_blocks": 28}),
        ModelSize("LTX-Video 13B", 4096, {"transformer_blocks": 48}),
    ),
}
"""The published sizes, by the architecture's id. Sizes of UNets are in `identify`."""
