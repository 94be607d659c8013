"""Datasets from various sources in a real ComfyUI."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.demo import DATASET_DIR
from PIL import Image
from server import PromptFailed, Server
from workflows import DemoGraph

pytestmark = pytest.mark.comfyui

QUICK = {"max_train_steps": 2, "sample_prompts": "crux", "sample_steps": 2}


def put_demo(folder: Path) -> Path:
    """Copy the demo's images and captions to a folder, as if they were a user's own."""
    shutil.copytree(DATASET_DIR, folder)
    return folder


def test_report_counts_tokens_and_latents_with_clip_and_vae(server, new_graph):
    folder = put_demo(server.base / "input" / "counted")
    graph = new_graph()
    plain = graph.add("CrucibleLoadDataset", train_data_dir=f"input/{folder.name}", resolution=64)
    exact = graph.add(
        "CrucibleLoadDataset", train_data_dir=f"input/{folder.name}", resolution=64, clip=graph.clip, vae=graph.vae
    )
    graph.show("plain", plain["report"])
    graph.show("exact", exact["report"])
    texts = server.run(graph.prompt).texts
    assert "an estimate for CLIP" in texts["plain"]
    assert "latents" not in texts["plain"]
    assert "counted by " in texts["exact"]
    assert "64 x 64: 20 (latents 8 x 8)" in texts["exact"]


def test_any_folder_can_be_pasted_while_nobody_else_can_reach_the_server(server, new_graph, tmp_path):
    folder = put_demo(tmp_path / "elsewhere 猫")
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", path=f'"{folder}"')
    graph.show("report", dataset["report"])
    assert f"Folder: {folder}" in server.run(graph.prompt).texts["report"]
    for path, part in (("input/counted", "not an absolute path"), (str(tmp_path / "gone"), "does not exist")):
        graph = new_graph()
        graph.show("report", graph.add("CrucibleLoadDataset", path=path)["report"])
        with pytest.raises(PromptFailed) as failed:
            server.run(graph.prompt)
        assert part in failed.value.message


def test_a_pasted_folder_is_refused_when_others_can_reach_the_server(comfyui_path, prepared_python, tmp_path):
    folder = put_demo(tmp_path / "elsewhere")
    server = Server(comfyui_path, prepared_python, tmp_path / "comfyui", "--listen", "0.0.0.0")
    try:
        graph = DemoGraph(server.get("/object_info"))
        graph.show("report", graph.add("CrucibleLoadDataset", path=str(folder))["report"])
        with pytest.raises(PromptFailed) as failed:
            server.run(graph.prompt)
    finally:
        server.stop()
    for part in (str(folder), "listens on 0.0.0.0", "extra_model_paths.yaml"):
        assert part in failed.value.message


def test_images_of_core_nodes_become_a_dataset(server, new_graph):
    folder = put_demo(server.base / "input" / "for_core")
    graph = new_graph()
    loaded = graph.add("LoadImageTextDataSetFromFolder", folder=folder.name)
    inverted = graph.add("ImageInvert", image=loaded["images"])
    dataset = graph.add(
        "CrucibleDatasetFromImages", images=inverted["IMAGE"], texts=loaded["texts"], trigger_word="crux", resolution=64
    )
    graph.show("dataset", dataset["report"])
    graph.add("PreviewImage", "preview", images=dataset["preview"])
    trained = graph.train("from_images", dataset=dataset["dataset"], **QUICK)
    graph.show("report", trained["report"])
    graph.show("yaml", graph.add("CrucibleConfigureLoRA", dataset=dataset["dataset"])["yaml"])
    outputs = server.run(graph.prompt)
    assert "20 images" in outputs.texts["dataset"]
    assert "64 x 64: 20" in outputs.texts["dataset"]
    assert "from images, 20 images at 64 px" in outputs.texts["report"]
    assert outputs.texts["yaml"].startswith("# The images of this dataset come from other nodes")
    assert (server.output / "loras" / "from_images.safetensors").exists()


def test_as_many_texts_as_images(server, new_graph):
    graph = new_graph()
    images = graph.add("EmptyImage", width=64, height=64, batch_size=3)
    text = graph.add("PrimitiveString", value="a grey wall")
    one = graph.add("CrucibleDatasetFromImages", images=images["IMAGE"], texts=text["STRING"])
    graph.show("report", one["report"])
    assert "3 images" in server.run(graph.prompt).texts["report"]
    none = new_graph()
    images = none.add("EmptyImage", width=64, height=64)
    none.train("never", dataset=none.add("CrucibleDatasetFromImages", images=images["IMAGE"])["dataset"])
    with pytest.raises(PromptFailed) as failed:
        server.run(none.prompt)
    assert "1 image has no caption" in failed.value.message


def test_masks_regularization_and_several_resolutions_are_trained(server, new_graph):
    folder = put_demo(server.base / "input" / "masked")
    put_demo(server.base / "input" / "reg")
    for number in range(10):
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[16:48, 16:48] = 255
        Image.fromarray(mask).save(folder / f"{number:02}.mask.png")
    graph = new_graph()
    dataset = graph.add(
        "CrucibleLoadDataset",
        train_data_dir="input/masked",
        trigger_word="crux",
        resolution=64,
        extra_resolutions="128",
        allow_upscaling=True,
        mask_source="file",
        reg_data_dir="input/reg",
        prior_loss_weight=0.5,
        horizontal_flip=True,
        shuffle_caption=True,
        caption_dropout_rate=0.1,
        validation_percent=10,
    )
    graph.show("dataset", dataset["report"])
    graph.show("report", graph.train("everything", dataset=dataset["dataset"], **QUICK)["report"])
    texts = server.run(graph.prompt).texts
    for part in ("Regularization: 20 images", "128 x 128", "have no mask file"):
        assert part in texts["dataset"]
    assert "finished after 2 of 2 steps" in texts["report"]
    assert " encoded, " in texts["report"]
    again = server.run({**graph.prompt, **_renamed(graph)}).texts
    assert "Cache: 0 encoded" in again["report"]


def _renamed(graph: DemoGraph) -> dict:
    """Return the training nodes with another output name, so that ComfyUI runs them again."""
    return {
        key: {**node, "inputs": {**node["inputs"], "output_name": "again"}}
        for key, node in graph.prompt.items()
        if node["class_type"] == "CrucibleTrainLoRA"
    }
