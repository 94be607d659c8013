"""The LoRA Stack node in a real ComfyUI, with hand-written input, as from API users."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file
from server import PromptFailed

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def lora_files(server):
    folder = server.base / "models" / "loras"
    (folder / "styles").mkdir()
    for name in ("ink.safetensors", "styles/oil.safetensors"):
        save_file({"tensor": np.zeros(1, np.float32)}, folder / name)
    (folder / "old.pt").write_bytes(b"any")
    (server.base / "models" / "outside.safetensors").write_bytes(b"any")
    return folder


def row(name, strength_model=1.0, **more):
    return {"name": name, "strength_model": strength_model, **more}


def shown_stack(server, graph, stack):
    graph.show("stack", stack["lora_stack"])
    return json.loads(server.run(graph.prompt).texts["stack"])


def test_rows_follow_the_incoming_stack_and_idle_ones_are_left_out(server, new_graph, lora_files):
    graph = new_graph()
    first = graph.add("CrucibleLoRAStack", loras=json.dumps([row("styles/oil.safetensors", 0.5, strength_clip=0)]))
    rows = [
        row("ink.safetensors", 0.8),
        row("ink.safetensors", 0.7, enabled=False),
        row("gone.safetensors", 0.6, enabled=False),
        row("styles/oil.safetensors", 0),
    ]
    second = graph.add("CrucibleLoRAStack", loras=json.dumps(rows), lora_stack=first["lora_stack"])
    assert shown_stack(server, graph, second) == [["styles/oil.safetensors", 0.5, 0.0], ["ink.safetensors", 0.8, 0.8]]


def test_a_node_without_rows_passes_the_stack_on(server, new_graph, lora_files):
    graph = new_graph()
    first = graph.add("CrucibleLoRAStack", loras=json.dumps([row("ink.safetensors", 0.3)]))
    second = graph.add("CrucibleLoRAStack", lora_stack=first["lora_stack"])
    assert shown_stack(server, graph, second) == [["ink.safetensors", 0.3, 0.3]]


def test_rows_may_come_from_another_node(server, new_graph, lora_files):
    graph = new_graph()
    text = graph.add("PrimitiveString", value=json.dumps([row("ink.safetensors", 0.4)]))["STRING"]
    assert shown_stack(server, graph, graph.add("CrucibleLoRAStack", loras=text)) == [["ink.safetensors", 0.4, 0.4]]


@pytest.mark.parametrize(
    ("loras", "facts"),
    [
        ("ink.safetensors", ["not valid JSON", "Write a list like"]),
        (json.dumps([row("inc.safetensors")]), ["'inc.safetensors' is not in", "Similar names are ink.safetensors"]),
        (json.dumps([row("ink.safetensors"), row("")]), ["Row 2 of the LoRA stack", "names no file", "Choose one"]),
        (json.dumps([row("old.pt")]), ["'old.pt' is not a .safetensors file"]),
        (json.dumps([row("../outside.safetensors")]), ["../outside.safetensors", "is not in ComfyUI's LoRA folders"]),
        (json.dumps([row("../ink.safetensors")]), ["../ink.safetensors", "is not in ComfyUI's LoRA folders"]),
        (json.dumps([row("styles\\..\\ink.safetensors")]), ["is not in ComfyUI's LoRA folders"]),
        (json.dumps([row("/ink.safetensors")]), ["/ink.safetensors", "is not in ComfyUI's LoRA folders"]),
        (json.dumps([row("C:/ink.safetensors")]), ["C:/ink.safetensors", "is not in ComfyUI's LoRA folders"]),
    ],
)
def test_mistakes_are_named(server, new_graph, lora_files, loras, facts):
    graph = new_graph()
    graph.show("stack", graph.add("CrucibleLoRAStack", loras=loras)["lora_stack"])
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    for fact in facts:
        assert fact in failed.value.message


def test_a_changed_file_runs_the_node_again(server, new_graph, lora_files):
    graph = new_graph()
    stack = graph.add("CrucibleLoRAStack", loras=json.dumps([row("ink.safetensors", 0.9)]))
    graph.show("stack", stack["lora_stack"])
    server.run(graph.prompt)
    assert stack.id in server.run(graph.prompt).cached
    os.utime(lora_files / "ink.safetensors", (1, 1))
    assert stack.id not in server.run(graph.prompt).cached
