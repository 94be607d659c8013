"""The Merge LoRA node in a real ComfyUI: the merged file draws the same images as its parts together."""

import json

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.demo import MODEL_DIR
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, lora_layer, read_lora
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import Layers
from safetensors.torch import load_file, save_file
from server import PromptFailed, largest_difference

pytestmark = pytest.mark.comfyui

DEMO = ARCHITECTURES["demo"]
STRENGTHS = {
    "kohya.safetensors": 0.6,
    "comfyui.safetensors": -0.3,
    "loha.safetensors": 0.4,
    "dora.safetensors": 0.5,
    "dora_of_both.safetensors": 1.0,
}
WITHOUT_DORA = list(STRENGTHS)[:3]
SIZE = 0.06


def lora(draw, weight):
    return lora_layer(draw(3, weight.shape[1]), draw(len(weight), 3), 3.0)


def loha(draw, weight):
    parts = {f".hada_w{n}_a": draw(len(weight), 4) for n in (1, 2)}
    return parts | {f".hada_w{n}_b": draw(4, weight.shape[1]) for n in (1, 2)} | {ALPHA: torch.tensor(4.0)}


def dora(draw, weight):
    return lora(draw, weight) | {DORA_SCALE: 1.1 * torch.linalg.vector_norm(weight, dim=1, keepdim=True)}


def layers(seed: int, method, parts: tuple[str, ...] = ("unet",)) -> Layers:
    """Return random layers for all attention layers of the given parts of the demo model."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        size = 0.5 if method is loha else SIZE
        return torch.randn(*shape, generator=generator) * size

    found = {}
    for part in parts:
        for name, weight in load_file(next((MODEL_DIR / part).glob("*.safetensors"))).items():
            if "attn" in name and name.endswith(".weight"):
                place = place_of(f"{part}.{name.removesuffix('.weight')}", DEMO)
                found[place.key] = method(draw, weight.float())
    return Layers(found)


@pytest.fixture(scope="module")
def files(server):
    folder = server.base / "models" / "loras"
    words = {"modelspec.trigger_phrase": "first word"}
    save_file(to_form(layers(1, lora), DEMO, "kohya"), folder / "kohya.safetensors", words)
    save_file(to_form(layers(2, lora), DEMO, "comfyui"), folder / "comfyui.safetensors")
    save_file(to_form(layers(3, loha), DEMO, "kohya"), folder / "loha.safetensors")
    save_file(to_form(layers(4, dora), DEMO, "kohya"), folder / "dora.safetensors")
    of_both = layers(5, dora, ("unet", "text_encoder"))
    save_file(to_form(of_both, DEMO, "kohya"), folder / "dora_of_both.safetensors")
    return folder


def chained(graph, names):
    """Apply LoRAs with ComfyUI's built-in nodes, one after another."""
    model = graph.model
    for name in names:
        model = graph.core_lora(name, model, STRENGTHS[name])["MODEL"]
    return model


def stacked(graph, names):
    stack = {}
    for name in names:
        stack = {"lora_stack": graph.lora(strength=STRENGTHS[name], lora_name=name, **stack)["lora_stack"]}
    return stack["lora_stack"]


@pytest.fixture(scope="module")
def merged(server, new_graph, files):
    graph = new_graph()
    graph.draw("base", graph.model)
    three = graph.add("CrucibleMergeLoRA", lora_stack=stacked(graph, WITHOUT_DORA), output_name="three", lora_rank=128)
    graph.draw("three chained", chained(graph, WITHOUT_DORA))
    graph.draw("three merged", graph.lora(lora=three["lora"])["model"])
    graph.show("three", three["info"])
    stack = stacked(graph, ["dora.safetensors"])
    dora = graph.add("CrucibleMergeLoRA", lora_stack=stack, output_name="of_dora", model=graph.model, lora_rank=128)
    graph.draw("dora", chained(graph, ["dora.safetensors"]))
    graph.draw("dora merged", graph.lora(lora=dora["lora"])["model"])
    return server.run(graph.prompt)


@pytest.mark.parametrize(("merged_one", "parts"), [("three merged", "three chained"), ("dora merged", "dora")])
def test_the_merged_lora_draws_what_its_parts_draw(merged, merged_one, parts):
    assert largest_difference(merged.pictures[merged_one], merged.pictures[parts]) <= 2
    assert largest_difference(merged.pictures["base"], merged.pictures[parts]) > 10


