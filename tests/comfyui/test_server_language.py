"""Training the language model in a CLIP, and hearing it answer in core's Generate Text, in a real ComfyUI."""

import json
import signal

import pytest
import yaml
from lora_crucible.demo.text import held_out
from server import ROOT, PromptFailed, Server, largest_difference
from test_server_cancel import cancel, wait_until
from test_server_resume import assert_same_lora
from test_server_training import METADATA_OF_A_RUN, same_tensors
from workflows import REQUEST, SHORT_LANGUAGE_TRAINING, LanguageGraph

pytestmark = pytest.mark.comfyui

TEMPLATE = "teach_a_language_model_your_words_then_draw_them"
RIGHT = next(one.answer for one in held_out() if one.prompt == REQUEST)
STEPS = 24
SETTINGS = {"max_train_steps": STEPS, "save_steps": 4, "sample_every_n_steps": 8, "validate_every_n_steps": 6}
SHORT, SEED = SHORT_LANGUAGE_TRAINING["max_train_steps"], SHORT_LANGUAGE_TRAINING["seed"]


@pytest.fixture(scope="module")
def new_language_graph(server):
    object_info = server.get("/object_info")
    return lambda: LanguageGraph(object_info)


def with_the_clip_itself(graph):
    """Add an answer of the CLIP that is trained on, and an image whose conditioning it makes; neither is cached."""
    graph.ask_anew("answer", graph.language)
    graph.draw("image", graph.model, graph.language, not_from_cache=len(graph.prompt))
    return graph


@pytest.fixture(scope="module")
def untouched(server, new_language_graph):
    """An answer and an image of the CLIP before any training."""
    return server.run(with_the_clip_itself(new_language_graph()).prompt)


@pytest.fixture(scope="module")
def first(server, new_language_graph, untouched):
    """The outputs of a short training, with its clip and its LoRA in use in the same graph."""
    graph = new_language_graph()
    trained = graph.teach("words")
    graph.ask("trained", trained["clip"])
    graph.ask("by socket", graph.add("CrucibleLoadLoRA", clip=graph.language, lora=trained["lora"])["clip"])
    graph.add("LossGraphNode", "loss", loss=trained["loss"])
    for name in ("lora_name", "samples", "report"):
        graph.show(name, trained[name])
    return server.run(graph.prompt)


