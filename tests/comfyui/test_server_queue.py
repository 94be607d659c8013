"""Training beside other prompts in the queue of a real ComfyUI, and on a model that already has a LoRA."""

import pytest
from server import largest_difference
from test_server_cancel import TOO_MANY_STEPS, cancel, wait_until

pytestmark = pytest.mark.comfyui

SETTINGS = {"max_train_steps": 8, "sample_steps": 2, "measure": "never"}


def training(new_graph, name, **settings):
    graph = new_graph()
    trained = graph.train(name, **{**SETTINGS, **settings})
    graph.draw("trained", trained["model"], trained["clip"])
    return graph.prompt


def drawing(new_graph):
    graph = new_graph()
    graph.draw_anew("base", graph.model)
    return graph.prompt


def same_lora(server, *names):
    first, *others = [server.lora(name)[0] for name in names]
    return all((other[key] == first[key]).all() for other in others for key in first)


@pytest.fixture(scope="module")
def alone(server, new_graph):
    """Images from a training with nothing else in the queue, and from the model before it."""
    base = server.run(drawing(new_graph)).pictures
    return {**base, **server.run(training(new_graph, "alone")).pictures}


def test_what_waits_behind_a_training_is_done_after_it(server, new_graph, alone):
    waiting = [
        server.queue(prompt)
        for prompt in (training(new_graph, "ahead"), drawing(new_graph), training(new_graph, "behind"))
    ]
    shown = [server.outputs(prompt_id).pictures for prompt_id in waiting]
    assert same_lora(server, "alone", "ahead", "behind")
    assert largest_difference(shown[1]["base"], alone["base"]) == 0
    for trained in (shown[0], shown[2]):
        assert largest_difference(trained["trained"], alone["trained"]) == 0


def test_what_waits_behind_a_cancelled_training_is_done_after_it(server, new_graph, alone):
    endless = server.queue(training(new_graph, "endless", max_train_steps=TOO_MANY_STEPS))
    waiting = [server.queue(prompt) for prompt in (drawing(new_graph), training(new_graph, "after_cancel"))]
    wait_until(lambda: server.steps_done("endless") >= 3)
    cancel(server, endless)
    drawn, trained = [server.outputs(prompt_id).pictures for prompt_id in waiting]
    assert largest_difference(drawn["base"], alone["base"]) == 0
    assert same_lora(server, "alone", "after_cancel")
    assert largest_difference(trained["trained"], alone["trained"]) == 0


@pytest.fixture(scope="module")
def on_a_lora(server, new_graph, alone):
    """A function that makes a prompt that trains on the model with the LoRA `alone` applied, and draws with both."""

    def prompt(strength, **settings):
        graph = new_graph()
        carrying = graph.core_lora("alone.safetensors", strength=strength)
        graph.model, graph.clip = carrying["MODEL"], carrying["CLIP"]
        trained = graph.train("on_top", **{**SETTINGS, **settings})
        graph.show("report", trained["report"])
        graph.draw("trained", trained["model"], trained["clip"])
        graph.draw_anew("carrying", graph.model)
        return graph.prompt

    return prompt


def test_a_lora_on_the_model_stays_as_it_was(server, new_graph, alone, on_a_lora):
    """With the LoRA at strength 1, the model draws exactly what it drew right after training that LoRA."""
    before, _ = server.lora("alone")
    pictures = server.run(on_a_lora(1.0)).pictures
    assert largest_difference(pictures["carrying"], alone["trained"]) == 0
    assert largest_difference(pictures["trained"], pictures["carrying"]) > 0
    after, _ = server.lora("alone")
    assert all((after[key] == before[key]).all() for key in before)
    assert not same_lora(server, "alone", "on_top")
    assert largest_difference(server.run(drawing(new_graph)).pictures["base"], alone["base"]) == 0


def test_another_strength_of_that_lora_is_another_base(server, on_a_lora):
    """A run with another strength does not resume a run that was cancelled at the old one, and reports why."""
    longer = {"max_train_steps": 24, "seed": 3}
    prompt_id = server.queue(on_a_lora(0.5, **longer))
    wait_until(lambda: server.steps_done("on_top_2") >= 3)
    cancel(server, prompt_id)
    done = server.steps_done("on_top_2")
    report = server.run(on_a_lora(0.6, **longer)).texts["report"]
    reason = "the base model, its text encoder, its VAE or a LoRA applied to it is different"
    assert f"Started over instead of resuming on_top_2: {reason}." in report
    assert server.steps_done("on_top_3") == 24
    assert server.steps_done("on_top_2") == done
    assert f"Resumed after step {done} of on_top_2." in server.run(on_a_lora(0.5, **longer)).texts["report"]


def test_another_model_of_the_graph_draws_as_before(server, new_graph, alone):
    """The other model is unloaded to make room for the training, and loaded again."""

    def prompt(*, train=False):
        graph = new_graph()
        # For ComfyUI's cache, this is a different model from the demo model of the other prompts.
        other = graph.add("CrucibleDemoModel", "other model", not_from_cache="other")
        carrying = graph.core_lora("alone.safetensors", other["model"], strength=-1.0)
        graph.draw_anew("other", carrying["MODEL"])
        if train:
            graph.train("beside", **SETTINGS)
        return graph.prompt

    seen = [server.run(prompt(train=train)) for train in (False, True, False)]
    assert "other model" in seen[2].cached
    assert "other" not in seen[2].cached
    assert same_lora(server, "alone", "beside")
    assert largest_difference(seen[0].pictures["other"], alone["base"]) > 0
    for outputs in seen[1:]:
        assert largest_difference(outputs.pictures["other"], seen[0].pictures["other"]) == 0
