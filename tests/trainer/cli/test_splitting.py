"""What the command line makes of a launch that asks for a split base model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lora_crucible.cli.opening import open_base_model
from lora_crucible.cli.splitting import asks_for_splitting
from lora_crucible.config import parse_config
from lora_crucible.distributed.processes import Processes, set_current
from lora_crucible.errors import CrucibleError


@pytest.fixture
def two() -> Iterator[None]:
    """Two processes that do not talk."""
    processes = Processes()
    processes.count = 2
    set_current(processes)
    yield
    set_current(Processes())


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")


@pytest.mark.usefixtures("two")
def test_the_launch_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asks_for_splitting()
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not asks_for_splitting()


def test_alone_the_model_stays_whole() -> None:
    assert not asks_for_splitting()


@pytest.mark.usefixtures("two")
def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.distributed.fsdp.FSDPModule.reset_iter_state")
    with pytest.raises(CrucibleError, match=r"Update torch to 2\.13"):
        asks_for_splitting()


@pytest.mark.usefixtures("two")
def test_4_bits_are_refused() -> None:
    values = {"task_type": "text-generation", "base_model": "demo", "train_data_dir": "demo", "load_in_4bit": True}
    with pytest.raises(CrucibleError, match="load_in_4bit is on, but packed 4-bit weights cannot be cut"):
        open_base_model(parse_config(values), lambda: None)


@pytest.mark.usefixtures("two")
def test_what_comfyui_opens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_crucible.cli.opening.opened_by_comfyui", lambda config: True)
    with pytest.raises(CrucibleError, match=r"model\.safetensors is opened by ComfyUI, which keeps its models whole"):
        open_base_model(parse_config({"base_model": "model.safetensors", "train_data_dir": "demo"}), lambda: None)
