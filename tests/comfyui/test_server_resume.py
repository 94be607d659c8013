"""Runs that are cancelled or killed in a real ComfyUI, and queued again."""

import signal
import time

import pytest
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


def training(new_graph, name, validation_percent=20, retrain=False, **settings):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", validation_percent=validation_percent)["dataset"]
    trained = graph.train(name, dataset, **{**SETTINGS, **settings})
    graph.prompt[trained.id]["inputs"]["retrain"] = retrain
    graph.show("report", trained["report"])
    graph.draw("trained", trained["model"], trained["clip"])
    return graph.prompt


def lines(server, name):
    log = server.output / "crucible" / name / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def assert_same_lora(server, one, other):
    first, second = server.lora(one)[0], server.lora(other)[0]
    assert first.keys() == second.keys()
    assert all((first[key] == second[key]).all() for key in first)


@pytest.fixture(scope="module")
def whole(server, new_graph):
    """An uninterrupted run."""
    return server.run(training(new_graph, "whole"))


@pytest.mark.parametrize(
    ("phase", "settings", "reached"),
    [
        ("training", {}, lambda server, name: lines(server, name) >= 11),
        ("validating", {}, lambda server, name: lines(server, name) == 6),
        (
            "sampling",
            {"sample_steps": 100, "sample_prompts": "crux\n" * 8},
            lambda server, name: lines(server, name) == 8 and not time.sleep(0.3) and lines(server, name) == 8,
        ),
        ("saving", {"measure": "always", "sample_steps": 60}, lambda server, name: lines(server, name) == STEPS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cancelled_in_any_phase_it_goes_on_when_it_is_queued_again(server, new_graph, whole, phase, settings, reached):
    prompt = training(new_graph, phase, **settings)
    prompt_id = server.queue(prompt)
    wait_until(lambda: reached(server, phase))
    cancel(server, prompt_id)
    done = lines(server, phase)
    outputs = server.run(prompt)
    assert f"Went on after step {done} of {phase}" in outputs.texts["report"]
    assert f"finished after {STEPS} of {STEPS} steps" in outputs.texts["report"]
    assert lines(server, phase) == STEPS
    assert_same_lora(server, "whole", phase)
    assert (outputs.pictures["trained"] == whole.pictures["trained"]).all()


def test_cancelled_while_encoding_nothing_is_lost_or_left(server, new_graph, whole):
    """Other images than those of the other runs: theirs are encoded already."""
    settings = {"resolution": 128}
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", validation_percent=20, **settings)["dataset"]
    graph.train("encoding", dataset, **SETTINGS)
    prompt_id = server.queue(graph.prompt)
    cache = server.output / "crucible" / ".cache"
    before = len(list(cache.glob("??/*.safetensors")))
    wait_until(lambda: len(list(cache.glob("??/*.safetensors"))) > before)
    cancel(server, prompt_id)
    assert lines(server, "encoding") == 0
    assert not (server.output / "loras" / "encoding.safetensors").exists()
    server.run(graph.prompt)
    assert lines(server, "encoding") == STEPS


def test_a_finished_run_is_not_trained_again(server, new_graph, whole):
    outputs = server.run(training(new_graph, "whole", sample_steps=3))
    assert "Nothing was trained: whole is finished" in outputs.texts["report"]
    assert (outputs.pictures["trained"] == whole.pictures["trained"]).all()
    assert not (server.output / "loras" / "whole_2.safetensors").exists()


def test_retrain_trains_it_again_beside(server, new_graph, whole):
    outputs = server.run(training(new_graph, "whole", retrain=True))
    assert f"finished after {STEPS} of {STEPS} steps" in outputs.texts["report"]
    assert_same_lora(server, "whole", "whole_2")


@pytest.fixture
def start(comfyui_path, prepared_python, tmp_path):
    """Starts servers on one base folder, one after the other."""
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
    wait_until(lambda: lines(first, "killed") >= 14)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert not list((first.output / "loras").glob("*.safetensors"))

    second, _ = start()
    outputs = second.run(prompt)
    assert "Went on after step 12 of killed" in outputs.texts["report"]
    assert lines(second, "killed") == STEPS
    tensors, expected = second.lora("killed")[0], server.lora("whole")[0]
    assert all((tensors[key] == expected[key]).all() for key in expected)
    assert (outputs.pictures["trained"] == whole.pictures["trained"]).all()
    assert sorted(path.name for path in (second.output / "loras").iterdir()) == ["killed.safetensors"]
