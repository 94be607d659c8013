"""Base models in single files, opened by ComfyUI's loaders without a graph, for all architectures in small files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import folder_paths
import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.errors import CrucibleError
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.models.comfyui.model_files import CLIP_TYPES, open_files
from lora_crucible.training.plan import plan_run
from lora_crucible.training.refusals import refuse_unsuitable
from safetensors.torch import save_file
from tiny_architectures import TINY
from tiny_files import AS_FILE, TOO_LARGE, tiny_model, vae, weights_of


def tiny_as_file(name: str, folder: Path, prefix: str = "") -> tuple[Any, Path]:
    """Write the diffusion model of an architecture, and return it as MODEL with its file."""
    model = tiny_model(name)
    path = folder / f"{name}.safetensors"
    save_file({prefix + key: weight for key, weight in weights_of(model).items()}, path)
    return model, path


@pytest.fixture(scope="module")
def vae_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    save_file(vae(), path)
    return str(path)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Files of text encoders, whose real sizes are too large for tests; what loads them only keeps what it was told."""

    def load_clip(ckpt_paths, embedding_directory, clip_type):
        return SimpleNamespace(cond_stage_model=torch.nn.Module(), paths=ckpt_paths, clip_type=clip_type)

    monkeypatch.setattr(comfy.sd, "load_clip", load_clip)
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for path in paths:
        save_file({"weight": torch.zeros(1)}, path)
    return [str(path) for path in paths]


def opened(base_model: str | Path, text_encoders=(), clip_type=None, vae=None) -> tuple[ComfyUIBaseModel, list[str]]:
    said: list[str] = []
    return open_files(str(base_model), text_encoders, clip_type, vae, lambda: None, said.append), said


def test_every_architecture_is_tried_or_too_large():
    assert AS_FILE.keys() | TOO_LARGE.keys() == TINY.keys()
    assert not AS_FILE.keys() & TOO_LARGE.keys()


@pytest.mark.parametrize("name", AS_FILE)
def test_opens_a_diffusion_model(name: str, tmp_path: Path, encoders: list[str], vae_file: str):
    model, path = tiny_as_file(name, tmp_path)
    base_model, said = opened(path, encoders, vae=vae_file)
    architecture = TINY[name].architecture or name
    assert base_model.architecture.id == architecture
    assert base_model._clip.paths == encoders
    assert base_model._clip.clip_type.name.lower() == CLIP_TYPES[architecture]
    assert said == [
        f"clip_type is not set; {CLIP_TYPES[architecture]} is taken, which suits {base_model.architecture.name}."
    ]
    with_same_parts = ComfyUIBaseModel(model, base_model._clip, base_model._vae)
    assert base_model.identity() == with_same_parts.identity()
    assert base_model.layer_shapes() == with_same_parts.layer_shapes()


def test_the_demo_model_is_that_of_the_node(demo):
    assert opened("demo")[0].identity() == ComfyUIBaseModel(*demo).identity()


def test_a_clip_type_of_ones_own(tmp_path: Path, encoders: list[str], vae_file: str):
    _, path = tiny_as_file("sd3", tmp_path)
    base_model, said = opened(path, encoders, "Flux", vae_file)
    assert base_model._clip.clip_type is comfy.sd.CLIPType.FLUX
    assert said == []
    with pytest.raises(CrucibleError, match=r"clip_type is fluxx, which this ComfyUI does not know.*mean flux\?"):
        opened(path, encoders, "fluxx", vae_file)
    with pytest.raises(CrucibleError, match="clip_type is flux, but no text_encoders are set"):
        opened(path, (), "flux", vae_file)


def test_a_checkpoint_without_text_encoder_and_vae_says_what_to_add(tmp_path: Path, encoders: list[str], vae_file: str):
    _, path = tiny_as_file("sd15", tmp_path, prefix="model.diffusion_model.")
    with pytest.raises(CrucibleError) as refused:
        opened(path)
    for fact in (str(path), "no text encoder and no VAE", "Add text_encoders with", "and vae with"):
        assert fact in str(refused.value)
    with pytest.raises(CrucibleError, match="has no VAE, and without"):
        opened(path, encoders)
    assert opened(path, encoders, vae=vae_file)[0].architecture.id == "sd15"


def test_files_are_found_by_name_in_the_model_folders(
    tmp_path: Path, encoders: list[str], vae_file: str, monkeypatch: pytest.MonkeyPatch
):
    _, path = tiny_as_file("sd3", tmp_path)
    listed = tmp_path / "models" / "checkpoints" / "old"
    listed.mkdir(parents=True)
    path.rename(listed / "sd3.safetensors")
    kinds = {kind: list(paths) for kind, (paths, _) in folder_paths.folder_names_and_paths.items()}
    kinds["checkpoints"].append(str(listed.parent))
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: kinds[kind])
    found = {"checkpoints": {"old/sd3.safetensors": str(listed / "sd3.safetensors")}}
    monkeypatch.setattr(folder_paths, "get_full_path", lambda kind, name: found.get(kind, {}).get(name))
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda kind: list(found.get(kind, {})))
    for written in ("old/sd3.safetensors", "/from/another/machine/old/sd3.safetensors"):
        base_model, said = opened(written, encoders, "sd3", vae_file)
        assert base_model.architecture.id == "sd3"
        assert said == [
            f"base_model = {written} is not a file here; found in ComfyUI's folders: {listed / 'sd3.safetensors'}"
        ]
    with pytest.raises(CrucibleError) as refused:
        opened("sd3.safetensors", encoders, "sd3", vae_file)
    for fact in ("base_model is sd3.safetensors", str(listed.parent), "ComfyUI has old/sd3.safetensors"):
        assert fact in str(refused.value)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, ("base_model names", "lora.safetensors", "cannot open")),
        (None, ("base_model is", "pickled.ckpt", "not a .safetensors file", "Save Checkpoint")),
    ],
    ids=["a LoRA", "a pickle"],
)
def test_what_is_no_model(tmp_path: Path, content: dict[str, torch.Tensor] | None, facts: tuple[str, ...]):
    path = tmp_path / ("pickled.ckpt" if content is None else "lora.safetensors")
    path.write_bytes(b"x") if content is None else save_file(content, path)
    with pytest.raises(CrucibleError) as refused:
        opened(path)
    for fact in facts:
        assert fact in str(refused.value)


def test_the_commands_function_stops_a_batch_and_a_sample(demo):
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    base_model = ComfyUIBaseModel(*demo, stop)
    with base_model.session("fp32"), pytest.raises(Stopped):
        base_model.losses([], [])


def test_check_leaves_a_model_as_it_was(demo, dataset, tmp_path: Path):
    """What `check` does with a model that is in no session."""
    base_model = ComfyUIBaseModel(*demo)
    before = base_model.identity()
    plan = plan_run(base_model, dataset, parse_config({"train_text_encoder": True}))
    refuse_unsuitable(base_model, plan, tmp_path)
    assert base_model.identity() == before
    assert not any("lora" in name for name, _ in demo[0].model.named_parameters())
