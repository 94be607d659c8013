"""Training a LoRA and using it in a real ComfyUI."""

import pytest
from lora_crucible.demo import TRIGGER_WORD
from server import largest_difference, read_picture
from workflows import SHORT_TRAINING

pytestmark = pytest.mark.comfyui

TOLERANCE = 2
"""The largest difference allowed between two ways to draw the same image in float32, of 255."""

STEPS = SHORT_TRAINING["max_train_steps"]
UNTOUCHED_SEED = 99
METADATA_OF_A_RUN = {
    "ss_output_name",
    "ss_session_id",
    "ss_training_started_at",
    "ss_training_finished_at",
    "modelspec.title",
    "modelspec.date",
}
"""The only metadata in which two runs with the same seed may differ."""


@pytest.fixture(scope="module")
def untouched(server, new_graph):
    """An image drawn by the model before any training."""
    graph = new_graph()
    graph.draw("base", graph.model, seed=UNTOUCHED_SEED)
    return server.run(graph.prompt).pictures["base"]


@pytest.fixture(scope="module")
def demo(server, new_graph, untouched):
    """The outputs of the demo workflow: train, compare in the same graph, pass the outputs to built-in nodes."""
    assert "first.safetensors" not in server.options("LoraLoader", "lora_name")
    graph = new_graph()
    trained = graph.train("first")
    graph.draw("base", graph.model)
    graph.draw("trained", trained["model"], trained["clip"])
    graph.draw("by LoraModelLoader", graph.add("LoraModelLoader", model=graph.model, lora=trained["lora"])["model"])
    graph.draw("by socket", graph.lora(lora=trained["lora"])["model"])
    graph.add("SaveImage", "samples", images=trained["samples"], filename_prefix="samples")
    graph.add("LossGraphNode", "loss", loss=trained["loss"])
    graph.add("SaveLoRA", lora=trained["lora"], prefix="loras/saved_by_core")
    graph.show("lora_name", trained["lora_name"])
    graph.show("report", trained["report"])
    return server.run(graph.prompt)


@pytest.fixture(scope="module")
def later_runs(server, new_graph, demo):
    """The outputs of two more trainings in the same process: one with another name, one with another seed."""
    graph = new_graph()
    again, other = graph.train("same_seed"), graph.train("first", seed=SHORT_TRAINING["seed"] + 1)
    graph.draw("same seed", again["model"], again["clip"])
    graph.draw("other seed", other["model"], other["clip"])
    graph.show("other name", other["lora_name"])
    return server.run(graph.prompt)


@pytest.fixture(scope="module")
def files_in_use(server, new_graph, later_runs):
    """Images drawn with the saved files, applied by the built-in loader and by Load LoRA."""
    graph = new_graph()
    graph.draw("by LoraLoader", graph.core_lora("first.safetensors")["MODEL"])
    graph.draw("by Load LoRA", graph.lora(lora_name="first.safetensors")["model"])
    graph.draw("saved by core", graph.core_lora("saved_by_core_00001_.safetensors")["MODEL"])
    graph.draw("switched off", graph.lora(lora_name="first.safetensors", enabled=False)["model"])
    graph.draw("strength 0", graph.lora(lora_name="first.safetensors", strength=0)["model"])
    half = graph.lora(lora_name="first.safetensors", strength=0.5)["model"]
    graph.draw("strength 0.5", half)
    graph.draw("chained", graph.lora(half, 0.7, lora_name="first_2.safetensors")["model"])
    core_half = graph.core_lora("first.safetensors", strength=0.5)["MODEL"]
    graph.draw("chained by core", graph.core_lora("first_2.safetensors", core_half, 0.7)["MODEL"])
    graph.draw_anew("base", graph.model, seed=UNTOUCHED_SEED)
    outputs = server.run(graph.prompt)
    assert "demo model" in outputs.cached, "the model was loaded again, so the base image would prove nothing"
    assert "base" not in outputs.cached
    return outputs.pictures


def same_tensors(first, second):
    return first.keys() == second.keys() and all((first[key] == second[key]).all() for key in first)


def test_training_changes_the_picture_of_the_same_seed(demo):
    assert largest_difference(demo.pictures["base"], demo.pictures["trained"]) > TOLERANCE


