"""Creates the demo model and the demo dataset: `python -m trainer.demo.make [vae|denoiser|model|dataset]`.

Everything is derived from one seed. The model takes about an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from . import DATASET_DIR, MODEL_DIR, shapes
from .denoiser import new_scheduler, train_denoiser
from .tokenizer import write_tokenizer
from .vae import train_vae

SEED = 1


def make_dataset(folder: Path = DATASET_DIR, seed: int = SEED) -> None:
    """Draw the dataset's images and write each with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(shapes.dataset_scenes(seed)):
        shapes.draw(scene).save(folder / f"{index:02}.png", optimize=True)
        (folder / f"{index:02}.txt").write_text(shapes.caption(scene) + "\n", encoding="utf-8")


def make_vae(folder: Path = MODEL_DIR, seed: int = SEED) -> None:
    """Train the VAE and write it into the model folder."""
    vae = train_vae(seed)
    vae.half().save_pretrained(folder / "vae")


def make_denoiser(folder: Path = MODEL_DIR, seed: int = SEED) -> None:
    """Train the text encoder and the UNet on latents of the folder's VAE, and write the complete model folder."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(torch.float32).eval()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        finished = Path(temporary) / folder.name
        write_tokenizer(finished / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(finished / "tokenizer")
        text_encoder, unet = train_denoiser(vae, tokenizer, seed)
        pipeline = StableDiffusionPipeline(
            vae=vae.half(),
            text_encoder=text_encoder.half(),
            tokenizer=tokenizer,
            unet=unet.half(),
            scheduler=new_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(finished)
        restore_prefix(finished / "text_encoder" / "model.safetensors")
        forget_origin(finished / "vae" / "config.json")
        # Which files transformers writes for a tokenizer changes between releases, so they are replaced.
        shutil.rmtree(finished / "tokenizer")
        write_tokenizer(finished / "tokenizer")
        for file in finished.rglob("*.safetensors"):
            file.chmod(0o644)
        shutil.rmtree(folder)
        finished.rename(folder)


def restore_prefix(path: Path) -> None:
    """Rename the text encoder's tensors as in SD1.5's file.

    transformers 5 omits the prefix that older releases and ComfyUI expect, but reads both forms.
    """
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def forget_origin(path: Path) -> None:
    """Remove from a part's config the folder that it was loaded from."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


STAGES = {
    "vae": (make_vae,),
    "denoiser": (make_denoiser,),
    "model": (make_vae, make_denoiser),
    "dataset": (make_dataset,),
    "all": (make_vae, make_denoiser, make_dataset),
}


def main() -> None:
    """Run the stage named on the command line, or all stages by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?", choices=STAGES, default="all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    for make in STAGES[arguments.stage]:
        make(seed=arguments.seed)


if __name__ == "__main__":
    main()
