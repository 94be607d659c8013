"""Mistakes in a real ComfyUI: the user gets a helpful message, and no files are left behind."""

import pytest
from checkpoints import write_small_sd3
from PIL import Image
from server import PACK_FOLDER, PromptFailed, Server
from workflows import DemoGraph

pytestmark = pytest.mark.comfyui


def put_image(path, caption=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)


def put_broken_image(path):
    put_image(path, "a red picture")
    path.write_bytes(path.read_bytes()[:60])


@pytest.fixture(scope="module")
def bad_folders(server):
    """Image folders that are created while the server is running, as users do."""
    folder = server.base / "input"
    (folder / "empty").mkdir()
    put_image(folder / "nested" / "inner" / "one.png", "a red picture")
    put_image(folder / "uncaptioned" / "one.png")
    put_broken_image(folder / "broken" / "one.png")
    put_image(folder / "partly_broken" / "whole.png", "a red picture")
    put_broken_image(folder / "partly_broken" / "torn.png")


@pytest.fixture(scope="module")
def bare_checkpoint(server):
    """A checkpoint without text encoder and VAE."""
    write_small_sd3(server.base / "models" / "checkpoints" / "bare.safetensors", "model.diffusion_model.")
    return "bare.safetensors"


def files_of_runs(server):
    found = {path for folder in ("loras", "crucible") for path in (server.output / folder).rglob("*")}
    return {path for path in found if ".cache" not in path.parts}  # the cache of encoded images may stay


def failure(server, graph):
    """Run a prompt that must fail without leaving files; return the message that the user sees."""
    before = files_of_runs(server)
    with pytest.raises(PromptFailed) as failed:
        server.run(graph.prompt)
    assert files_of_runs(server) == before
    return failed.value.message


def assert_says(message, *parts):
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"


@pytest.mark.parametrize(
    ("folder", "facts"),
    [
        ("empty", ["contains no images; it is empty", "Put images (", ".png"]),
        ("nested", ["only subfolders that do: inner (1)", "Choose one of them", "inner"]),
        ("uncaptioned", ["1 image has no caption", "one.png", "one.txt", "trigger word"]),
        ("broken", ["None of the images", "(1 found)", "one.png: ", "Replace them"]),
    ],
)
def test_unusable_folder(server, new_graph, bad_folders, folder, facts):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", train_data_dir=f"input/{folder}")
    graph.train("never", dataset=dataset["dataset"])
    assert_says(failure(server, graph), str(server.base / "input" / folder), *facts)


def test_broken_image_is_left_out_and_named(server, new_graph, bad_folders):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", train_data_dir="input/partly_broken")
    graph.show("report", dataset["report"])
    graph.add("PreviewImage", "preview", images=dataset["preview"])
    outputs = server.run(graph.prompt)
    assert_says(outputs.texts["report"], "1 image", "torn.png was skipped: ")
    assert outputs.pictures["preview"].shape[0] == 1


def test_folder_outside_of_comfyui_is_refused(server, new_graph):
    graph = new_graph()
    dataset = graph.add("CrucibleLoadDataset", train_data_dir="input/../..")
    graph.train("never", dataset=dataset["dataset"])
    assert_says(failure(server, graph), "value_not_in_list", "input/../..")


@pytest.mark.parametrize("way_out", ["input/../..", "input//etc", "datasets/../../..", "/etc", "../input", ""])
def test_folder_outside_of_comfyui_is_refused_from_another_node(server, new_graph, way_out):
    """ComfyUI does not check values from another node against its list."""
    graph = new_graph()
    text = graph.add("PrimitiveString", value=way_out)["STRING"]
    switched = graph.add("ComfySwitchNode", switch=True, on_true=text, on_false=text)
    dataset = graph.add("CrucibleLoadDataset", train_data_dir=[switched.id, 0])
    graph.train("never", dataset=dataset["dataset"])
    assert_says(failure(server, graph), repr(way_out), "is not in any folder that ComfyUI may read", "input folder")


@pytest.mark.parametrize("name", ["sub/lora", "../lora", "/tmp/lora", "..\\lora", "..", ""])
def test_output_name_with_a_path(server, new_graph, name):
    graph = new_graph()
    graph.train(name)
    assert_says(failure(server, graph), f"output_name {name!r} cannot be used", "without folders")


@pytest.mark.parametrize(("socket", "output"), [("clip", "CLIP"), ("vae", "VAE")])
def test_checkpoint_without_an_encoder(server, new_graph, bare_checkpoint, socket, output):
    graph = new_graph()
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=bare_checkpoint)
    graph.train("never", **{socket: checkpoint[output]})
    assert_says(failure(server, graph), f"The {output} connected to Train LoRA is empty", "Load a", "loader node")


def test_settings_that_contradict_each_other(server, new_graph):
    graph = new_graph()
    graph.train("never", epochs=3)
    assert_says(failure(server, graph), "epochs = 3", "max_train_steps = 12", "keep one of them")


def test_settings_that_do_not_fit_the_run_free_its_name(server, new_graph):
    graph = new_graph()
    graph.train("never", lr_warmup_steps=50)
    assert_says(failure(server, graph), "lr_warmup_steps = 50", "only 12 steps", "leave it on auto")


HIDE_PEFT = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "peft" else find_spec(name, *rest)
"""


def test_missing_package_is_named_with_the_command_that_installs_it(comfyui_path, prepared_python, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE_PEFT)
    server = Server(comfyui_path, prepared_python, tmp_path / "comfyui", environment={"PYTHONPATH": str(tmp_path)})
    try:
        graph = DemoGraph(server.get("/object_info"))
        assert {"CrucibleTrainLoRA", "CrucibleLoadLoRA", "CrucibleDemoModel"} <= graph.object_info.keys()
        graph.train("never")
        requirements = server.base / "custom_nodes" / PACK_FOLDER / "requirements.txt"
        command = f'"{prepared_python}" -m pip install -r "{requirements}"'
        assert_says(failure(server, graph), "LoRA Crucible needs peft, which is not installed", command)
    finally:
        server.stop()
