"""States of other programs are refused by their names, with their LoRA, and nothing in them is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.adapter_folder import lora_path
from lora_crucible.runs.checkpoint import read_state

STATES = {
    "kohya, an epoch": (
        "otter-000004-state",
        ("model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl", "train_state.json"),
        ("otter-000004.safetensors", "otter.safetensors"),
        "kohya's sd-scripts",
        "otter-000004.safetensors",
    ),
    "kohya, the end": (
        "otter-state",
        ("model.safetensors", "optimizer.bin", "random_states_0.pkl"),
        ("otter.safetensors",),
        "kohya's sd-scripts",
        "otter.safetensors",
    ),
    "kohya, alone": (
        "otter-step00000100-state",
        ("model.safetensors", "optimizer.bin"),
        (),
        "kohya's sd-scripts",
        "otter-step00000100-state/model.safetensors",
    ),
    "diffusers": (
        "checkpoint-500",
        ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "pytorch_lora_weights.safetensors"),
        (),
        "diffusers' scripts",
        "checkpoint-500/pytorch_lora_weights.safetensors",
    ),
    "transformers": (
        "checkpoint-200",
        ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"),
        (),
        "transformers' Trainer",
        "checkpoint-200/adapter_model.safetensors",
    ),
    "OneTrainer": (
        "2026-01-01-backup-300",
        ("meta.json", "optimizer/optimizer.pt", "lora/lora.safetensors"),
        (),
        "a backup of OneTrainer",
        "2026-01-01-backup-300/lora/lora.safetensors",
    ),
    "ai-toolkit": (
        "otter_v1",
        ("optimizer.pt", "otter_v1_000000250.safetensors", "otter_v1_000000500.safetensors", "config.yaml"),
        (),
        "ai-toolkit",
        "otter_v1/otter_v1_000000500.safetensors",
    ),
    "SimpleTuner": (
        "checkpoint-100",
        ("optimizer.bin", "training_state.json", "pytorch_lora_weights.safetensors"),
        (),
        "SimpleTuner",
        "checkpoint-100/pytorch_lora_weights.safetensors",
    ),
    "DeepSpeed": (
        "epoch4",
        ("latest", "zero_to_fp32.py", "adapter_model.safetensors"),
        (),
        "DeepSpeed",
        "adapter_model",
    ),
    "Lightning": ("last.ckpt", (), ("otter.safetensors",), "PyTorch Lightning", "otter.safetensors"),
    "an optimizer": ("optimizer.pt", (), (), "ai-toolkit", "look for its .safetensors file"),
}


class Bomb:
    """A pickle that would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


def make(folder: Path, name: str, inside: tuple[str, ...], beside: tuple[str, ...]) -> Path:
    import pickle

    content = pickle.dumps(Bomb())
    state = folder / name
    for path in [state / one for one in inside] + [folder / one for one in beside] or []:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if not inside:
        state.write_bytes(content)
    return state


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_another_program_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    state, inside, beside, program, lora = STATES[name]
    path = make(tmp_path, state, inside, beside)
    with pytest.raises(CrucibleError) as error:
        read_state(path)
    text = str(error.value)
    assert text.startswith(f"{path} cannot be resumed: it is ")
    assert program in text
    assert "continue_from" in text
    assert lora in text


@pytest.mark.parametrize(
    "name", [name for name in STATES if STATES[name][1] and name not in ("transformers", "DeepSpeed")]
)
def test_as_a_lora_to_continue_from_its_lora_is_named(name: str, tmp_path: Path) -> None:
    state, inside, beside, program, lora = STATES[name]
    path = make(tmp_path, state, inside, beside)
    with pytest.raises(CrucibleError) as error:
        lora_path(path)
    assert program in str(error.value)
    assert f"Name its LoRA itself: {tmp_path / lora}." in str(error.value)


def test_an_empty_folder_is_no_state_of_anyone(tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match="cannot be resumed: No such file"):
        read_state(tmp_path)
