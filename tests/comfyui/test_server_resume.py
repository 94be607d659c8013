"""Runs that are cancelled or killed in a real ComfyUI and then queued again."""

import signal
import time

import pytest
from PIL import Image
from server import Server
from test_server_cancel import cancel, wait_until
from workflows import DemoGraph

pytestmark = pytest.mark.comfyui

STEPS = 24
SETTINGS = {
    "max_train_steps": STEPS,
    "save_steps": 4,
    "sample_every_n_steps": 8,
    "validate_every_n_steps": 6,
    "measure": "never",
}
ROUNDS_OF_SAMPLES = 4
"""Samples are drawn before the first step and after steps 8, 16 and 24."""


def training(new_graph, name, validation_percent=20, retrain=False, **settings):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", validation_percent=validation_percent)["dataset"]
    trained = graph.train(name, dataset, **{**SETTINGS, **settings})
    graph.prompt[trained.id]["inputs"]["retrain"] = retrain
    graph.show("report", trained["report"])
    graph.draw("trained", trained["model"], trained["clip"])
    graph.add("SaveImage", "samples", images=trained["samples"], filename_prefix="samples")
    graph.add("LossGraphNode", "loss", loss=trained["loss"])
    return graph.prompt


def assert_same_lora(server, one, other):
    first, second = server.lora(one)[0], server.lora(other)[0]
    assert first.keys() == second.keys()
    assert all((first[key] == second[key]).all() for key in first)


def assert_same_pictures(outputs, expected, *names):
    for name in names:
        assert outputs.pictures[name].shape == expected.pictures[name].shape
        assert (outputs.pictures[name] == expected.pictures[name]).all(), name


@pytest.fixture(scope="module")
def whole(server, new_graph):
    """The outputs of an uninterrupted run."""
    outputs = server.run(training(new_graph, "whole"))
    assert len(outputs.pictures["samples"]) == ROUNDS_OF_SAMPLES
    return outputs


@pytest.mark.parametrize(
    ("phase", "settings", "reached"),
    [
        ("training", {}, lambda server, name: server.steps_done(name) >= 11),
        ("validating", {}, lambda server, name: server.steps_done(name) == 6),
        (
            "sampling",
            {"sample_steps": 30, "sample_prompts": "crux\na blue square"},
            lambda server, name: server.steps_done(name) == 8 and not time.sleep(0.3) and server.steps_done(name) == 8,
        ),
        ("saving", {"measure": "always", "sample_steps": 10}, lambda server, name: server.steps_done(name) == STEPS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cancelled_in_any_phase_it_goes_on_when_it_is_queued_again(server, new_graph, whole, phase, settings, reached):
    prompt = training(new_graph, phase, **settings)
    prompt_id = server.queue(prompt)
    wait_until(lambda: reached(server, phase))
    cancel(server, prompt_id)
    assert reached(server, phase), "the run had moved on before it was cancelled"
    done = server.steps_done(phase)
    outputs = server.run(prompt)
    assert f"Resumed after step {done} of {phase}" in outputs.texts["report"]
    assert f"finished after {STEPS} of {STEPS} steps" in outputs.texts["report"]
    assert server.steps_done(phase) == STEPS
    assert_same_lora(server, "whole", phase)
    assert_same_pictures(outputs, whole, "trained", "loss")
    if phase == "sampling":  # this run has other sample settings
        assert len(outputs.pictures["samples"]) == 2 * ROUNDS_OF_SAMPLES
    elif phase != "saving":
        assert_same_pictures(outputs, whole, "samples")


def put_images(folder, count):
    """Write images that no other run has encoded."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (64, 64), (number, 90, 200)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a plane of colour {number}")


def test_cancelled_while_encoding_it_encodes_the_rest_when_it_is_queued_again(server, new_graph):
    count = 150
    put_images(server.base / "input" / "planes", count)
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", train_data_dir="input/planes")["dataset"]
    trained = graph.train("encoding", dataset, max_train_steps=2, sample_steps=2, measure="never")
    graph.show("report", trained["report"])
    cache = server.output / "crucible" / ".cache"

    def encoded():
        return len(list(cache.glob("??/*.safetensors")))

    before = encoded()
    prompt_id = server.queue(graph.prompt)
    wait_until(lambda: encoded() > before)
    cancel(server, prompt_id)
    made = encoded() - before
    assert not (server.output / "crucible" / "encoding").exists()
    assert not (server.output / "loras" / "encoding.safetensors").exists()
    report = server.run(graph.prompt).texts["report"]
    all_made = encoded() - before
    assert made < all_made
    assert f"Cache: {all_made - made} encoded, " in report
    assert "finished after 2 of 2 steps" in report


def test_a_finished_run_is_not_trained_again(server, new_graph, whole):
    outputs = server.run(training(new_graph, "whole", sample_steps=3))
    assert "Nothing was trained: whole is already finished" in outputs.texts["report"]
    assert_same_pictures(outputs, whole, "trained", "loss", "samples")
    assert not (server.output / "loras" / "whole_2.safetensors").exists()


def test_retrain_trains_it_again_beside(server, new_graph, whole):
    outputs = server.run(training(new_graph, "whole", retrain=True))
    assert f"finished after {STEPS} of {STEPS} steps" in outputs.texts["report"]
    assert_same_lora(server, "whole", "whole_2")


@pytest.fixture
def start(comfyui_path, prepared_python, tmp_path):
    """A function that starts a server; all servers use the same base folder."""
    started = []

    def start_one():
        server = Server(comfyui_path, prepared_python, tmp_path)
        started.append(server)
        return server, lambda: DemoGraph(server.get("/object_info"))

    yield start_one
    for server in started:
        server.stop()


def test_a_killed_server_goes_on_after_its_restart(start, server, whole):
    first, new_graph = start()
    prompt = training(new_graph, "killed")
    first.queue(prompt)
    wait_until(lambda: first.steps_done("killed") >= 14)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert not list((first.output / "loras").glob("*.safetensors"))

    second, _ = start()
    outputs = second.run(prompt)
    assert "Resumed after step 12 of killed" in outputs.texts["report"]
    assert second.steps_done("killed") == STEPS
    tensors, expected = second.lora("killed")[0], server.lora("whole")[0]
    assert all((tensors[key] == expected[key]).all() for key in expected)
    assert_same_pictures(outputs, whole, "trained", "loss", "samples")
    assert sorted(path.name for path in (second.output / "loras").iterdir()) == ["killed.safetensors"]
