"""The nodes for options in a real ComfyUI: what each one has, and what their settings do together."""

import pytest
import yaml
from lora_crucible.config import SETTINGS
from server import PromptFailed

pytestmark = pytest.mark.comfyui

CONFIGURE, LOAD = "CrucibleConfigureLoRA", "CrucibleLoadDataset"
CONFIGURE_TEXT, LOAD_TEXT = "CrucibleConfigureLanguageLoRA", "CrucibleLoadTextDataset"
OF_TASK = {
    "text-to-image": (CONFIGURE, LOAD, {"CRUCIBLE_OPTIONS", "CRUCIBLE_DATA_OPTIONS"}),
    "text-generation": (CONFIGURE_TEXT, LOAD_TEXT, {"CRUCIBLE_OPTIONS", "CRUCIBLE_TEXT_OPTIONS"}),
}
"""The nodes for settings of each task, and the sockets of its nodes for options."""

MOST_WIDGETS = 12
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
OTHERS = {"base_model", "output_dir", "output_name", "resume_from_checkpoint", "continue_from", "metadata_path"}
OTHERS |= {"task_type", "chat_template", "load_in_4bit"}
OTHERS |= {"loader", "text_encoders", "clip_type", "vae", "save_every_n_epochs", "reserve_memory", "report_to"}
"""Settings that come from the connected model, from the node that trains, or from the command line alone."""


@pytest.fixture(scope="module")
def nodes(server):
    return {name: info for name, info in server.get("/object_info").items() if name.startswith("Crucible")}


def inputs(info):
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def widgets(info):
    return {
        name: spec
        for name, spec in inputs(info).items()
        if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not (spec[1:] and spec[1].get("forceInput"))
    }


def changed(setting, spec):
    """Return a value of a setting that is valid and not its default."""
    if setting.kind == "switch":
        return not setting.widget_default
    if setting.kind == "choice":
        offered = spec[1].get("options") or spec[0]
        return next(value for value in offered if value not in (setting.widget_default, "auto"))
    if setting.kind == "text":
        return {
            "memory": "8 GB",
            "sample_sampler": "heun",
            "sample_scheduler": "karras",
            "layer_patterns": "attn2.to_k rank=4",
            "extra_resolutions": "128",
        }.get(setting.name, "some words")
    lowest = setting.minimum + setting.step if setting.minimum_excluded else setting.minimum
    values = (lowest, lowest + setting.step, lowest + 2 * setting.step)
    return next(value for value in values if value not in (setting.widget_default, 0))


def test_no_node_is_crowded(nodes):
    count = {name: len(widgets(info)) for name, info in nodes.items()}
    assert max(count.values()) <= MOST_WIDGETS, count
    assert max(count[CONFIGURE], count[CONFIGURE_TEXT]) <= 10
    assert max(count[LOAD], count[LOAD_TEXT]) <= 8


@pytest.mark.parametrize("task", OF_TASK)
def test_every_setting_of_a_task_is_on_one_node_for_settings(nodes, task):
    configure, load, sockets = OF_TASK[task]
    of_task = {name for name, setting in SETTINGS.items() if setting.task in (None, task)} - OTHERS
    places = {name: [] for name in of_task}
    for node in (configure, load, *(name for name, info in nodes.items() if set(info["output"]) <= sockets)):
        for name in widgets(nodes[node]):
            if name in places:
                places[name].append(node)
    assert {name: found for name, found in places.items() if len(found) != 1} == {}


def test_nodes_have_no_setting_of_the_other_task(nodes):
    for task, (configure, load, _) in OF_TASK.items():
        for node in (configure, load):
            named = [SETTINGS[name] for name in widgets(nodes[node]) if name in SETTINGS]
            assert [setting.name for setting in named if setting.task not in (None, task)] == [], node
    purposes = widgets(nodes[CONFIGURE_TEXT])["purpose"]
    assert (purposes[1].get("options") or purposes[0]) == ["auto", "quick_test"]


