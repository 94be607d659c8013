"""A run that Train LoRA saves as a folder trains the same from the command line, wherever the folder is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_captioners as tiny
from command_line import losses, typed
from PIL import Image
from server import PromptFailed
from workflows import SHORT_TRAINING

pytestmark = pytest.mark.comfyui

SAME_LOSS = 1e-4
SETTINGS = {**SHORT_TRAINING, "max_train_steps": 4, "batch_size": 2, "sample_prompts": "crux", "sample_steps": 1}
IN_PROCESS = Path(__file__).parent / "in_process"


@pytest.fixture(scope="module")
def pictures(server):
    """The names of pictures in ComfyUI's input folder."""
    names = [f"picture {seed}.png" for seed in range(4)]
    for seed, name in enumerate(names):
        tiny.picture(seed, (64, 64)).save(server.base / "input" / name)
    return names


@pytest.fixture(scope="module")
def model_files(server, comfyui_path, prepared_python, tmp_path_factory):
    """Small files of a Flux, its text encoder and its VAE, which are put into ComfyUI's model folders."""
    folder = tmp_path_factory.mktemp("models")
    paths = os.pathsep.join(map(str, (IN_PROCESS, IN_PROCESS.parents[1] / "trainer")))
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "PYTHONPATH": paths}
    subprocess.run([prepared_python, IN_PROCESS / "write_models.py", folder], env=environment, check=True)
    for name, kind in (("flux1", "diffusion_models"), ("clip_l", "text_encoders"), ("vae", "vae")):
        place = server.base / "models" / kind / "tiny"
        place.mkdir(parents=True)
        shutil.copy(folder / f"{name}.safetensors", place)
    return server.base / "models"


def changed_and_captioned(graph, pictures):
    """Add a dataset of pictures that core's nodes have changed, captioned by Auto Caption, and return its link."""
    first, second, *others = (graph.add("LoadImage", image=name)["IMAGE"] for name in pictures)
    batch = graph.add("ImageInvert", image=first)["IMAGE"]
    larger = graph.add("ImageScale", image=second, upscale_method="bilinear", width=96, height=64, crop="disabled")
    resized = graph.add(
        "ImageScale", image=larger["IMAGE"], upscale_method="bilinear", width=64, height=64, crop="center"
    )
    for one in (resized["IMAGE"], *others):
        batch = graph.add("ImageBatch", image1=batch, image2=one)["IMAGE"]
    dataset = graph.add(
        "CrucibleDatasetFromImages", images=batch, trigger_word="crux", resolution=64, validation_percent=25
    )
    captioned = graph.add("CrucibleAutoCaption", dataset=dataset["dataset"], captioner="tiny-blip", max_length=4)
    return captioned["dataset"]


def add_training(graph, name, dataset, model, clip, vae, node_id=None, **inputs):
    config = graph.add("CrucibleConfigureLoRA", **SETTINGS)
    parts = {"model": model, "clip": clip, "vae": vae, "dataset": dataset, "config": config["config"]}
    return graph.add("CrucibleTrainLoRA", node_id, **parts, output_name=name, **inputs)


def moved(server, name, tmp_path):
    """Move a saved run to another folder, so that nothing of where it was saved can be needed."""
    return Path(shutil.move(server.output / "crucible" / f"{name}_run", tmp_path / "another computer"))


