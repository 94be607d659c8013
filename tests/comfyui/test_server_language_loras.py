"""LoRAs of language models in a real ComfyUI: on a CLIP alone, in stacks, merged, and heard in Generate Text."""

from __future__ import annotations

import json

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.demo.text import model_folder
from safetensors.torch import load_file, save_file
from server import PromptFailed

pytestmark = pytest.mark.comfyui

PROMPT = "red heart"
PEFT, COMFYUI = "base_model.model.", "text_encoders.transformer."
STRENGTHS = {"writer/adapter_model.safetensors": 0.5, "poet.safetensors": 0.75}


def factors(seed):
    """Return random factors for the attention of the demo language model, by the layer's path."""
    draw = torch.Generator().manual_seed(seed)
    weights = load_file(model_folder() / "model.safetensors")
    return {
        name.removesuffix(".weight"): (
            torch.randn(2, weight.shape[1], generator=draw) * 0.3,
            torch.randn(len(weight), 2, generator=draw) * 0.5,
        )
        for name, weight in weights.items()
        if name.endswith("_proj.weight") and "self_attn" in name
    }


def tensors(seed, start):
    return {
        f"{start}{path}.lora_{part}.weight": tensor.contiguous()
        for path, pair in factors(seed).items()
        for part, tensor in zip("AB", pair, strict=True)
    }


@pytest.fixture(scope="module")
def files(server):
    folder = server.base / "models" / "loras"
    (folder / "writer").mkdir()
    save_file(tensors(1, PEFT), folder / "writer" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "base_model_name_or_path": "someone/demo"}
    (folder / "writer" / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors(2, COMFYUI), folder / "poet.safetensors", {"modelspec.trigger_phrase": "crux"})
    larger = {key: torch.cat([tensor, tensor], dim=int("lora_A" in key)) for key, tensor in tensors(3, PEFT).items()}
    save_file(larger, folder / "larger.safetensors", {"ss_sd_model_name": "A larger model"})
    of_unet = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file(
        {f"{of_unet}.lora_{part}.weight": torch.ones(4, 4) for part in ("down", "up")}, folder / "art.safetensors"
    )
    return folder


def language_model(graph):
    return graph.add("CrucibleDemoLanguageModel")["clip"]


def apply(graph, clip, strength=1.0, **inputs):
    return graph.add("CrucibleLoadLoRA", clip=clip, strength_model=strength, strength_clip=strength, **inputs)


def write(graph, name, clip):
    """Show under a name what the CLIP answers."""
    answer = graph.add("TextGenerate", clip=clip, prompt=PROMPT, max_length=24, sampling_mode="off")
    graph.show(name, answer["generated_text"])


@pytest.fixture(scope="module")
def heard(server, new_graph, files):
    graph = new_graph()
    clip = language_model(graph)
    write(graph, "before", clip)
    chained, stack = clip, None
    for name, strength in STRENGTHS.items():
        chained = apply(graph, chained, strength, lora_name=name)["clip"]
        stacked = apply(graph, clip, strength, lora_name=name, **({} if stack is None else {"lora_stack": stack}))
        stack = stacked["lora_stack"]
    write(graph, "first alone", apply(graph, clip, 0.5, lora_name="writer/adapter_model.safetensors")["clip"])
    write(graph, "chain", chained)
    write(graph, "stack", stacked["clip"])
    rows = [{"name": name, "strength_model": strength} for name, strength in STRENGTHS.items()]
    in_one_node = graph.add("CrucibleLoRAStack", loras=json.dumps(rows))["lora_stack"]
    write(graph, "LoRA Stack", apply(graph, clip, lora_stack=in_one_node)["clip"])
    merged = graph.add("CrucibleMergeLoRA", lora_stack=in_one_node, output_name="both")
    write(graph, "merged", apply(graph, clip, lora=merged["lora"])["clip"])
    by_core = graph.core_lora("poet.safetensors")
    graph.prompt[by_core.id]["inputs"] |= {"clip": clip, "strength_clip": 0.75}
    write(graph, "by core", by_core["CLIP"])
    write(graph, "poet alone", apply(graph, clip, 0.75, lora_name="poet.safetensors")["clip"])
    graph.show("merge", merged["info"])
    graph.show("info", stacked["info"])
    graph.show("words", stacked["trigger_words"])
    write(graph, "after", clip)
    return server.run(graph.prompt).texts


