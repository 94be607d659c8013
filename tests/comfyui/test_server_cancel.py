"""Cancelling a training in a real ComfyUI."""

import time

import pytest
from server import largest_difference

pytestmark = pytest.mark.comfyui

TOO_MANY_STEPS = 100_000


def wait_until(condition, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.05)


def cancel(server, prompt_id):
    server.post("/interrupt", {"prompt_id": prompt_id})
    messages = server.wait(prompt_id)["status"]["messages"]
    assert messages[-1][0] == "execution_interrupted", messages


def test_cancel_keeps_a_lora_that_loads_and_a_server_that_goes_on(server, new_graph):
    graph = new_graph()
    graph.draw("base", graph.model)
    before = server.run(graph.prompt).pictures["base"]

    graph = new_graph()
    graph.train("cancelled", max_train_steps=TOO_MANY_STEPS, lr_warmup_steps=1)
    prompt_id = server.queue(graph.prompt)
    run_folder = server.output / "crucible" / "cancelled"
    log = run_folder / "log.jsonl"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
    cancel(server, prompt_id)

    _, metadata = server.lora("cancelled")
    steps_done = len(log.read_text().splitlines())
    assert metadata["ss_steps"] == str(steps_done)
    assert f"after {steps_done} of {TOO_MANY_STEPS} steps" in (run_folder / "report.txt").read_text()

    assert "cancelled.safetensors" in server.options("LoraLoader", "lora_name")
    graph = new_graph()
    graph.draw("cancelled", graph.core_lora("cancelled.safetensors")["MODEL"])
    graph.draw_anew("base", graph.model)
    after = server.run(graph.prompt)
    assert "demo model" in after.cached
    assert "base" not in after.cached
    assert largest_difference(after.pictures["cancelled"], before) > 0
    assert largest_difference(after.pictures["base"], before) == 0


def test_cancel_before_the_first_step_leaves_nothing(server, new_graph):
    graph = new_graph()
    slow_samples = {"sample_steps": 200, "sample_prompts": "crux\n" * 20}
    graph.train("too_early", max_train_steps=TOO_MANY_STEPS, **slow_samples)
    prompt_id = server.queue(graph.prompt)
    run_folder = server.output / "crucible" / "too_early"
    wait_until((run_folder / "config.yaml").exists)
    cancel(server, prompt_id)
    assert not run_folder.exists()
    assert not list((server.output / "loras").glob("too_early*"))
