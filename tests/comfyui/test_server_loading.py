"""The Load LoRA node in a real ComfyUI: stacks, information for the user, and files that it rejects."""

import json

import pytest
import torch
from lora_crucible.demo import TRIGGER_WORD
from safetensors.torch import load_file, save_file
from server import PromptFailed, Server, largest_difference
from workflows import DemoGraph

pytestmark = pytest.mark.comfyui

STRENGTHS = {"early.safetensors": 0.5, "middle.safetensors": 0.4, "late.safetensors": -0.3}


def save_variants(trained, folder):
    """Save three different LoRAs made from a trained one, each with its own trigger word."""
    tensors = load_file(trained)
    for number, name in enumerate(STRENGTHS):
        draw = torch.Generator().manual_seed(number)
        changed = {
            key: tensor if key.endswith(".alpha") else tensor * (1 + torch.rand(tensor.shape, generator=draw))
            for key, tensor in tensors.items()
        }
        save_file(changed, folder / name, {"modelspec.trigger_phrase": f"word {number}"})


@pytest.fixture(scope="module")
def trained(server, new_graph):
    """The outputs of a prompt that trains a LoRA and loads it through the socket and a stack."""
    graph = new_graph()
    trained = graph.train("loading")
    loaded = graph.lora(lora=trained["lora"])
    from_stack = graph.lora(lora_stack=loaded["lora_stack"])
    graph.draw("trained", trained["model"], trained["clip"])
    graph.draw("loaded", loaded["model"], loaded["clip"])
    graph.draw("from stack", from_stack["model"], from_stack["clip"])
    graph.show("trigger words", loaded["trigger_words"])
    graph.show("info", loaded["info"])
    return server.run(graph.prompt)


@pytest.fixture(scope="module")
def three(server, trained):
    """Saves three LoRAs in models/loras."""
    save_variants(server.output / "loras" / "loading.safetensors", server.base / "models" / "loras")


@pytest.fixture(scope="module")
def combined(server, new_graph, three):
    """The outputs of a prompt that applies the same three LoRAs as a chain and as stacks."""
    graph = new_graph()
    model, stack = graph.model, None
    for name, strength in STRENGTHS.items():
        model = graph.lora(model, strength, lora_name=name)["model"]
        connected = {} if stack is None else {"lora_stack": stack}
        last = graph.lora(graph.model, strength, lora_name=name, **connected)
        stack = last["lora_stack"]
    graph.draw("base", graph.model)
    graph.draw("chained", model)
    graph.show("last of the chain", graph.lora(model, 0.1, lora_name="early.safetensors")["info"])
    graph.draw("last of the stack", last["model"], last["clip"])
    graph.draw("stack alone", graph.lora(lora_stack=stack)["model"])
    rows = [{"name": name, "strength_model": strength} for name, strength in STRENGTHS.items()]
    in_one_node = graph.add("CrucibleLoRAStack", loras=json.dumps(rows))["lora_stack"]
    graph.draw("LoRA Stack", graph.lora(lora_stack=in_one_node)["model"])
    off = graph.lora(lora_stack=stack, lora_name="early.safetensors", enabled=False)
    graph.draw("stack with its own off", off["model"])
    graph.show("words", last["trigger_words"])
    graph.show("info", last["info"])
    return server.run(graph.prompt)


def test_the_lora_of_the_same_queue_acts_through_socket_and_stack(trained):
    for name in ("loaded", "from stack"):
        assert largest_difference(trained.pictures[name], trained.pictures["trained"]) == 0


def test_trigger_words_and_info_of_what_was_just_trained(trained):
    assert trained.texts["trigger words"] == TRIGGER_WORD
    info = trained.texts["info"]
    for part in ("loading.safetensors", "the demo model", "LoRA Crucible 0.", "<lora:loading:1>", "rank 8"):
        assert part in info


def test_a_lora_trained_in_the_same_queue_is_in_the_list(server, trained):
    assert "loading.safetensors" in server.options("CrucibleLoadLoRA", "lora_name")


@pytest.mark.parametrize("way", ["last of the stack", "stack alone", "stack with its own off", "LoRA Stack"])
def test_three_in_a_stack_draw_what_three_in_a_chain_draw(combined, way):
    assert largest_difference(combined.pictures[way], combined.pictures["chained"]) == 0
    assert largest_difference(combined.pictures["chained"], combined.pictures["base"]) > 2


