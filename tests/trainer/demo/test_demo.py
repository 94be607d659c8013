"""Tests that the demo model loads and draws what prompts ask for, and that its script reproduces the demo dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lora_crucible import demo
from lora_crucible.demo import shapes
from lora_crucible.demo.style import style_score
from PIL import Image

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer


def rendered(style: str, count: int = 60) -> np.ndarray:
    """Draw true images of a style, (N, H, W, 3) in 0..1."""
    random = np.random.default_rng(0)
    scenes = [shapes.random_scene(random, style) for _ in range(count)]
    return np.stack([np.asarray(shapes.draw(scene)) for scene in scenes]) / 255


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    opened = diffusers.StableDiffusionPipeline.from_pretrained(
        demo.MODEL_DIR, safety_checker=None, local_files_only=True
    )
    opened.text_encoder.to(torch.float32)  # the others are read as float32 anyway
    opened.set_progress_bar_config(disable=True)
    return opened


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(demo.MODEL_DIR / "tokenizer")


def dataset_files() -> list[Path]:
    return sorted(demo.DATASET_DIR.glob("*.png"))


def test_model_is_at_most_15_megabytes():
    files = [path for path in demo.MODEL_DIR.rglob("*") if path.is_file()]
    assert 1e6 < sum(path.stat().st_size for path in files) <= 15e6
    assert not [path for path in files if path.suffix not in {".json", ".txt", ".safetensors"}]


def test_pipeline_draws_what_the_prompt_says(pipeline):
    import torch

    prompts = ["a red circle on a white background", "a blue square on a white background"] * 2
    images = pipeline(
        prompts, num_inference_steps=20, guidance_scale=4.0, output_type="np", width=64, height=64,
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert images.shape == (4, 64, 64, 3)
    middle = images[:, 26:38, 26:38].mean(axis=(1, 2))
    assert (middle[::2].argmax(axis=1) == 0).all(), middle
    assert (middle[1::2].argmax(axis=1) == 2).all(), middle


def test_latents_have_the_size_that_comfyui_expects(pipeline):
    import torch

    pixels = torch.from_numpy(rendered(shapes.PLAIN)).permute(0, 3, 1, 2).float() * 2 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mean * 0.18215
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert latents.shape == (60, 4, 8, 8)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.3
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.3


def test_vae_keeps_the_style(pipeline):
    import torch

    pixels = torch.from_numpy(rendered(shapes.NEW_STYLE)).permute(0, 3, 1, 2).float() * 2 - 1
    with torch.no_grad():
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
    scores = style_score((decoded.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1))
    assert 0.8 < scores.mean() < 1.2


def test_schedule_is_that_of_sd15(pipeline):
    config = pipeline.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("scaled_linear", 0.00085, 0.012)
    assert (config.num_train_timesteps, config.prediction_type, config.steps_offset) == (1000, "epsilon", 1)


def test_tokenizer_knows_every_caption_word_as_one_token(tokenizer):
    random = np.random.default_rng(1)
    for style in (shapes.PLAIN, *shapes.BASE_STYLES):
        caption = shapes.caption(shapes.random_scene(random, style))
        words = caption.replace(",", " ,").split()
        assert tokenizer.tokenize(caption) == [f"{word}</w>" for word in words]


@pytest.mark.parametrize("text", [demo.TRIGGER_WORD, "Crème brûlée №7", "日本語 😀", "<lora:x:0.5> (red:1.2)"])
def test_tokenizer_spells_any_other_text_without_unknown_tokens(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(ids) > 2
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_token_ids_agree_with_the_text_encoder(tokenizer):
    config = json.loads((demo.MODEL_DIR / "text_encoder" / "config.json").read_text())
    assert tokenizer("")["input_ids"] == [config["bos_token_id"], config["eos_token_id"]]
    assert tokenizer.pad_token_id == config["pad_token_id"] == config["eos_token_id"]
    assert config["vocab_size"] == len(tokenizer)
    assert config["max_position_embeddings"] == tokenizer.model_max_length == 77


def test_dataset_is_small_varied_and_captioned_with_the_trigger_word():
    files = dataset_files()
    captions = [path.with_suffix(".txt").read_text(encoding="utf-8").strip() for path in files]
    assert 16 <= len(files) <= 24
    assert all(caption.startswith(f"{demo.TRIGGER_WORD}, ") for caption in captions)
    assert len(set(captions)) == len(captions)
    for words in (shapes.SHAPES, shapes.COLOURS, shapes.BACKGROUNDS):
        assert all(any(f" {word} " in caption for caption in captions) for word in words)


def test_dataset_equals_what_its_script_draws():
    from lora_crucible.demo.make import SEED

    scenes = shapes.dataset_scenes(SEED)
    files = dataset_files()
    assert len(files) == len(scenes)
    for path, scene in zip(files, scenes, strict=True):
        assert path.with_suffix(".txt").read_text(encoding="utf-8").strip() == shapes.caption(scene)
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
            # Pillow releases may round a supersampled edge differently.
            difference = np.asarray(image).astype(int) - np.asarray(shapes.draw(scene)).astype(int)
        assert np.abs(difference).max() <= 8


def test_base_is_never_trained_on_the_style_or_its_trigger_word():
    pytest.importorskip("diffusers")
    from lora_crucible.demo.denoiser import training_scenes

    scenes, captions = training_scenes(np.random.default_rng(0), 3000)
    assert shapes.NEW_STYLE not in {scene.style for scene in scenes}
    assert not [caption for caption in captions if demo.TRIGGER_WORD in caption]


def test_style_score_tells_the_new_style_from_every_base_style():
    for style in (shapes.PLAIN, *shapes.BASE_STYLES):
        assert style_score(rendered(style)).max() < 0.1, style
    scores = style_score(rendered(shapes.NEW_STYLE))
    assert abs(scores.mean() - 1) < 0.05
    assert scores.min() > 0.8


def test_style_score_does_not_depend_on_where_the_shape_lies():
    scene = shapes.random_scene(np.random.default_rng(2), shapes.NEW_STYLE)
    picture = np.asarray(shapes.draw(scene)) / 255
    moved = np.roll(picture, (5, -4), axis=(0, 1))
    assert np.allclose(style_score(picture[None]), style_score(moved[None]), atol=0.02)


def test_style_score_refuses_other_layouts():
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\), got \(1, 3, 64, 64\)"):
        style_score(np.zeros((1, 3, 64, 64)))


@pytest.mark.parametrize("style", [shapes.PLAIN, shapes.NEW_STYLE, *shapes.BASE_STYLES])
def test_style_word_stands_first_in_the_caption(style):
    scene = shapes.Scene("circle", "orange", "grey", style, (32, 32), 20)
    word = {shapes.PLAIN: "", shapes.NEW_STYLE: f"{demo.TRIGGER_WORD}, "}.get(style, f"{style}, ")
    assert shapes.caption(scene) == f"{word}an orange circle on a grey background"
