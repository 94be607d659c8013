"""Tests of downloads with a stand-in for the hub; the hub's own library is not tested here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from lora_crucible.captioners.download import get_captioner
from lora_crucible.captioners.models import KNOWN
from lora_crucible.errors import CrucibleError

MODEL = KNOWN[0]
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "merges.txt": b"a b",
    "selected_tags.csv": b"name,category\n",
    "model.safetensors": b"w" * 4000,
    "pytorch_model.bin": b"pickle",
    "model.onnx": b"onnx",
    "modeling_florence2.py": b"print()",
    "README.md": b"hello",
    "onnx/config.json": b"{}",
    "flax.safetensors": b"other",
}
WANTED = {"config.json", "tokenizer.json", "merges.txt", "selected_tags.csv", "model.safetensors"}


class Hub:
    """A hub with files by name; `calls` records the requested downloads."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.calls: list[tuple[str, str, str]] = []
        self.error: Exception | None = None

    def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        assert files_metadata
        siblings = [SimpleNamespace(rfilename=name, size=len(content)) for name, content in self.files.items()]
        return SimpleNamespace(sha=revision or "newest", siblings=siblings)

    def download(self, repo: str, name: str, *, revision: str, local_dir: Path, tqdm_class: type) -> str:
        self.calls.append((repo, name, revision))
        content = self.files[name]
        with tqdm_class(total=len(content), initial=0, desc=name, unit="B", unit_scale=True, name="hub") as bar:
            bar.update(len(content) // 2)
            bar.update(len(content) - len(content) // 2)
        (local_dir / ".cache").mkdir(exist_ok=True)
        (local_dir / name).write_bytes(content)
        return str(local_dir / name)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return hub


def test_a_download_gets_what_is_needed_at_the_pinned_revision(tmp_path: Path, hub: Hub) -> None:
    said: list[str] = []
    reports: list[tuple[int, int, str]] = []
    folder = get_captioner(
        MODEL.label, [tmp_path], download=True, progress=lambda *report: reports.append(report), announce=said.append
    )
    assert folder == tmp_path / MODEL.name
    assert {path.name for path in folder.iterdir()} == WANTED
    assert {call[1] for call in hub.calls} == WANTED
    assert {(call[0], call[2]) for call in hub.calls} == {(MODEL.repo, MODEL.revision)}
    total = sum(len(FILES[name]) for name in WANTED)
    for fact in (MODEL.repo, constants.ENDPOINT, "0.00 GB", "5 files", MODEL.revision, str(folder)):
        assert fact in said[0]
    assert [report[0] for report in reports] == sorted(report[0] for report in reports)
    assert reports[-1][:2] == (total, total)
    assert any(0 < total - done < 2500 for done, *_ in reports)  # within the largest file
    assert [path.name for path in tmp_path.iterdir()] == [MODEL.name]


def test_a_folder_that_lacks_the_model_is_filled(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / MODEL.name).mkdir()
    (tmp_path / MODEL.name / "notes.md").write_text("mine")
    folder = get_captioner(MODEL.label, [tmp_path], download=True)
    assert {path.name for path in folder.iterdir()} == {*WANTED, "notes.md"}


def test_what_is_there_is_not_fetched_again(tmp_path: Path, hub: Hub) -> None:
    get_captioner(MODEL.name, [tmp_path], download=True)
    hub.calls.clear()
    assert get_captioner(MODEL.repo, [tmp_path], download=True) == tmp_path / MODEL.name
    assert get_captioner(MODEL.label, [tmp_path], download=False) == tmp_path / MODEL.name
    assert not hub.calls


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(CrucibleError, match="downloading is off"):
        get_captioner(MODEL.label, [tmp_path], download=False)
    assert not hub.calls


def test_another_repository_is_taken_at_its_newest_revision(tmp_path: Path, hub: Hub) -> None:
    folder = get_captioner("someone/fine-tuned", [tmp_path], download=True)
    assert folder == tmp_path / "fine-tuned"
    assert {call[2] for call in hub.calls} == {"newest"}


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/passwd", "plain", "a/b/c"])
def test_names_that_are_no_repositories(tmp_path: Path, hub: Hub, name: str) -> None:
    with pytest.raises(CrucibleError, match="was not found in the folders for captioners"):
        get_captioner(name, [tmp_path], download=True)
    assert not hub.calls


@pytest.mark.parametrize("error", [ConnectionError("Max retries exceeded"), OSError("401 Client Error\ndetails")])
def test_a_failed_download_names_the_settings(tmp_path: Path, hub: Hub, error: Exception) -> None:
    hub.error = error
    with pytest.raises(CrucibleError, match=r"could not be downloaded") as failed:
        get_captioner(MODEL.label, [tmp_path], download=True)
    text = str(failed.value)
    facts = (MODEL.repo, constants.ENDPOINT, str(error).splitlines()[0], "HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY")
    for fact in (*facts, "HF_HUB_OFFLINE", str(tmp_path / MODEL.name)):
        assert fact in text
    assert "details" not in text


def test_a_mirror_is_used_and_named(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library reads HF_ENDPOINT when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    hub.error = ConnectionError("refused")
    with pytest.raises(CrucibleError, match=r"from https://hub\.example \(ConnectionError: refused\)"):
        get_captioner(MODEL.label, [tmp_path], download=True)


def test_offline_is_said(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CrucibleError, match=r"HF_HUB_OFFLINE.*forbids it") as error:
        get_captioner(MODEL.label, [tmp_path], download=True)
    assert str(tmp_path / MODEL.name) in str(error.value)
    assert not hub.calls


def test_a_repository_without_safetensors_is_not_fetched(tmp_path: Path, hub: Hub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(CrucibleError, match=r"no model\.safetensors.*can run code.*Nothing was downloaded"):
        get_captioner(MODEL.label, [tmp_path], download=True)
    assert not hub.calls


def test_a_disk_that_is_too_small_is_said_before(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CrucibleError, match=r"needs 0\.00 GB.*Free some space"):
        get_captioner(MODEL.label, [tmp_path], download=True)
    assert not hub.calls


def test_a_cancelled_download_is_not_listed_and_goes_on_later(tmp_path: Path, hub: Hub) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if name == "model.safetensors" and done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_captioner(MODEL.label, [tmp_path], download=True, progress=stop)
    assert not (tmp_path / MODEL.name).exists()
    assert (tmp_path / f".{MODEL.name}.partial" / "config.json").exists()
    assert get_captioner(MODEL.label, [tmp_path], download=True) == tmp_path / MODEL.name
    assert [path.name for path in tmp_path.iterdir()] == [MODEL.name]


def test_a_hub_library_that_shows_no_bytes_still_shows_files(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(repo: str, name: str, *, revision: str, local_dir: Path) -> str:
        (local_dir / name).write_bytes(hub.files[name])
        return str(local_dir / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", older)
    reports: list[int] = []
    get_captioner(MODEL.label, [tmp_path], download=True, progress=lambda done, *_: reports.append(done))
    assert len(reports) == len(WANTED) + 1