def test_the_file_of_the_merged_lora(server, merged):
    tensors, metadata = read_lora(server.output / "loras" / "three.safetensors")
    parents = json.loads(metadata["crucible.parents"])
    assert {parent["name"]: parent["strength_model"] for parent in parents} == {
        name: STRENGTHS[name] for name in WITHOUT_DORA
    }
    assert metadata["modelspec.trigger_phrase"] == "first word"
    assert "three.safetensors" in server.options("CrucibleLoadLoRA", "lora_name")
    assert all(key.startswith("lora_unet_") for key in tensors)


def test_what_the_node_says(merged):
    for part in ("Merged for the demo model", "0.6  kohya.safetensors", "-0.3  comfyui.safetensors", "first word"):
        assert part in merged.texts["three"]


def test_a_name_that_another_folder_has(server, new_graph, files):
    """With the same name, ComfyUI would find the other file first."""
    graph = new_graph()
    merged = graph.add("CrucibleMergeLoRA", lora_stack=stacked(graph, WITHOUT_DORA), output_name="kohya")
    graph.show("name", merged["lora_name"])
    assert server.run(graph.prompt).texts["name"] == "kohya_2.safetensors"


def test_a_dora_without_its_model(server, new_graph, files):
    graph = new_graph()
    graph.add("CrucibleMergeLoRA", lora_stack=stacked(graph, ["dora.safetensors"]), output_name="never")
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    assert "dora.safetensors at lora_unet_" in failed.value.message
    assert "Connect `model`" in failed.value.message
    assert not (server.output / "loras" / "never.safetensors").exists()


def test_a_dora_of_model_and_text_encoder(server, new_graph, files):
    graph, name = new_graph(), "dora_of_both.safetensors"
    by_core = graph.core_lora(name)
    graph.draw("without text", by_core["MODEL"])
    graph.draw("by core", by_core["MODEL"], by_core["CLIP"])
    stack = graph.lora(lora_name=name)["lora_stack"]
    base = {"model": graph.model, "clip": graph.clip}
    merged = graph.add("CrucibleMergeLoRA", lora_stack=stack, output_name="of_both", lora_rank=128, **base)
    ours = graph.lora(lora=merged["lora"])
    graph.draw("merged", ours["model"], ours["clip"])
    pictures = server.run(graph.prompt).pictures
    assert largest_difference(pictures["merged"], pictures["by core"]) <= 2
    assert largest_difference(pictures["without text"], pictures["by core"]) > 10


def test_a_dora_of_a_text_encoder_without_it(server, new_graph, files):
    graph = new_graph()
    stack = stacked(graph, ["dora_of_both.safetensors"])
    graph.add("CrucibleMergeLoRA", lora_stack=stack, output_name="never", model=graph.model)
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    assert "dora_of_both.safetensors at lora_te_" in failed.value.message
    assert "`clip`" in failed.value.message


@pytest.mark.parametrize("names", [["kohya.safetensors", "loha.safetensors"], ["dora.safetensors"]])
def test_baked_into_a_checkpoint_as_core_does_it(server, new_graph, files, names):
    """`merge --into` gives the same checkpoint as ComfyUI's Save Checkpoint on a model with LoRAs."""
    graph, name = new_graph(), names[0].removesuffix(".safetensors")
    for prefix, model in (("base", graph.model), ("by_core", chained(graph, names))):
        graph.add("CheckpointSave", model=model, clip=graph.clip, vae=graph.vae, filename_prefix=f"{prefix}_{name}")
    server.run(graph.prompt)
    ours = server.output / f"ours_{name}.safetensors"
    loras = [f"{files / name}:{STRENGTHS[name]}" for name in names]
    base, by_core = (next(server.output.glob(f"{prefix}_{name}_*.safetensors")) for prefix in ("base", "by_core"))
    assert main(["merge", *loras, "--into", str(base), "--output", str(ours)]) == 0
    before, expected, found = (load_file(path) for path in (base, by_core, ours))
    assert found.keys() == expected.keys() == before.keys()
    assert not all(expected[name].equal(before[name]) for name in expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_an_empty_stack(server, new_graph):
    graph = new_graph()
    graph.add("CrucibleMergeLoRA", lora_stack=graph.lora()["lora_stack"])
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    assert "no LoRA to merge" in failed.value.message
