"""Scripts that start a training are read with their variables, lists and conditions, and nothing in them is run."""

from __future__ import annotations

import pytest
from lora_crucible.conversion.command_lines import command_lines

START = "accelerate launch train_network.py --network_dim 8"


def options(script: str) -> dict[str, object]:
    (command,) = command_lines(script)
    return command.options


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"{START} \\\n  --seed 1 \\\n  --resolution=512,768", {"seed": "1", "resolution": "512,768"}),
        (f"{START} ^\n --output_dir \"C:\\my runs\"^\n --seed 2", {"output_dir": "C:\\my runs", "seed": "2"}),
        (f"{START} `\n --seed 3", {"seed": "3"}),
        (f"SEED=4\n{START} --seed $SEED", {"seed": "4"}),
        (f"set SEED=5\n{START} --seed %SEED%", {"seed": "5"}),
        (f"$seed = 6 # mine\n{START} --seed $seed", {"seed": "6"}),
        (f"set /A STEPS=100*3\n{START} --max_train_steps=%STEPS%", {"max_train_steps": "300"}),
        (f"A=0\nif [[ $A == 1 ]]; then E+=(\"--lowram\"); fi\nE+=(\"--seed 7\")\n{START} ${{E[@]}}", {"seed": "7"}),
        (f"ARGS=(\n  --seed 8 # it\n  --lowram\n)\n{START} \"${{ARGS[@]}}\"", {"seed": "8", "lowram": True}),
        (f"{START} --optimizer_args \"weight_decay=0.1\" \"betas=0.9,0.99\" --seed ${{SEED:-9}}",
         {"optimizer_args": ["weight_decay=0.1", "betas=0.9,0.99"], "seed": "9"}),
        (f"{START} --seed 10 > log.txt 2>&1 &", {"seed": "10"}),
        (f"# {START} --seed 1\n{START} --seed 11", {"seed": "11"}),
    ],
)  # fmt: skip
def test_options(script: str, expected: dict[str, object]) -> None:
    assert options(script) == {"network_dim": "8", **expected}


def test_what_cannot_be_followed_is_said() -> None:
    (command,) = command_lines(
        f"DIT=a\nDIT=b\nif [ -f x ]; then\n  E+=(--resume x)\nfi\n{START} --dit $DIT --vae $NOWHERE --seed 1 --seed 2"
    )
    assert command.options == {"network_dim": "8", "dit": "b", "seed": "2"}
    assert command.unset == {"vae": "$NOWHERE"}
    assert command.repeated == ("seed",)
    assert any("DIT has several values" in text for text in command.unsure)
    assert any("--resume under conditions" in text for text in command.unsure)


def test_several_commands_are_several_trainings() -> None:
    assert [one.options["seed"] for one in command_lines(f"{START} --seed 1\n{START} --seed 2\n")] == ["1", "2"]