def test_changed_pictures_and_new_captions(server, new_graph, pictures, tmp_path):
    tiny.blip(server.base / "models" / "captioners" / "tiny-blip")
    graph = new_graph()
    dataset = changed_and_captioned(graph, pictures)
    parts = (dataset, graph.model, graph.clip, graph.vae)
    add_training(graph, "changed", *parts)
    saved = add_training(graph, "changed", *parts, node_id="saved", save_run=True)
    graph.draw("with the LoRA", saved["model"], saved["clip"])
    outputs = server.run(graph.prompt)
    trained = losses(server.output / "crucible" / "changed")
    report = outputs.texts["saved"]
    for fact in ("Nothing was trained", "3 to train, 1 held out", "4 images of other nodes saved as PNG"):
        assert fact in report
    assert "with the LoRA" not in outputs.pictures  # nothing is drawn with a LoRA that there is not
    run = moved(server, "changed", tmp_path)
    rows = [json.loads(line) for line in (run / "images" / "metadata.jsonl").read_text().splitlines()]
    assert all(row["text"][0].startswith("crux, word") for row in rows)
    with Image.open(server.base / "input" / pictures[0]) as image:
        assert np.array_equal(np.array(Image.open(run / "images" / "1.png")), 255 - np.array(image))
    typed("train", run / "config.yaml")
    assert losses(run / "output" / "changed") == pytest.approx(trained, rel=SAME_LOSS)
    assert len(trained) == 4


def test_a_model_from_files(server, new_graph, model_files, comfyui_path, prepared_python, tmp_path):
    graph = new_graph()
    model = graph.add("UNETLoader", unet_name="tiny/flux1.safetensors", weight_dtype="default")["MODEL"]
    clip = graph.add("CLIPLoader", clip_name="tiny/clip_l.safetensors", type="stable_diffusion")["CLIP"]
    vae = graph.add("VAELoader", vae_name="tiny/vae.safetensors")["VAE"]
    dataset = graph.add("CrucibleLoadDataset", resolution=64)["dataset"]
    add_training(graph, "files", dataset, model, clip, vae)
    add_training(graph, "files", dataset, model, clip, vae, node_id="saved", save_run=True)
    report = server.run(graph.prompt).texts["saved"]
    assert "names in ComfyUI's model folders" in report
    run = moved(server, "files", tmp_path)
    written = (run / "config.yaml").read_text()
    for line in (
        "base_model: tiny/flux1.safetensors",
        "text_encoders: tiny/clip_l.safetensors",
        "clip_type: stable_diffusion",
        "vae: tiny/vae.safetensors",
    ):
        assert line in written.splitlines()
    for kind in ("diffusion_models", "text_encoders", "vae"):
        shutil.copytree(model_files / kind / "tiny", run / "tiny", dirs_exist_ok=True)
    typed("train", run / "config.yaml", comfyui=comfyui_path, python=prepared_python)
    trained = losses(server.output / "crucible" / "files")
    assert losses(run / "output" / "files") == pytest.approx(trained, rel=SAME_LOSS)


def test_a_second_one_gets_a_number(server, new_graph):
    for seed in (1, 2):
        graph = new_graph()
        graph.prompt[graph.train("twice", seed=seed).id]["inputs"]["save_run"] = True
        server.run(graph.prompt)
    saved = [server.output / "crucible" / name / "config.yaml" for name in ("twice_run", "twice_run_2")]
    assert [f"seed: {seed}" in path.read_text() for seed, path in enumerate(saved, start=1)] == [True, True]
    assert not (server.output / "loras" / "twice.safetensors").exists()


def test_what_cannot_be_repeated_is_refused(server, new_graph):
    graph = new_graph()
    graph.train("base")
    server.run(graph.prompt)
    graph = new_graph()
    lora = graph.core_lora("base.safetensors")
    dataset = graph.add("CrucibleLoadDataset")["dataset"]
    add_training(graph, "refused", dataset, lora["MODEL"], graph.clip, graph.vae, save_run=True)
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    for fact in ("cannot be saved", "model comes from LoraLoader", "merge --into", "continue_from"):
        assert fact in failed.value.message
    graph = new_graph()
    patched = graph.add("FreeU", model=graph.model)["MODEL"]
    dataset = graph.add("CrucibleLoadDataset")["dataset"]
    add_training(graph, "refused", dataset, patched, graph.clip, graph.vae, save_run=True)
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    for fact in ("model comes from FreeU", "cannot repeat", "Load Diffusion Model"):
        assert fact in failed.value.message
    assert not list((server.output / "crucible").glob("refused*"))
