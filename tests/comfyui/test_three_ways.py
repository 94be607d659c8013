"""One YAML trains the same in a graph, on the command line with ComfyUI's loaders, and there with diffusers."""

from __future__ import annotations

import shutil

import pytest
from command_line import losses, typed
from server import largest_difference
from workflows import PROMPT

pytestmark = pytest.mark.comfyui

YAML = f"""\
base_model: demo
train_data_dir: demo
network_dim: 8
max_train_steps: 12
batch_size: 4
learning_rate: 5e-3
seed: 7
sample_prompts: "{PROMPT}"
sample_steps: 2
save_precision: fp32
"""

SAME_LOSS, SAME_PICTURE = 1e-4, 2
"""The largest relative difference of a loss, and the largest difference of a pixel, of 255."""

PREFIX = "three_ways_"
"""What the names of the LoRAs begin with, because all tests share the server's folders."""


@pytest.fixture(scope="module")
def three_ways(server, new_graph, comfyui_path, prepared_python, tmp_path_factory):
    """The losses and the pictures of the three runs."""
    graph = new_graph()
    text = graph.add("PrimitiveStringMultiline", value=YAML)["STRING"]
    dataset = graph.add("CrucibleLoadDataset")
    config = graph.add("CrucibleConfigureLoRA", config_yaml=text)
    graph.add(
        "CrucibleTrainLoRA",
        model=graph.model,
        clip=graph.clip,
        vae=graph.vae,
        dataset=dataset["dataset"],
        config=config["config"],
        output_name=f"{PREFIX}graph",
    )
    server.run(graph.prompt)
    found = {"graph": losses(server.output / "crucible" / f"{PREFIX}graph")}
    listed = server.output / "loras"
    for loader in ("comfyui", "diffusers"):
        folder = tmp_path_factory.mktemp(loader)
        (folder / "one.yaml").write_text(f"{YAML}output_name: {PREFIX}{loader}\nloader: {loader}\n")
        said = typed("train", folder / "one.yaml", comfyui=comfyui_path, python=prepared_python)
        assert (f"Running in ComfyUI's Python ({prepared_python})" in said) == (loader == "comfyui")
        found[loader] = losses(folder / "output" / f"{PREFIX}{loader}")
        shutil.copy(folder / "output" / f"{PREFIX}{loader}.safetensors", listed)
    graph = new_graph()
    graph.draw("base", graph.model)
    for name in found:
        loaded = graph.core_lora(f"{PREFIX}{name}.safetensors")
        graph.draw(name, loaded["MODEL"], loaded["CLIP"])
    return found, server.run(graph.prompt).pictures


@pytest.mark.parametrize("way", ["comfyui", "diffusers"])
def test_the_losses_are_those_of_the_graph(three_ways, way):
    found, _ = three_ways
    assert len(found["graph"]) == 12
    assert found[way] == pytest.approx(found["graph"], rel=SAME_LOSS)


@pytest.mark.parametrize("way", ["comfyui", "diffusers"])
def test_the_pictures_are_those_of_the_graphs_lora(three_ways, way):
    _, pictures = three_ways
    assert largest_difference(pictures[way], pictures["graph"]) <= SAME_PICTURE
    assert largest_difference(pictures["graph"], pictures["base"]) > 20 * SAME_PICTURE