def test_outputs_reach_cores_nodes(server, demo):
    assert demo.texts["lora_name"] == "first.safetensors"
    assert f"finished after {STEPS} of {STEPS} steps" in demo.texts["report"]
    (loss_graph,) = demo.pictures["loss"]
    assert (loss_graph == (0, 0, 255)).all(axis=-1).any(), "no blue curve"
    assert same_tensors(server.lora("first")[0], server.lora("saved_by_core_00001_")[0])


@pytest.mark.parametrize("way", ["by LoraModelLoader", "by socket", "by LoraLoader", "by Load LoRA", "saved by core"])
def test_every_loader_draws_what_the_train_node_draws(demo, files_in_use, way):
    picture = {**demo.pictures, **files_in_use}[way]
    assert largest_difference(picture, demo.pictures["trained"]) == 0


def test_samples_show_the_model_as_the_graph_draws_it(demo, files_in_use):
    samples = demo.pictures["samples"]
    assert largest_difference(samples[:1], demo.pictures["base"]) <= TOLERANCE
    assert largest_difference(samples[-1:], files_in_use["by LoraLoader"]) <= TOLERANCE


def test_samples_are_saved_with_the_run(server, demo):
    files = sorted((server.output / "crucible" / "first" / "samples").iterdir())
    assert [file.name for file in files] == [f"step_{step:06}_01.png" for step in (0, 3, 6, 9, STEPS)]
    for file, sample in zip(files, demo.pictures["samples"], strict=True):
        assert largest_difference(read_picture(file), sample) == 0


def test_strength_scales_the_lora(demo, files_in_use):
    half = files_in_use["strength 0.5"]
    assert largest_difference(half, demo.pictures["base"]) > TOLERANCE
    assert largest_difference(half, demo.pictures["trained"]) > TOLERANCE


def test_two_loras_chain_as_cores_do(files_in_use):
    chained = files_in_use["chained"]
    assert largest_difference(chained, files_in_use["chained by core"]) == 0
    assert largest_difference(chained, files_in_use["strength 0.5"]) > TOLERANCE


@pytest.mark.parametrize("way", ["switched off", "strength 0"])
def test_a_lora_that_is_off_changes_nothing(demo, files_in_use, way):
    assert largest_difference(files_in_use[way], demo.pictures["base"]) == 0


def test_training_leaves_the_model_as_it_was(untouched, files_in_use):
    assert largest_difference(files_in_use["base"], untouched) == 0


def test_same_seed_gives_the_same_lora(server, demo, later_runs):
    tensors, metadata = server.lora("first")
    tensors_again, metadata_again = server.lora("same_seed")
    assert same_tensors(tensors, tensors_again)
    assert metadata.keys() == metadata_again.keys()
    assert {key for key in metadata if metadata[key] != metadata_again[key]} <= METADATA_OF_A_RUN
    assert largest_difference(later_runs.pictures["same seed"], demo.pictures["trained"]) == 0


def test_another_seed_gives_another_lora(server, demo, later_runs):
    tensors, _ = server.lora("first")
    others, _ = server.lora("first_2")
    weights = [key for key in tensors if not key.endswith(".alpha")]
    assert not any((tensors[key] == others[key]).all() for key in weights)
    assert largest_difference(later_runs.pictures["other seed"], demo.pictures["trained"]) > TOLERANCE


def test_metadata_tells_what_was_trained(server, demo):
    _, metadata = server.lora("first")
    assert metadata["modelspec.trigger_phrase"] == TRIGGER_WORD
    assert (metadata["ss_steps"], metadata["ss_seed"]) == (str(STEPS), str(SHORT_TRAINING["seed"]))


@pytest.mark.parametrize("node_type", ["LoraLoader", "CrucibleLoadLoRA"])
def test_a_new_lora_is_listed_at_once(server, later_runs, node_type):
    listed = server.options(node_type, "lora_name")
    assert {"first.safetensors", "same_seed.safetensors", "first_2.safetensors"} <= set(listed)


def test_a_name_that_is_taken_gets_a_counter_and_overwrites_nothing(server, demo, later_runs):
    assert later_runs.texts["other name"] == "first_2.safetensors"
    assert same_tensors(server.lora("first")[0], server.lora("saved_by_core_00001_")[0])
    for name in ("first", "first_2"):
        log = server.output / "crucible" / name / "log.jsonl"
        assert len(log.read_text().splitlines()) == STEPS
