"""Captioners of transformers' own classes with a few thousand random weights, saved like their repositories."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PAD, START, END, UNKNOWN = range(4)
WORDS = [f"word{number}" for number in range(40)]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)

TAGS = [
    ("general", "9"),
    ("explicit", "9"),
    ("long_hair", "0"),
    ("^_^", "0"),
    ("smile", "0"),
    ("hatsune_miku", "4"),
    ("artist_name", "1"),
]
"""Names and categories, as in a tagger's selected_tags.csv."""


def tokenizer(*special: str, named: dict[str, str] | None = None) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer that splits at spaces and knows `WORDS` and some words of the chat template."""
    words = [*SPECIAL, *WORDS, "user", "assistant", "picture", *special, *(named or {}).values()]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    result = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named or {},
    )
    result.add_special_tokens({"additional_special_tokens": list(special)}, replace_extra_special_tokens=False)
    return result


def spread(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Give a model weights with which different images get different texts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.6, generator=generator)
    return model.eval()


def florence(folder: Path) -> Path:
    """Save a Florence-2 that turns 64 x 64 pixels into 5 tokens."""
    words = tokenizer(named={"image_token": "<image>"})
    config = transformers.Florence2Config(
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 8, 16],
            "num_heads": [2, 2, 2, 2],
            "num_groups": [2, 2, 2, 2],
            "window_size": 4,
            "projection_dim": 16,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(words),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 1024,
            "pad_token_id": PAD,
            "bos_token_id": START,
            "eos_token_id": END,
            "decoder_start_token_id": END,
            "forced_eos_token_id": None,
        },
        image_token_id=words.image_token_id,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=None,
    )
    images = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5)
    transformers.Florence2Processor(images, words).save_pretrained(folder)
    spread(transformers.Florence2ForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    words = tokenizer()
    config = transformers.BlipConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "encoder_hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": START,
            "eos_token_id": END,
            "pad_token_id": PAD,
            "sep_token_id": END,
        },
    )
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, words).save_pretrained(folder)
    spread(transformers.BlipForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def idefics3(folder: Path) -> Path:
    """Save a model of the first SmolVLM's type."""
    return _smolvlm(folder, "Idefics3")


def smolvlm(folder: Path) -> Path:
    return _smolvlm(folder, "SmolVLM")


def _smolvlm(folder: Path, name: str) -> Path:
    special = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<row_1_col_1>")
    words = tokenizer(*special)
    config = getattr(transformers, f"{name}Config")(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", **_decoder(len(words))},
        pad_token_id=PAD,
    )
    images = getattr(transformers, f"{name}ImageProcessor")(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    parts = [images, words]
    if name == "SmolVLM":
        parts.append(transformers.SmolVLMVideoProcessor())
    template = CHAT_TEMPLATE.replace("IMAGE", "<image>")
    processor = getattr(transformers, f"{name}Processor")(*parts, image_seq_len=4, chat_template=template)
    processor.save_pretrained(folder)
    spread(getattr(transformers, f"{name}ForConditionalGeneration")(config)).save_pretrained(folder)
    return folder


def qwen(folder: Path, name: str = "Qwen2_5_VL") -> Path:
    """Save a Qwen2VL, Qwen2_5_VL or Qwen3VL, which gives images of different sizes different numbers of tokens."""
    special = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*special)
    ids = dict(zip(special, words.convert_tokens_to_ids(list(special)), strict=True))
    vision = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    text = {**_decoder(len(words)), "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    if name == "Qwen2VL":
        vision |= {"embed_dim": 16, "hidden_size": 16}
        text["rope_parameters"]["mrope_section"] = [2, 1, 1]
    elif name == "Qwen2_5_VL":
        vision |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 16, "window_size": 16}
        vision |= {"fullatt_block_indexes": [1]}
        text["rope_parameters"]["mrope_section"] = [2, 1, 1]
    else:
        vision |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 16, "num_position_embeddings": 64}
        vision |= {"deepstack_visual_indexes": [0]}
        text |= {"head_dim": 8}
        text["rope_parameters"] |= {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        text_config=text,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    images = transformers.Qwen2VLImageProcessor(patch_size=4, size=size)
    kind = "Qwen3VL" if name == "Qwen3VL" else "Qwen2VL"
    videos = getattr(transformers, f"{kind}VideoProcessor")(patch_size=4)
    template = CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = getattr(transformers, f"{name}Processor")(images, words, videos, chat_template=template)
    processor.save_pretrained(folder)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    model.generation_config.temperature, model.generation_config.do_sample = 0.1, True  # like Qwen's own settings
    spread(model).save_pretrained(folder)
    return folder


def _decoder(words: int) -> dict[str, object]:
    return {
        "vocab_size": words,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "pad_token_id": PAD,
        "bos_token_id": START,
        "eos_token_id": END,
    }


def tagger(folder: Path, tags: Sequence[tuple[str, str]] = TAGS) -> Path:
    """Save a folder as timm does: config.json has no model_type, and the weights have no prefix."""
    import timm
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"img_size": 32}
    model = spread(timm.create_model("test_vit", num_classes=len(tags), **arguments))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    pretrained = {"input_size": [3, 32, 32], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "test_vit", "num_classes": len(tags), "model_args": arguments}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": pretrained}))
    with open(folder / "selected_tags.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["tag_id", "name", "category", "count"])
        table.writerows((index, name, category, 1) for index, (name, category) in enumerate(tags))
    return folder


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Return an image of noise that differs between seeds."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