def test_all_settings_arrive_in_the_config(server, new_graph, nodes):
    never = {"lr_warmup_ratio", "optimizer"}  # they contradict others: lr_warmup_steps, and Adam's betas
    graph = new_graph()
    values = {}
    options = None
    for node, info in nodes.items():
        if info["output"] != ["CRUCIBLE_OPTIONS"]:
            continue
        here = {
            name: changed(SETTINGS[name], spec)
            for name, spec in widgets(info).items()
            if name in SETTINGS and name not in never and SETTINGS[name].task in (None, "text-to-image")
        }
        values |= here
        options = graph.add(node, **here, **({"options": options} if options else {}))["options"]
    config = graph.add(CONFIGURE, options=options, lora_rank=7)
    graph.show("yaml", config["yaml"])
    written = yaml.safe_load(server.run(graph.prompt).texts["yaml"])
    assert written["lora_rank"] == 7
    assert {name: written.get(name) for name in values} == values


def test_options_for_captions_and_images_reach_the_dataset(server, new_graph):
    graph = new_graph()
    captions = graph.add("CrucibleCaptionOptions", caption_suffix="in oil")
    images = graph.add("CrucibleImageOptions", aspect_ratio_buckets=False, options=captions["options"])
    dataset = graph.add(LOAD, options=images["options"])
    graph.show("yaml", graph.add(CONFIGURE, dataset=dataset["dataset"])["yaml"])
    written = yaml.safe_load(server.run(graph.prompt).texts["yaml"])
    assert (written["caption_suffix"], written["aspect_ratio_buckets"]) == ("in oil", False)


def test_the_same_node_twice_in_a_chain_is_refused(server, new_graph):
    graph = new_graph()
    first = graph.add("CrucibleObjective", noise_offset=0.1)
    second = graph.add("CrucibleObjective", options=first["options"])
    graph.show("yaml", graph.add(CONFIGURE, options=second["options"])["yaml"])
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert "Two nodes of the kind Objective (Crucible) are in one chain" in failure.value.message
    assert "Remove one of them" in failure.value.message


def test_inputs_that_a_node_does_not_have_are_named(server, new_graph, nodes):
    """ComfyUI ignores them, and prompts written for an earlier version would silently do something else."""
    graph = new_graph()
    sources = {"MODEL": graph.model, "CLIP": graph.clip, "VAE": graph.vae}
    sources["CRUCIBLE_DATASET"] = graph.add(LOAD)["dataset"]
    sources["CRUCIBLE_CONFIG"] = graph.add(CONFIGURE)["config"]
    sources["CRUCIBLE_TEXT_DATASET"] = graph.add(LOAD_TEXT)["dataset"]
    sources["CRUCIBLE_LANGUAGE_CONFIG"] = graph.add(CONFIGURE_TEXT)["config"]
    sources["LORA_STACK"] = graph.add("CrucibleLoRAStack")["lora_stack"]
    sources["IMAGE"] = graph.add("EmptyImage")["IMAGE"]
    for node, info in nodes.items():
        if not inputs(info):
            continue
        needed = {name: sources[spec[0]] for name, spec in info["input"].get("required", {}).items()}
        prompt = {**graph.prompt, "node": {"class_type": node, "inputs": {**needed, "no_such_input": 1}}}
        if not info["output_node"]:
            prompt["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}}
        with pytest.raises(PromptFailed) as failure:
            server.run(prompt)
        assert "has no input no_such_input, so its value would be ignored" in failure.value.message, node


@pytest.mark.parametrize(
    ("node", "name", "home"),
    [
        (CONFIGURE, "lora_alpha", "Layers and Algorithm (Crucible)"),
        (LOAD, "shuffle_caption", "Caption Options (Crucible)"),
        ("CrucibleAutoCaption", "general_threshold", "Tagger Options (Crucible)"),
        (LOAD_TEXT, "text_columns", "Text Options (Crucible)"),
    ],
)
def test_inputs_of_a_node_for_options_are_sent_there(server, new_graph, node, name, home):
    graph = new_graph()
    needed = {"dataset": graph.add(LOAD)["dataset"]} if node == "CrucibleAutoCaption" else {}
    made = graph.add(node, **needed)
    graph.prompt[made.id]["inputs"] |= {name: 1}
    graph.show("text", made[made.outputs[-1]])
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert f"{home}; add it and connect its options" in failure.value.message


def test_a_prompt_needs_only_what_differs_from_the_defaults(server, new_graph):
    graph = new_graph()
    dataset = {"class_type": LOAD, "inputs": {}}
    config = {"class_type": CONFIGURE, "inputs": {"dataset": ["data", 0], "max_train_steps": 5}}
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["config", 2]}}
    prompt = {**graph.prompt, "data": dataset, "config": config, "yaml": shown}
    assert yaml.safe_load(server.run(prompt).texts["yaml"])["max_train_steps"] == 5
