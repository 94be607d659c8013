"""Image models by name on the hub, with a stand-in for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import tiny_pipelines
from huggingface_hub import constants
from lora_crucible.cli.main import main
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusers.pipeline_files import wanted_files
from lora_crucible.models.diffusers.resolve import open_source

NOT_NEEDED = (
    "README.md",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.bin.index.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/openvino_model.xml",
    "safety_checker/model.safetensors",
    "scripts/run.py",
)

SHARDS = [
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
]


class Hub:
    """A hub with one pipeline, and beside it what its repository would also have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

    def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        sizes = {name: (self.folder / name).stat().st_size for name in self.names} | dict.fromkeys(NOT_NEEDED, 10**9)
        return SimpleNamespace(
            sha="abc", siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
        )

    def download(self, repo: str, name: str, *, revision: str, local_dir: Path) -> str:
        self.fetched.append(name)
        (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (local_dir / name).write_bytes((self.folder / name).read_bytes())
        return str(local_dir / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tiny_pipelines.saved("sd15", tmp_path / "of_the_hub"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return hub


def test_only_what_the_pipeline_needs_is_downloaded_and_only_if_asked_for(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match="--download to fetch it"):
        open_source("owner/painter")
    assert hub.fetched == []
    said: list[str] = []
    source = open_source("owner/painter", download=True, announce=said.append)
    assert (source.name, source.path) == (
        "owner/painter",
        tmp_path / "home" / "lora_crucible" / "image_models" / "owner--painter",
    )
    assert sorted(hub.fetched) == sorted(hub.names)
    assert "Downloading owner/painter" in said[0]
    assert "0.00 GB" in said[0]  # the gigabytes beside it are not fetched
    fetched = len(hub.fetched)
    assert open_source("owner/painter").path == source.path
    assert len(hub.fetched) == fetched


def test_a_model_that_cannot_be_trained_is_refused_before_its_weights_are_downloaded(hub: Hub) -> None:
    index = hub.folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    with pytest.raises(CrucibleError, match="a model for inpainting"):
        open_source("owner/painter", download=True)
    assert hub.fetched
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_name_that_has_moved_names_its_successor(hub: Hub) -> None:
    for download in (False, True):
        with pytest.raises(CrucibleError, match=r"is now stable-diffusion-v1-5/stable-diffusion-v1-5\. Set base_model"):
            open_source("runwayml/stable-diffusion-v1-5", download=download)
    assert hub.fetched == []


def test_a_name_may_tell_of_a_distilled_model(hub: Hub) -> None:
    (warning,) = open_source("owner/sdxl-turbo", download=True).warnings
    assert "owner/sdxl-turbo" in warning


def test_hugging_faces_own_cache_is_used_if_it_has_all_weights(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: str(hub.folder / name))
    assert open_source("owner/painter").path == hub.folder
    (hub.folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CrucibleError, match="not on this computer yet"):
        open_source("owner/painter")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["unet/diffusion_pytorch_model.bin"], []),
        (["unet/diffusion_pytorch_model.fp16.safetensors"], ["unet/diffusion_pytorch_model.fp16.safetensors"]),
        ([*SHARDS, "transformer/diffusion_pytorch_model.safetensors.index.fp16.json"], SHARDS),
        (["vae/model.safetensors", "text_encoder/pytorch_model.bin"], []),
    ],
)
def test_one_set_of_weights_is_chosen_for_each_part(names: list[str], expected: list[str]) -> None:
    assert sorted(wanted_files(["model_index.json", *names])) == sorted(
        expected + ["model_index.json"] * bool(expected)
    )


def test_the_command_line_downloads_image_models(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("base_model: owner/painter\ntrain_data_dir: demo\nresolution: 64\noutput_dir: out\n")
    assert main(["check", str(config)]) != 0
    assert "--download" in capsys.readouterr().err
    assert main(["check", str(config), "--download"]) == 0, capsys.readouterr().err
    assert "Downloading owner/painter" in "".join(capsys.readouterr())


def test_a_missing_file_says_where_a_comfyui_would_look(tmp_path: Path) -> None:
    (tmp_path / "painter.safetensors").touch()
    with pytest.raises(CrucibleError) as error:
        open_source(str(tmp_path / "paintre.safetensors"))
    for fact in ("no such file", "paintre.safetensors", "painter.safetensors", "COMFYUI_PATH"):
        assert fact in str(error.value)
