"""The Text Dataset from Lists node in a real ComfyUI: lists of other nodes become rows."""

from __future__ import annotations

import shutil

import pytest
from lora_crucible.demo import DATASET_DIR
from server import PromptFailed

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def images(server):
    """A folder with 20 images and captions in ComfyUI's input folder."""
    return shutil.copytree(DATASET_DIR, server.base / "input" / "for_lists").name


MOST = 10
"""The most inputs of core's Create List."""


def words(graph, *texts):
    """Return a list of texts from core's nodes."""
    return joined(graph, [graph.add("PrimitiveString", value=text)["STRING"] for text in texts])


def joined(graph, links):
    """Return one list of what several outputs give."""
    while True:
        parts = [links[start : start + MOST] for start in range(0, len(links), MOST)]
        lists = [{f"inputs.input{number}": link for number, link in enumerate(part)} for part in parts]
        links = [graph.add("CreateList", **part)["list"] for part in lists]
        if len(links) == 1:
            return links[0]


def captions(graph, folder):
    """Return the captions that Auto Caption hands on; none is written, because no image lacks one."""
    dataset = graph.add("CrucibleLoadDataset", train_data_dir=f"input/{folder}")
    return graph.add("CrucibleAutoCaption", dataset=dataset["dataset"])["texts"]


def test_captions_of_the_same_images_become_prompts_and_answers(server, new_graph, images):
    graph = new_graph()
    clip = graph.add("CrucibleDemoLanguageModel")["clip"]
    of_core = graph.add("LoadImageTextDataSetFromFolder", folder=images)["texts"]
    lists = {"prompts": of_core, "answers": captions(graph, images)}
    made = graph.add("CrucibleTextDatasetFromLists", **lists, validation_percent=10)
    graph.show("report", made["report"])
    read = graph.add("CrucibleTextDatasetFromLists", **lists, clip=clip)
    graph.show("read", read["report"])
    texts = server.run(graph.prompt).texts
    assert "Dataset from lists: 18 rows" in texts["report"]
    assert "20 rows of the layout prompt and answer" in texts["report"]
    assert "Validation: 2 rows held out" in texts["report"]
    assert "from lists, row " in texts["read"]
    assert "tokens per epoch are trained" in texts["read"]


def test_texts_alone_and_options(server, new_graph, images):
    graph = new_graph()
    made = graph.add("CrucibleTextDatasetFromLists", texts=captions(graph, images), long_rows="leave_out")
    graph.show("report", made["report"])
    assert "20 rows of the layout text" in server.run(graph.prompt).texts["report"]


@pytest.mark.parametrize(
    ("lists", "parts"),
    [
        ({}, ["got no texts, so there is nothing to train on"]),
        ({"prompts": ["a", "b"]}, ["got 2 prompts and no answers"]),
        ({"prompts": ["a", "b"], "answers": ["c", "d", "e"]}, ["got 2 prompts and 3 answers", "as many prompts"]),
        ({"prompts": ["a"], "texts": ["b"]}, ["texts as well as prompts or answers"]),
    ],
)
def test_lists_that_do_not_belong_together(server, new_graph, lists, parts):
    graph = new_graph()
    made = graph.add("CrucibleTextDatasetFromLists", **{name: words(graph, *texts) for name, texts in lists.items()})
    graph.show("report", made["report"])
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    for part in parts:
        assert part in failed.value.message


def test_one_prompt_for_all_and_an_empty_answer(server, new_graph):
    graph = new_graph()
    asked = graph.add("PrimitiveString", value="Write a prompt")["STRING"]
    made = graph.add("CrucibleTextDatasetFromLists", prompts=asked, answers=words(graph, "a cat", "", "an owl"))
    graph.show("report", made["report"])
    report = server.run(graph.prompt).texts["report"]
    assert "Dataset from lists: 2 rows" in report
    assert "1 row has no text or no answer (from lists, row 2)" in report


def test_rows_of_lists_are_trained_and_heard(server, new_graph):
    graph = new_graph()
    clip = graph.add("CrucibleDemoLanguageModel")["clip"]
    things = [f"{size} {colour} {shape}" for size in ("tiny", "huge") for colour in ("red", "blue", "green")
              for shape in ("heart", "circle", "square", "cross")]  # fmt: skip
    made = graph.add(
        "CrucibleTextDatasetFromLists",
        prompts=words(graph, *things),
        answers=words(graph, *(f"i shall draw a {thing} for you" for thing in things)),
    )
    settings = {"max_train_steps": 60, "batch_size": 8, "learning_rate": 0.01, "lora_rank": 8, "measure": "never"}
    config = graph.add("CrucibleConfigureLanguageLoRA", dataset=made["dataset"], **settings)
    graph.show("yaml", config["yaml"])
    trained = graph.add(
        "CrucibleTrainLanguageLoRA",
        clip=clip,
        dataset=made["dataset"],
        config=config["config"],
        output_name="of_lists",
    )
    graph.show("report", trained["report"])
    loaded = graph.add("CrucibleLoadLoRA", clip=clip, lora=trained["lora"])
    graph.show("info", loaded["info"])
    for name, one in (("before", clip), ("trained", trained["clip"]), ("loaded", loaded["clip"])):
        answer = graph.add("TextGenerate", clip=one, prompt="yellow heart", max_length=24, sampling_mode="off")
        graph.show(name, answer["generated_text"])
    texts = server.run(graph.prompt).texts
    assert texts["before"] == "a yellow heart on a white background"
    assert texts["loaded"] == texts["trained"]
    assert texts["loaded"].startswith("i shall draw")
    assert "from lists" in texts["report"]
    assert "The rows of this dataset come from other nodes and are not in a file" in texts["yaml"]
    for part in ("of_lists.safetensors", "Made for: a language model", "LoRA Crucible", "Matching keys: 56 of 56"):
        assert part in texts["info"]