def test_all_of_a_stack_are_told(combined):
    assert combined.texts["words"] == "word 0, word 1, word 2"
    for name in STRENGTHS:
        assert name in combined.texts["info"]
    assert "The strengths of the 3 LoRAs add up to 1.2" in combined.texts["info"]
    assert "The strengths of the 3 LoRAs add up to 1.3" in combined.texts["last of the chain"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: save_file(
                {
                    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": torch.ones(2, 2048),
                    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": torch.ones(640, 2),
                },
                path,
            ),
            ["bad.safetensors does not fit", "made for Stable Diffusion XL", "the demo model", "0 of its 2 keys"],
        ),
        (lambda path: torch.save({"a": torch.ones(1)}, path), ["not a safetensors file but a PyTorch pickle"]),
        (lambda path: save_file({"model.weight": torch.ones(1)}, path), ["holds no LoRA", "model.weight"]),
        (lambda path: path.write_bytes(b"\xff" * 100), ["not a complete safetensors file"]),
    ],
    ids=["another base", "pickle", "checkpoint", "lying header"],
)
def test_files_that_cannot_be_used(server, new_graph, make, message):
    path = server.base / "models" / "loras" / "bad.safetensors"
    make(path)
    graph = new_graph()
    graph.draw("never", graph.lora(lora_name="bad.safetensors")["model"])
    try:
        with pytest.raises(PromptFailed) as failed:
            server.run(graph.prompt)
    finally:
        path.unlink()
    for part in message:
        assert part in failed.value.message


def test_names_that_lead_out_of_the_folders(server, new_graph):
    """ComfyUI does not check values from another node against its list."""
    outside = server.base / "outside.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, outside)
    for name in ("../../outside.safetensors", str(outside), "..\\..\\outside.safetensors"):
        graph = new_graph()
        text = graph.add("PrimitiveString", value=name)["STRING"]
        switched = graph.add("ComfySwitchNode", switch=True, on_true=text, on_false=text)
        graph.draw("never", graph.lora(lora_name=[switched.id, 0])["model"])
        with pytest.raises(PromptFailed) as failed:
            server.run(graph.prompt)
        assert "is not in ComfyUI's LoRA folders" in failed.value.message


OTHER_PACK = """
import json


class AnyStack:
    CATEGORY, FUNCTION, RETURN_TYPES = "other", "stack", ("LORA_STACK",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"rows": ("STRING", {"default": "[]"})}}

    def stack(self, rows):
        return (json.loads(rows),)


NODE_CLASS_MAPPINGS = {"AnyStack": AnyStack}
"""


def test_stacks_of_other_packs(server, three, combined, comfyui_path, prepared_python, tmp_path):
    other = tmp_path / "comfyui"
    (other / "custom_nodes").mkdir(parents=True)
    (other / "custom_nodes" / "other_pack.py").write_text(OTHER_PACK)
    (other / "models" / "loras" / "sub").mkdir(parents=True)
    for name in STRENGTHS:
        (other / "models" / "loras" / "sub" / name).write_bytes((server.base / "models" / "loras" / name).read_bytes())
    with_other_pack = Server(comfyui_path, prepared_python, other, "other_pack.py")
    try:
        graph = DemoGraph(with_other_pack.get("/object_info"))
        names = ["sub\\early.safetensors", "sub/middle", "late"]
        rows = [[name, strength, strength] for name, strength in zip(names, STRENGTHS.values(), strict=True)]
        stack = graph.add("AnyStack", rows=json.dumps([*rows, ["None", 1.0, 1.0]]))
        graph.draw("stack", graph.lora(lora_stack=[stack.id, 0])["model"])
        picture = with_other_pack.run(graph.prompt).pictures["stack"]
        assert largest_difference(picture, combined.pictures["chained"]) == 0

        graph.prompt[stack.id]["inputs"]["rows"] = json.dumps([["late", "strong", 1.0]])
        with pytest.raises(PromptFailed) as failed:
            with_other_pack.run(graph.prompt)
        assert "Row 1 of the LoRA stack gives 'late' the strengths" in failed.value.message
    finally:
        with_other_pack.stop()