def test_the_demo_language_model_answers_before_and_after(heard):
    assert heard["before"] == heard["after"] == "a red heart on a white background"


@pytest.mark.parametrize("way", ["stack", "LoRA Stack", "merged"])
def test_all_ways_to_use_two_loras_write_the_same(heard, way):
    assert heard[way] == heard["chain"]
    assert len({heard["before"], heard["first alone"], heard["chain"], heard["poet alone"]}) == 4


def test_what_core_applies_too_writes_the_same(heard):
    assert heard["by core"] == heard["poet alone"]


def test_what_is_told(heard):
    assert heard["words"] == "crux"
    for part in (
        "writer/adapter_model.safetensors",
        "Made for: a language model",
        "Trained on: someone/demo",
        "Scale: 1.5 (alpha and rank from adapter_config.json)",
        "Matching keys: 48 of 48",
        "The strengths of the 2 LoRAs add up to 1.25. Above 1, they easily distort the answer",
    ):
        assert part in heard["info"]
    for part in ("image", "A1111", "Warning"):
        assert part not in heard["info"]
    assert "Merged for a language model (method linear)" in heard["merge"]


def test_resized_and_converted_files_load(server, new_graph, files, heard):
    source = files / "writer"
    for name, command in (("converted", ["convert", str(source)]), ("resized", ["resize", str(source), "--rank", "2"])):
        assert main([*command, "--output", str(files / f"{name}.safetensors")]) == 0
    graph = new_graph()
    clip = language_model(graph)
    for name in ("converted", "resized"):
        write(graph, name, apply(graph, clip, 0.5, lora_name=f"{name}.safetensors")["clip"])
    texts = server.run(graph.prompt).texts
    assert texts["converted"] == texts["resized"] == heard["first alone"]


def failure(server, graph, node):
    graph.show("never", node["info"])
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    return failed.value.message


def test_what_does_not_fit_is_refused_by_name(server, new_graph, files):
    graph = new_graph()
    node = apply(graph, language_model(graph), lora_name="larger.safetensors")
    message = failure(server, graph, node)
    for part in (
        "larger.safetensors does not fit the CLIP (CrucibleDemoQwen3)",
        "another language model (according to the file, A larger model)",
        "The sizes differ: model.layers.",
    ):
        assert part in message, message


def test_what_is_not_connected_is_told(server, new_graph, files):
    graph = new_graph()
    node = graph.add("CrucibleLoadLoRA", lora_name="poet.safetensors")
    assert "Neither a MODEL nor a CLIP is connected" in failure(server, graph, node)
    graph = new_graph()
    node = graph.add("CrucibleLoadLoRA", lora_name="poet.safetensors", model=graph.model)
    message = failure(server, graph, node)
    assert "poet.safetensors is for a language model, which ComfyUI loads as CLIP, and no CLIP is connected" in message
    graph = new_graph()
    message = failure(server, graph, apply(graph, graph.clip, lora_name="poet.safetensors"))
    assert "poet.safetensors is for a language model, and the CLIP (clip_l) has none" in message
    graph = new_graph()
    message = failure(server, graph, apply(graph, language_model(graph), lora_name="art.safetensors"))
    assert "art.safetensors changes only the model that draws (2 keys), and only a CLIP is connected" in message


def test_nothing_is_drawn_without_a_model_and_the_rest_goes_on(server, new_graph, files):
    """ComfyUI shows the message of the model output on the sampler, and runs what does not depend on it."""
    graph = new_graph()
    loaded = apply(graph, language_model(graph), lora_name="poet.safetensors")
    graph.draw("never", loaded["model"])
    write(graph, "answer", loaded["clip"])
    outputs = server.run(graph.prompt)
    assert "never" not in outputs.pictures
    assert outputs.texts["answer"]


def test_a_clip_that_also_conditions_images_is_told(server, new_graph, files):
    graph = new_graph()
    loaded = apply(graph, language_model(graph), 0.9, lora_name="poet.safetensors")
    graph.show("info", loaded["info"])
    graph.show("conditioning", graph.add("CLIPTextEncode", clip=loaded["clip"], text=PROMPT)["CONDITIONING"])
    info = server.run(graph.prompt).texts["info"]
    assert "Warning: this node's clip also makes the conditioning of images, in CLIP Text Encode" in info
    assert "Branch the CLIP" in info
