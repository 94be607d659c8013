"""Base models in single files, through diffusers' own loaders."""

from __future__ import annotations

import shutil
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import tiny_pipelines
import torch
from lora_crucible.cli.main import main
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.layer_names import diffusers_unet_to_sgm
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.models.diffusers.resolve import open_source
from safetensors.torch import save_file

WIDTH = 768
"""The width of SD1.5's text embeddings, by which it is recognized."""


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))


def in_original_names(unet: diffusers.UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Return the weights of a UNet as the original code names them."""
    found = {}
    for name, weight in unet.state_dict().items():
        path, _, kind = name.rpartition(".")
        native = diffusers_unet_to_sgm(path, 1, (0,))
        found[f"model.diffusion_model.{native}.{kind}"] = weight.contiguous()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline with SD1.5's width of text embeddings."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    pipeline = tiny_pipelines.pipeline("sd15", tiny_pipelines.randomise(unet))
    pipeline.register_modules(text_encoder=tiny_pipelines.clip(WIDTH))
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def checkpoint(folder: Path) -> Path:
    """The UNet and the text encoder of the folder in one file beside it; the folder keeps its configs and its VAE."""
    whole = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    tensors = in_original_names(whole.unet)
    for name, weight in whole.text_encoder.state_dict().items():
        name = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{name}"] = weight.contiguous()
    save_file(tensors, folder.with_suffix(".safetensors"))
    return folder.with_suffix(".safetensors")


def test_a_file_is_the_model_of_its_folder(folder: Path, checkpoint: Path) -> None:
    of_folder = DiffusersBaseModel(str(folder))
    identities = of_folder.identity(), of_folder.encoders_identity()
    for part in ("unet", "text_encoder"):
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
    of_file = DiffusersBaseModel(str(checkpoint))
    assert of_file.name == "model.safetensors"
    assert of_file.facts == of_folder.facts
    assert (of_file.identity(), of_file.encoders_identity()) == identities
    outline = DiffusersBaseModel(str(checkpoint), weights=False)
    assert outline.layer_shapes() == of_file.layer_shapes()


def test_missing_pieces_are_named_with_their_place(folder: Path, checkpoint: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CrucibleError) as error:
        open_source(str(checkpoint))
    missing = ("tokenizer/ (all of it)", "scheduler/scheduler_config.json", "vae/ with its weights")
    for fact in (*missing, f"into {folder}", "stable-diffusion-v1-5/stable-diffusion-v1-5", "COMFYUI_PATH"):
        assert fact in str(error.value)
    assert "unet/config.json" not in str(error.value)
    shutil.rmtree(folder)
    with pytest.raises(CrucibleError) as error:
        open_source(str(checkpoint))
    for fact in ("model_index.json", "unet/config.json", "text_encoder/config.json", "tokenizer/", f"into {folder}"):
        assert fact in str(error.value)


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("x.ckpt", [], "is a PyTorch pickle, not a .safetensors file.*pickles can run code.*Save Checkpoint"),
        ("x.gguf", [], "is a GGUF file"),
        ("x.ggml", [], "is a GGML file"),
        ("x.safetensors", ["lora_unet_mid_block_attn.lora_down.weight"], "is a LoRA"),
        ("x.safetensors", ["encoder.conv_in.weight", "decoder.conv_in.weight"], "is a VAE"),
        ("x.safetensors", ["text_model.encoder.layers.0.mlp.fc1.weight"], "is a text encoder"),
        ("x.safetensors", ["nothing.weight"], "is no model"),
    ],
)
def test_other_files_are_refused_by_what_they_are(name: str, keys: list[str], expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if keys:
        save_file({key: torch.ones(8, 8) for key in keys}, path)
    else:
        path.write_bytes(b"GGUF or PK")
    with pytest.raises(CrucibleError, match=expected):
        open_source(str(path))


def test_files_that_only_comfyui_uses_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"base_model: {checkpoint}\nloader: diffusers\nvae: {checkpoint}\ntrain_data_dir: demo\n"
        f"resolution: 64\noutput_dir: {tmp_path / 'out'}\n"
    )
    assert main(["check", str(config)]) != 0
    assert "vae is set, but diffusers opens base_model" in capsys.readouterr().err
