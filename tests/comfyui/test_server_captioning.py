"""The Auto Caption node in a real ComfyUI."""

from __future__ import annotations

import pytest
import tiny_captioners as tiny
from server import PromptFailed
from test_server_cancel import cancel, wait_until

pytestmark = pytest.mark.comfyui

IMAGES = 5


@pytest.fixture(scope="module")
def captioner(server):
    """The name of a captioner that is put into ComfyUI's folder while the server is running."""
    tiny.blip(server.base / "models" / "captioners" / "tiny-blip")
    return "tiny-blip"


def put_images(server, name):
    folder = server.base / "input" / name
    folder.mkdir()
    for seed in range(IMAGES):
        tiny.picture(seed, (64, 64)).save(folder / f"{seed}.png")
    return folder


def add_captioning(graph, folder, captioner, **settings):
    dataset = graph.add("CrucibleLoadDataset", "load", train_data_dir=f"input/{folder.name}", trigger_word="crux")
    settings = {"captioner": captioner, "max_length": 4, **settings}
    captioned = graph.add("CrucibleAutoCaption", "caption", dataset=dataset["dataset"], **settings)
    graph.show("texts", captioned["texts"])
    return captioned


def test_a_captioner_that_was_put_there_is_listed_beside_the_downloads(server, captioner):
    options = server.options("CrucibleAutoCaption", "captioner")
    assert options[0] == "Florence-2-base (download, 0.5 GB)"
    assert options[-1] == captioner


def test_captions_are_trained_on_and_no_file_changes(server, new_graph, captioner):
    folder = put_images(server, "travelling")
    graph = new_graph()
    captioned = add_captioning(graph, folder, captioner)
    graph.train("captioned", dataset=captioned["dataset"], max_train_steps=2, sample_prompts="crux")
    outputs = server.run(graph.prompt)
    assert f"{IMAGES} images captioned by tiny-blip, 0 left unchanged" in outputs.texts["caption"]
    texts = outputs.texts["texts"].splitlines()
    assert len(texts) == IMAGES
    assert all(text.startswith("crux, word") for text in texts)
    assert sorted(path.name for path in folder.iterdir()) == [f"{seed}.png" for seed in range(IMAGES)]
    again = server.run(graph.prompt)
    assert {"load", "caption"} <= again.cached
    assert not (server.output / "loras" / "captioned_2.safetensors").exists()


def test_written_files_change_no_caption(server, new_graph, captioner):
    folder = put_images(server, "written")
    graph = new_graph()
    add_captioning(graph, folder, captioner, mode="append", write="text files")
    first = server.run(graph.prompt)
    texts = first.texts["texts"].splitlines()
    assert [(folder / f"{seed}.txt").read_text().strip() for seed in range(IMAGES)] == texts
    second = server.run(graph.prompt)
    assert "load" not in second.cached
    assert second.texts["texts"] == first.texts["texts"]
    assert not list(folder.glob("*.bak"))
    third = server.run(graph.prompt)
    assert {"load", "caption"} <= third.cached


def test_a_training_is_not_repeated_because_captions_were_written(server, new_graph, captioner):
    folder = put_images(server, "trained_once")
    graph = new_graph()
    captioned = add_captioning(graph, folder, captioner, write="text files")
    trained = graph.train("once", dataset=captioned["dataset"], max_train_steps=2, sample_prompts="crux")
    graph.show("name", trained["lora_name"])
    first = server.run(graph.prompt)
    second = server.run(graph.prompt)
    assert "load" not in second.cached
    assert second.texts["name"] == first.texts["name"] == "once.safetensors"
    assert not (server.output / "loras" / "once_2.safetensors").exists()
    (folder / "0.txt").write_text("another caption")
    third = server.run(graph.prompt)
    assert third.texts["name"] == "once_2.safetensors"


def test_one_table(server, new_graph, captioner):
    folder = put_images(server, "table")
    (folder / "3.txt").write_text("mine")
    graph = new_graph()
    add_captioning(graph, folder, captioner, write="metadata.csv")
    server.run(graph.prompt)
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file_name,text"
    assert '3.png,"crux, mine"' in lines
    assert len(lines) == IMAGES + 1


def test_cancel_keeps_what_is_done(server, new_graph, captioner):
    folder = put_images(server, "cancelled")
    graph, count = new_graph(), 30
    settings = {"max_length": 55, "batch_size": 1, "write": "text files", "mode": "replace"}
    for seed in range(IMAGES, count):
        tiny.picture(seed, (64, 64)).save(folder / f"{seed}.png")
    add_captioning(graph, folder, captioner, **settings)
    prompt_id = server.queue(graph.prompt)
    cache = server.output / "crucible" / ".captions"
    known = set(cache.glob("*.jsonl"))
    wait_until(lambda: any(len(path.read_text().split("\n")) > 4 for path in set(cache.glob("*.jsonl")) - known))
    cancel(server, prompt_id)
    written = len(list(folder.glob("*.txt")))
    assert 0 < written < count
    outputs = server.run(graph.prompt)
    assert len(outputs.texts["texts"].splitlines()) == count
    assert len(list(folder.glob("*.txt"))) == count


def test_a_captioner_that_is_not_there_says_where_to_put_it(server, new_graph):
    folder = put_images(server, "no_captioner")
    graph = new_graph()
    add_captioning(graph, folder, "Florence-2-base (download, 0.5 GB)")
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    for fact in ("downloading is off", "0.5 GB", str(server.base / "models" / "captioners" / "Florence-2-base")):
        assert fact in failed.value.message


def test_the_demo_dataset_is_not_written_to(server, new_graph, captioner):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset")
    graph.add("CrucibleAutoCaption", dataset=dataset["dataset"], captioner=captioner, write="text files")
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    assert "demo dataset" in failed.value.message


def test_no_captioner_is_needed_where_nothing_is_missing(server, new_graph):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset")
    captioned = graph.add("CrucibleAutoCaption", "caption", dataset=dataset["dataset"])
    graph.show("texts", captioned["texts"])
    outputs = server.run(graph.prompt)
    assert "nothing to do" in outputs.texts["caption"]
    assert len(outputs.texts["texts"].splitlines()) == 20
