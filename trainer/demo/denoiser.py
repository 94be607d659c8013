"""Training of the demo model's text encoder and UNet together, on latents of captioned shapes."""

from __future__ import annotations

import logging
import string
import time

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import TRIGGER_WORD, shapes
from .muon import Optimizer
from .vae import SCALING_FACTOR, encode, to_pixels

LOG = logging.getLogger(__name__)

TEXT_WIDTH = 128
"""The number of features per token that the UNet's cross-attention reads."""

STYLED_SHARE = 0.6
"""The share of training images that are in a base style, which the first word of their captions names."""

UNKNOWN_WORD_SHARE = 0.15
"""The share of training images that are in a base style, but whose captions begin with a meaningless word.

They teach the model that an unknown word, such as a trigger word, is the name of some style. The features of captions
with a trigger word therefore lie far from those without, and what a LoRA learns for the former does not leak into the
latter. (If such words changed nothing, a LoRA would leak nine tenths of what it learns.)
"""

EMPTY_CAPTION_SHARE = 0.1
"""The share of training captions that are replaced by empty ones, for classifier-free guidance."""


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained CLIP text model for the tokenizer's vocabulary, with about 0.5 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    """Return an untrained UNet of SD1.5's architecture for 8 x 8 latents, with about 4.3 M parameters."""
    return UNet2DConditionModel(
        sample_size=shapes.IMAGE_SIZE // 8,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def new_scheduler() -> DDIMScheduler:
    """Return a scheduler with SD1.5's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def training_scenes(random: np.random.Generator, count: int) -> tuple[list[shapes.Scene], list[str]]:
    """Return the base model's training scenes and captions: plain ones and base styles, never the new style."""
    styles = list(shapes.BASE_STYLES)
    scenes, captions = [], []
    for _ in range(count):
        kind = random.random()
        style = str(random.choice(styles)) if kind < STYLED_SHARE else shapes.PLAIN
        scene = shapes.random_scene(random, style)
        text = shapes.caption(scene)
        if kind < UNKNOWN_WORD_SHARE:
            text = text.replace(style, unknown_word(random), 1)
        scenes.append(scene)
        captions.append(text)
    return scenes, captions


def unknown_word(random: np.random.Generator) -> str:
    """Return three to seven random letters that are not the trigger word, which the base model must not see."""
    while True:
        word = "".join(random.choice(list(string.ascii_lowercase), size=random.integers(3, 8)))
        if word != TRIGGER_WORD:
            return word


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return the captions' token ids (N, 77), padded with the end token."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return tokens["input_ids"]


def train_denoiser(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    seed: int,
    steps: int = 3600,
    batch_size: int = 32,
    pictures: int = 8000,
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train the text encoder and the UNet to predict noise, as SD1.5 does, and return their moving averages."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    scenes, captions = training_scenes(np.random.default_rng(seed), pictures)
    latents = encode(vae, to_pixels(scenes)) * SCALING_FACTOR
    token_ids = tokenize(tokenizer, captions)
    empty_ids = tokenize(tokenizer, [""])

    text_encoder, unet, scheduler = new_text_encoder(tokenizer), new_unet(), new_scheduler()
    modules = torch.nn.ModuleList([text_encoder, unet])
    optimizer = Optimizer(modules, steps, matrix_rate=0.01, vector_rate=2e-3)
    average = EMAModel(modules.parameters(), decay=0.998)
    start, recent = time.monotonic(), 0.0
    for step in range(steps):
        index = torch.randint(0, pictures, (batch_size,), generator=generator)
        emptied = torch.rand(batch_size, 1, generator=generator) < EMPTY_CAPTION_SHARE
        features = text_encoder(torch.where(emptied, empty_ids, token_ids[index])).last_hidden_state
        noise = torch.randn(latents[index].shape, generator=generator)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
        noisy = scheduler.add_noise(latents[index], noise, timesteps)
        loss = torch.nn.functional.mse_loss(unet(noisy, timesteps, features).sample, noise)
        optimizer.step(loss)
        average.step(modules.parameters())
        recent += loss.item() / 100
        if step % 100 == 99:
            LOG.info("denoiser %d/%d loss %.4f %.0f s", step + 1, steps, recent, time.monotonic() - start)
            recent = 0.0
    average.copy_to(modules.parameters())
    return text_encoder.eval(), unet.eval()
