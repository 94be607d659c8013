"""The Configure LoRA node in a real ComfyUI: its summary before a training, and its YAML input and output."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from server import ONE_THREAD, ROOT, PromptFailed
from workflows import PROMPT

pytestmark = pytest.mark.comfyui

SAME_SETTINGS = (
    "ss_steps",
    "ss_learning_rate",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_total_batch_size",
    "ss_lr_warmup_steps",
    "ss_seed",
)
ALIKE = 0.999
"""The least cosine similarity of two LoRAs that differ only by rounding; with two seeds it is about 0."""

SHORT = "max_train_steps: 2\nbatch_size: 2\nsample_steps: 1\nsave_precision: fp32\n"


def configured(server, graph, **inputs):
    """Return the node's texts: summary and yaml."""
    node = graph.add("CrucibleConfigureLoRA", **inputs)
    graph.show("summary", node["summary"])
    graph.show("yaml", node["yaml"])
    return server.run(graph.prompt).texts


def trained(server, graph, output_name, dataset, **inputs):
    """Return the node's texts, and the report of a short training with its config."""
    config = graph.add("CrucibleConfigureLoRA", dataset=dataset, model=graph.model, config_yaml=SHORT, **inputs)
    train = graph.add(
        "CrucibleTrainLoRA",
        model=graph.model,
        clip=graph.clip,
        vae=graph.vae,
        dataset=dataset,
        config=config["config"],
        output_name=output_name,
    )
    for name, text in (("summary", config["summary"]), ("yaml", config["yaml"]), ("report", train["report"])):
        graph.show(name, text)
    return server.run(graph.prompt).texts


def test_the_purpose_is_the_first_widget(server):
    inputs = server.get("/object_info/CrucibleConfigureLoRA")["CrucibleConfigureLoRA"]["input"]["optional"]
    assert next(iter(inputs)) == "purpose"
    choices = ["auto", "quick_test", "character", "style", "object", "concept"]
    assert server.options("CrucibleConfigureLoRA", "purpose") == choices


def test_alone_it_says_what_will_be_decided(server, new_graph):
    texts = configured(server, new_graph(), lora_rank=64)
    assert "Set by hand:\n  lora_rank = 64" in texts["summary"]
    assert "purpose: from the captions" in texts["summary"]
    assert "Connect dataset and model" in texts["summary"]
    assert "close to full fine-tuning" in texts["summary"]
    assert "train_data_dir: path/to/images" in texts["yaml"]


def test_connected_it_says_the_values_that_the_training_then_has(server, new_graph):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", validation_percent=10)["dataset"]
    texts = trained(server, graph, "explained", dataset)

    def chosen(text):
        _, _, after = text.partition("Chosen automatically:\n")
        lines = itertools.takewhile(lambda line: line.startswith("  "), after.splitlines())
        return dict(line.strip().split(" = ", 1) for line in lines)

    assert "Connect" not in texts["summary"]
    reasons = chosen(texts["summary"])
    assert reasons["purpose"].startswith("style: the captions name different things")
    assert reasons["learning_rate"] == "0.002: usual for AdamW on the demo model"
    assert reasons.items() <= chosen(texts["report"]).items()


def test_yaml_and_widgets_that_fight_are_named(server, new_graph):
    with pytest.raises(PromptFailed) as failure:
        configured(server, new_graph(), lora_rank=16, config_yaml="network_dim: 4\nlora_rnk: 2\n")
    message = failure.value.message
    assert "line 1: network_dim = 4 in the YAML, but the widget rank (lora_rank) is 16" in message
    assert "did you mean lora_rank?" in message


def test_the_yaml_trains_the_same_on_the_command_line(server, new_graph, tmp_path):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset")["dataset"]
    widgets = {"sample_prompts": PROMPT, "sample_negative_prompt": "blurred"}
    yaml = trained(server, graph, "in_comfyui", dataset, **widgets)["yaml"]
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml}output_dir: {tmp_path}\noutput_name: outside\n", encoding="utf-8")
    command = [sys.executable, "-m", "trainer", "train", str(file)]
    environment = {**os.environ, **ONE_THREAD}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)

    inside, metadata = server.lora("in_comfyui")
    with safe_open(tmp_path / "outside.safetensors", "np") as opened:
        outside = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        settings = {key: opened.metadata()[key] for key in SAME_SETTINGS}
    assert {key: metadata[key] for key in SAME_SETTINGS} == settings
    assert inside.keys() == outside.keys()
    # The two base models use different code, so they differ by rounding, which Adam's first steps magnify.
    learned = [key for key in inside if key.endswith("lora_up.weight")]
    one, other = (np.concatenate([file[key].ravel() for key in learned]) for file in (inside, outside))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > ALIKE
