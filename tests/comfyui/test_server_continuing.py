"""The Train LoRA node with a LoRA to continue from, in a real ComfyUI."""

import os

import pytest
import torch
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import lora_layer, read_lora
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import read_layers
from safetensors.torch import save_file
from server import PromptFailed, largest_difference

pytestmark = pytest.mark.comfyui

TOLERANCE = 2
"""The largest difference allowed between two ways to draw the same image in float32, of 255."""


def training(new_graph, name, continue_from):
    graph = new_graph()
    trained = graph.train(name, max_train_steps=2)
    graph.prompt[trained.id]["inputs"]["continue_from"] = continue_from
    graph.show("report", trained["report"])
    graph.add("SaveImage", "samples", images=trained["samples"], filename_prefix="samples")
    graph.draw("by LoraLoader", graph.core_lora("begun.safetensors")["MODEL"])
    graph.draw("base", graph.model)
    return graph.prompt, trained.id


@pytest.fixture(scope="module")
def begun(server, new_graph):
    graph = new_graph()
    trained = graph.train("begun")
    graph.show("lora_name", trained["lora_name"])
    assert server.run(graph.prompt).texts["lora_name"] == "begun.safetensors"


@pytest.fixture(scope="module")
def theirs(server, begun):
    """The same LoRA in diffusers' format, which ComfyUI's loader does not recognise, in the folder for downloads."""
    demo = ARCHITECTURES["demo"]
    tensors, _ = read_lora(server.output / "loras" / "begun.safetensors")
    converted = to_form(read_layers(tensors, lambda name: place_of(name, demo)), demo, "diffusers")
    file = server.base / "models" / "loras" / "theirs.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in converted.items()}, file)
    return file


@pytest.mark.parametrize("name", ["begun.safetensors", "theirs.safetensors"])
def test_training_starts_where_the_file_is(server, new_graph, theirs, name):
    assert name in server.options("CrucibleTrainLoRA", "continue_from")
    assert server.options("CrucibleTrainLoRA", "continue_from")[0] == "None"
    outputs = server.run(training(new_graph, "continued", name)[0])
    by_loader, base = outputs.pictures["by LoraLoader"][0], outputs.pictures["base"][0]
    assert largest_difference(outputs.pictures["samples"][0], by_loader) <= TOLERANCE
    assert largest_difference(base, by_loader) > 10 * TOLERANCE
    assert f"Continued from {name.removesuffix('.safetensors')}: LoRA" in outputs.texts["report"]


def test_a_file_that_was_replaced_is_trained_anew(server, new_graph, theirs):
    tensors, _ = read_lora(theirs)
    file = theirs.with_stem("changing")
    save_file(tensors, file)
    prompt, node = training(new_graph, "replaced", file.name)
    server.run(prompt)
    assert node in server.run(prompt).cached
    save_file({key: tensor * 1.5 for key, tensor in tensors.items()}, file)
    os.utime(file, (1, 1))
    again = server.run(prompt)
    assert node not in again.cached
    assert "Nothing was trained" not in again.texts["report"]


def test_a_lora_for_another_model(server, new_graph, begun):
    layers = {
        f"lora_unet_double_blocks_{block}_img_attn_proj": lora_layer(torch.ones(4, 4), torch.ones(4, 4), 4)
        for block in (0, 1)
    }
    tensors = {key + suffix: tensor for key, layer in layers.items() for suffix, tensor in layer.items()}
    save_file(tensors, server.base / "models" / "loras" / "flux.safetensors")
    with pytest.raises(PromptFailed) as failed:
        server.run(training(new_graph, "wrong", "flux.safetensors")[0])
    assert "Flux.1" in failed.value.message
    assert "the demo model" in failed.value.message
    assert not (server.output / "crucible" / "wrong").exists()