@pytest.fixture(scope="module")
def later(server, new_language_graph, first):
    """The outputs of two more trainings in the same process, and the saved file in use."""
    graph = new_language_graph()
    graph.teach("same_words")
    other = graph.teach("words", seed=SEED + 1)
    graph.show("other name", other["lora_name"])
    file = {"lora_name": "words.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
    graph.ask("by LoraLoader", graph.add("LoraLoader", model=graph.model, clip=graph.language, **file)["CLIP"])
    graph.ask("by Load LoRA", graph.add("CrucibleLoadLoRA", clip=graph.language, **file)["clip"])
    return server.run(with_the_clip_itself(graph).prompt)


def test_training_changes_the_answer_and_nothing_else(untouched, first, later):
    assert first.texts["trained"] != untouched.texts["answer"]
    assert later.texts["answer"] == untouched.texts["answer"]
    assert largest_difference(later.pictures["image"], untouched.pictures["image"]) == 0
    assert not {"answer", "image"} & later.cached
    assert "demo language model" in later.cached, "the model was loaded again, so its answer would prove nothing"


def test_outputs_tell_what_was_done(first):
    assert first.texts["lora_name"] == "words.safetensors"
    assert f"finished after {SHORT} of {SHORT} steps" in first.texts["report"]
    (loss_graph,) = first.pictures["loss"]
    assert (loss_graph == (0, 0, 255)).all(axis=-1).any(), "no blue curve"


def test_the_last_sample_is_what_generate_text_says(untouched, first):
    lines = first.texts["samples"].splitlines()
    assert lines[:3] == ["Before the first step:", f"  {REQUEST}", f"    {untouched.texts['answer']}"]
    assert lines[-3:] == [f"After step {SHORT}:", f"  {REQUEST}", f"    {first.texts['trained']}"]


@pytest.mark.parametrize("way", ["by socket", "by LoraLoader", "by Load LoRA"])
def test_every_loader_makes_it_answer_as_the_train_node_does(first, later, way):
    assert {**first.texts, **later.texts}[way] == first.texts["trained"]


def test_same_seed_gives_the_same_lora(server, later):
    tensors, metadata = server.lora("words")
    again, metadata_again = server.lora("same_words")
    assert same_tensors(tensors, again)
    assert {key for key in metadata if metadata[key] != metadata_again[key]} <= METADATA_OF_A_RUN


def test_another_seed_gives_another_lora_beside_the_first(server, later):
    assert later.texts["other name"] == "words_2.safetensors"
    assert not same_tensors(server.lora("words")[0], server.lora("words_2")[0])


@pytest.fixture(scope="module")
def template(server, untouched):
    """The ids of the template's nodes by their class, and what they show."""
    path = ROOT / "tests" / "web" / "workflows" / f"{TEMPLATE}.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    return {node["class_type"]: node_id for node_id, node in prompt.items()}, server.run(prompt, seconds=1800)


def test_the_template_teaches_a_word_and_draws_it(untouched, template, server, new_graph):
    ids, outputs = template
    assert outputs.texts[ids["PreviewAny"]].splitlines() == [untouched.texts["answer"], RIGHT]
    before, after = outputs.pictures[ids["PreviewImage"]]
    assert largest_difference(before, after) > 100
    graph = new_graph()
    sampling = {"seed": 8, "steps": 20, "cfg": 1.0}
    graph.draw("small", graph.model, prompt=RIGHT, **sampling)
    latest = graph.prompt["small"]["inputs"]["images"]
    scaled = graph.add("ImageScaleBy", image=latest, upscale_method="bicubic", scale_by=4.0)["IMAGE"]
    graph.add("SaveImage", "direct", images=scaled, filename_prefix="direct")
    assert largest_difference(server.run(graph.prompt).pictures["direct"][0], after) == 0


def test_the_template_reports_what_was_trained(template):
    ids, outputs = template
    rows, run = (outputs.texts[ids[node]] for node in ("CrucibleLoadTextDataset", "CrucibleTrainLanguageLoRA"))
    assert "60 rows that come with the package" in rows
    assert "what is between ⟦ and ⟧ is trained" in rows
    assert "⟦crux, " in rows
    assert "finished after 250 of 250 steps" in run
    assert "Regularization: 60 answers of the base model" in run
    assert "Warning" not in run


def training(new_language_graph, name, **settings):
    graph = new_language_graph()
    dataset = graph.add("CrucibleLoadTextDataset", validation_percent=20)["dataset"]
    trained = graph.teach(name, dataset, **{**SETTINGS, **settings})
    graph.show("report", trained["report"])
    graph.show("samples", trained["samples"])
    graph.ask("trained", trained["clip"])
    return graph.prompt


@pytest.fixture(scope="module")
def whole(server, new_language_graph):
    """The outputs of an uninterrupted run."""
    return server.run(training(new_language_graph, "whole_words"))


def test_cancelled_it_goes_on_when_it_is_queued_again(server, new_language_graph, whole):
    prompt = training(new_language_graph, "cancelled_words")
    prompt_id = server.queue(prompt)
    wait_until(lambda: server.steps_done("cancelled_words") >= 9)
    cancel(server, prompt_id)
    done = server.steps_done("cancelled_words")
    assert done < STEPS, "the run was over before it was cancelled"
    assert server.lora("cancelled_words")[1]["ss_steps"] == str(done)
    texts = server.run(prompt).texts
    assert f"Resumed after step {done} of cancelled_words" in texts["report"]
    assert_same_lora(server, "whole_words", "cancelled_words")
    assert [texts[name] for name in ("samples", "trained")] == [whole.texts[name] for name in ("samples", "trained")]


def test_a_finished_run_is_not_trained_again(server, new_language_graph, whole):
    texts = server.run(training(new_language_graph, "whole_words", sample_every_n_steps=5)).texts
    assert "Nothing was trained: whole_words is already finished" in texts["report"]
    assert [texts[name] for name in ("samples", "trained")] == [whole.texts[name] for name in ("samples", "trained")]


@pytest.fixture
def start(comfyui_path, prepared_python, tmp_path):
    """A function that starts a server; all servers use the same base folder."""
    started = []

    def start_one():
        started.append(Server(comfyui_path, prepared_python, tmp_path))
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


def test_a_killed_server_goes_on_after_its_restart(start, server, new_language_graph, whole):
    killed = start()
    prompt = training(new_language_graph, "killed_words")
    killed.queue(prompt)
    wait_until(lambda: killed.steps_done("killed_words") >= 14)
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    assert not list((killed.output / "loras").glob("*.safetensors"))

    second = start()
    texts = second.run(prompt).texts
    assert "Resumed after step 12 of killed_words" in texts["report"]
    assert same_tensors(second.lora("killed_words")[0], server.lora("whole_words")[0])
    assert [texts[name] for name in ("samples", "trained")] == [whole.texts[name] for name in ("samples", "trained")]


def test_the_summary_has_the_values_that_suit_rows_and_model(server, new_language_graph):
    graph = new_language_graph()
    dataset = graph.add("CrucibleLoadTextDataset", regularization_rows=True, reg_data_dir="demo")["dataset"]
    config = graph.add("CrucibleConfigureLanguageLoRA", dataset=dataset, clip=graph.language)
    graph.show("summary", config["summary"])
    graph.show("yaml", config["yaml"])
    texts = server.run(graph.prompt).texts
    assert "lora_rank = 8: for models under 7B and 54 rows" in texts["summary"]
    assert "lora_alpha = 16: twice the rank" in texts["summary"]
    for word in ("image", "caption", "resolution", "noise"):
        assert word not in texts["summary"]
    written = yaml.safe_load(texts["yaml"])
    assert written["task_type"] == "text-generation"
    assert written["train_data_dir"] == "demo"
    assert (written["regularization_rows"], written["reg_data_dir"]) == (True, "demo")


def test_rows_of_a_file_are_listed_and_their_options_reach_the_run(server, new_language_graph):
    folder = server.base / "input" / "questions"
    folder.mkdir()
    rows = [{"frage": f"the {word}", "antwort": f"a {word} heart"} for word in ("red", "blue", "green", "pink")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "photo.png").write_bytes(b"")
    (folder / "photo.txt").write_text("a caption")
    listed = server.options("CrucibleLoadTextDataset", "train_data_dir")
    assert {"demo", "input/questions", "input/questions/rows.jsonl"} <= set(listed)
    assert "input/questions/photo.txt" not in listed
    graph = LanguageGraph(server.get("/object_info"))
    loaded = graph.add(
        "CrucibleLoadTextDataset",
        train_data_dir="input/questions/rows.jsonl",
        text_columns="prompt=frage, answer=antwort",
        max_seq_length=64,
        train_on_prompts=True,
        clip=graph.language,
    )
    graph.show("rows", loaded["report"])
    trained = graph.teach("questions", loaded["dataset"], max_train_steps=2)
    graph.show("report", trained["report"])
    texts = server.run(graph.prompt).texts
    assert "Columns as set: prompt=frage, answer=antwort" in texts["rows"]
    shown = texts["rows"].rpartition("⟦")[2].partition("⟧")[0]
    assert "the " in shown, "the prompt is trained too"
    assert " heart" in shown
    written = yaml.safe_load((server.output / "crucible" / "questions" / "config.yaml").read_text())
    assert (written["max_seq_length"], written["train_on_prompts"]) == (64, True)


def test_conditioning_of_images_with_the_trained_clip_is_warned_of(server, new_language_graph):
    graph = new_language_graph()
    trained = graph.teach("branched", max_train_steps=2)
    graph.show("report", trained["report"])
    graph.draw("by trained", graph.model, graph.add("CLIPSetLastLayer", clip=trained["clip"])["CLIP"])
    graph.draw("by original", graph.model, graph.language)
    report = server.run(graph.prompt).texts["report"]
    assert report.startswith(
        "Warning: this node's clip also makes the conditioning of images, in CLIP Text Encode (Prompt)"
    )
    assert "connect the one from the loader there, and this node's clip to Generate Text only" in report
    assert "Note: the CLIP that was trained on also makes the conditioning of images" in report


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sample_cfg": 5.0}, "sample_cfg = 5 only has a meaning for images"),
        ({"train_text_encoder": True}, "the language model itself is what is trained"),
        ({"epochs": 2}, "keep one of them"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(server, new_language_graph, settings, said):
    graph = new_language_graph()
    graph.teach("refused", **settings)
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert said in failure.value.message


def test_a_text_encoder_that_is_no_language_model_is_refused(server, new_language_graph):
    graph = new_language_graph()
    trained = graph.teach("refused")
    graph.prompt[trained.id]["inputs"]["clip"] = graph.clip
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert "language model" in failure.value.message
    assert not list((server.output / "loras").glob("refused*"))


def test_images_cannot_be_connected(server, new_language_graph):
    graph = new_language_graph()
    graph.teach("refused", graph.add("CrucibleLoadDataset")["dataset"])
    with pytest.raises(PromptFailed) as failure:
        server.run(graph.prompt)
    assert "CRUCIBLE_DATASET" in failure.value.message
