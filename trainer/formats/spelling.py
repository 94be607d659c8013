"""Bring the layer names of all programs to one spelling.

Trainers put the path of the model in front of a layer's name: "pipe.dit.", "base_model.model.", "lora_unet_". Libraries
put their wrappers anywhere in between: "_orig_mod" (torch.compile), "module" (distributed training). Some use dots and
some underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache

from .layer_tables.rows import all_rows

_WRAPPERS = re.compile(
    r"(?:(?<=[._])|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module|base_layer|processor)(?:[._]|$)"
)
_KOHYA = re.compile(r"(?:lora_(?:unet|prior_unet|transformer|dit|model)|lycoris)_+")
_CONTAINER = (
    r"base_model[._]model|model[._]diffusion_model|diffusion_model"
    r"|pipe|pipeline|transformer|unet|dit|denoiser|model|net"
)
_CONTAINERS = re.compile(rf"(?:(?:{_CONTAINER})\.)+")

_TEXT_ENCODER = re.compile(
    rf"(?:(?:{_CONTAINER})\.)*?"
    r"(?:lora_(?P<prior>prior_)?te(?P<kohya>\d?)[._]|text_encoder(?:_(?P<diffusers>\d))?[._]|te(?P<short>\d?)\."
    r"|text_encoders?\.(?P<comfyui>\w+)\.transformer\.|text_encoders\.|(?=text_model\.))"
)
_NUMBERS = {"clip_l": "1", "clip_h": "1", "clip_g": "2"}
_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_OF_OTHER_MODELS = re.compile(r"encoder|decoder|vae|control|vision|language|text|audio|motion|adapter|embed|clip")
"""What the name of a module is like that is not merely the path of the model, but a model of its own."""

_UNET_MODULES = (
    *("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "conv_in", "conv_out"),
    *("conv_norm_out", "time_embedding", "add_embedding", "class_embedding", "time_embed", "label_emb"),
)


def names_text_encoder(name: str) -> bool:
    """Return whether a layer name, or a key, as any trainer writes it, is of a text encoder."""
    return _TEXT_ENCODER.match(_WRAPPERS.sub("", name)) is not None


@lru_cache(maxsize=1 << 16)
def flat(name: str) -> str:
    """Return a layer name in a spelling that all programs share.

    The path of the model and the wrappers of libraries are removed, dots become underscores, and names of text encoders
    start with "te1:", "te2:" and so on.
    """
    name = _WRAPPERS.sub("", name).rstrip("._")
    if match := _TEXT_ENCODER.match(name):
        number = match["kohya"] or match["diffusers"] or match["short"] or _NUMBERS.get(match["comfyui"] or "", "1")
        if match["prior"] or (match["comfyui"] and match["comfyui"] not in _NUMBERS):
            number = f"_{match['comfyui'] or 'prior'}"
        return f"te{number}:{_flat_in_text_encoder(_without_path(name[match.end() :]))}"
    kohya = _KOHYA.match(name)
    if kohya is not None:
        name = name[kohya.end() :]
    name = _without_path(name)
    if kohya is not None:  # here the path is in underscores too, and a layer's name can begin with such a word
        name = _underscored_containers().sub("", name, count=1)
    return name.replace(".", "_")


def spellings(name: str) -> Iterator[str]:
    """Yield `flat` of a layer name, then of what remains of it without the modules that it begins with, one by one.

    This removes any path of the model, however its trainer called it ("student.", "pipe.dit2."). It ends at a block's
    number and at modules that are known to be part of a model or models of their own.
    """
    yield flat(name)
    if names_text_encoder(name):
        return
    module, dot, rest = _WRAPPERS.sub("", name).partition(".")
    while dot and not module.isdecimal() and module not in modules() and not _OF_OTHER_MODELS.search(module):
        yield flat(rest)
        module, dot, rest = rest.partition(".")


@cache
def modules() -> frozenset[str]:
    """Return the names of the modules that the layers of known architectures begin with."""
    names = (name for row in all_rows() for name in (row.native, row.original, *(part.name for part in row.parts)))
    return frozenset((*_UNET_MODULES, *(name.partition(".")[0] for name in names)))


@cache
def _underscored_containers() -> re.Pattern[str]:
    known = "|".join(sorted(map(re.escape, modules()), key=len, reverse=True))
    container = _CONTAINER.replace("[._]", "_")
    return re.compile(rf"^(?!(?:{known})_\d)(?:(?:{container})_)+?(?=(?:{known})(?:_|$))")


def _without_path(name: str) -> str:
    match = _CONTAINERS.match(name)
    return name[match.end() :] if match else name


def _flat_in_text_encoder(name: str) -> str:
    start, _, last = name.rpartition(".")
    return f"{start}.{_OLD_ATTENTION[last]}".replace(".", "_") if last in _OLD_ATTENTION else name.replace(".", "_")
