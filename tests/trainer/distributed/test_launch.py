"""What the launch configs of accelerate ask for, by the variables that accelerate itself makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from lora_crucible.distributed.launch import LaunchRequest, launch_request
from lora_crucible.errors import CrucibleError

EXAMPLES = Path(__file__).parents[3] / "examples" / "accelerate"


def variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment variables that `accelerate launch` would hand over."""
    monkeypatch.setattr("accelerate.utils.launch.os.environ", {})
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "-m", "trainer", "train", "my.yaml"])
    arguments, _, _ = _validate_launch_command(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ""
    return prepare_deepspeed_cmd_env(arguments)[1] if arguments.use_deepspeed else prepare_multi_gpu_env(arguments)


def request(file: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: object) -> LaunchRequest:
    """Return what an example asks for with some fields changed."""
    content = yaml.safe_load(file.read_text())
    section = content.get("fsdp_config") or content.get("deepspeed_config") or content
    section.update(changes)
    changed = folder / file.name
    changed.write_text(yaml.safe_dump(content))
    given = variables(changed, monkeypatch)
    monkeypatch.undo()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return launch_request()


def test_the_examples_ask_for_what_they_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fsdp = request(EXAMPLES / "fsdp.yaml", monkeypatch, tmp_path)
    assert (fsdp.by, fsdp.splits, fsdp.notes) == ("FSDP", True, ())


@pytest.mark.parametrize(("stage", "splits"), [(2, False), (3, True)])
def test_the_examples_of_deepspeed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: int, splits: bool) -> None:
    found = request(EXAMPLES / f"deepspeed_zero{stage}.yaml", monkeypatch, tmp_path)
    assert (found.by, found.splits) == (f"DeepSpeed ZeRO-{stage}", splits)
    (note,) = found.notes
    assert ("PyTorch's FSDP" if splits else "every process keeps all of them") in note


@pytest.mark.parametrize(
    ("changes", "splits", "said"),
    [
        ({"fsdp_reshard_after_forward": False}, False, "the whole base model too"),
        ({"fsdp_version": 1, "fsdp_sharding_strategy": "FULL_SHARD"}, True, ""),
        ({"fsdp_version": 1, "fsdp_sharding_strategy": "SHARD_GRAD_OP"}, False, "SHARD_GRAD_OP"),
        ({"fsdp_version": 1, "fsdp_sharding_strategy": "NO_SHARD"}, False, ""),
        ({"fsdp_version": 1, "fsdp_sharding_strategy": "HYBRID_SHARD"}, True, "HYBRID_SHARD"),
        ({"fsdp_offload_params": True}, True, "fsdp_offload_params"),
        ({"fsdp_activation_checkpointing": True}, True, "gradient_checkpointing"),
    ],
)
def test_fields_of_fsdp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, object], splits: bool, said: str
) -> None:
    found = request(EXAMPLES / "fsdp.yaml", monkeypatch, tmp_path, **changes)
    assert found.splits is splits
    assert said in " ".join(found.notes)
    assert bool(found.notes) is bool(said)


def test_deepspeeds_own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "zero3.json"
    content = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}, "optimizer": {"type": "AdamW"}}
    file.write_text(json.dumps(content))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    found = launch_request()
    assert found.splits
    assert "offload_param of zero3.json" in found.notes[1]
    assert "optimizer of zero3.json" in found.notes[1]
    file.unlink()
    with pytest.raises(CrucibleError, match=r"zero3\.json, which cannot be read"):
        launch_request()


@pytest.mark.parametrize(
    ("variable", "name"),
    [("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"), ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism_config")],
)
def test_other_ways_to_split_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, name: str) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(CrucibleError, match=name):
        launch_request()


def test_nothing_is_asked_for_without_a_launcher() -> None:
    assert launch_request({}) == LaunchRequest()
