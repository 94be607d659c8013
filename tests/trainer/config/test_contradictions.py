"""Settings that contradict each other are rejected with the reason, by the names that the user wrote."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from lora_crucible.config import SETTINGS, from_widgets, parse_config, setting
from lora_crucible.errors import CrucibleError


@pytest.fixture(autouse=True)
def all_optimizers_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"optimizer": "schedule_free_adamw", "lr_scheduler": "cosine"},
            "lr_scheduler = cosine with optimizer = schedule_free_adamw, which averages",
        ),
        ({"optimizer": "schedule_free_adamw", "ema_decay": 0.9}, "ema_decay = 0.9 with optimizer"),
        (
            {"optimizer_type": "Prodigy", "learning_rate": "1e-4"},
            "learning_rate = 0.0001 with optimizer_type = prodigy",
        ),
        ({"optimizer": "adamw", "learning_rate": 1}, "only prodigy can use a rate this high"),
        ({"optimizer": "adafactor", "adam_beta1": 0.9}, "adam_beta1 = 0.9, but optimizer = adafactor has no betas"),
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "warmup_steps = 5 and warmup_ratio = 0.1 both say"),
        ({"min_snr_gamma": 5}, "min_snr_gamma = 5 only has an effect with loss_weighting = min_snr"),
        ({"huber_c": 0.2}, "huber_c = 0.2 only has an effect with loss_type = huber"),
        ({"mode_scale": 1}, "mode_scale = 1 only has an effect with timestep_sampling = mode"),
        ({"lr_scheduler_num_cycles": 2}, "only has an effect with lr_scheduler = cosine_with_restarts"),
        ({"lr_scheduler_power": 2}, "lr_scheduler_power = 2 only has an effect with lr_scheduler = polynomial"),
        ({"optimizer": "adafactor", "adam_beta2": 0.9}, "adam_beta2 = 0.9, but optimizer = adafactor has no betas"),
        ({"algorithm": "loha", "loraplus_ratio": 4}, "loraplus_ratio = 4 with algorithm = loha"),
        ({"algorithm": "loha", "lora_dropout": 0.1}, "lora_dropout = 0.1 with algorithm = loha"),
    ],
)
def test_fights_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(CrucibleError) as error:
        parse_config(values)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "schedule_free_adamw", "lr_scheduler": "constant_with_warmup"},
        {"optimizer": "prodigy", "learning_rate": 1},
        {"optimizer": "prodigy", "lr_scheduler": "cosine"},
        {"optimizer": "adafactor", "adam_beta1": "auto"},
        {"lr_warmup_steps": "auto", "lr_warmup_ratio": 0.1},
        {"loss_weighting": "min_snr", "min_snr_gamma": 5},
    ],
)
def test_what_goes_together_is_taken(values: dict[str, Any]) -> None:
    parse_config(values)


def test_contradictions_are_shown_beside_wrong_values() -> None:
    with pytest.raises(CrucibleError) as error:
        parse_config({"optimizer": "prodigy", "learning_rate": "1e-4", "batch_size": 0, "min_snr_gamma": "much"})
    for fact in ("3 mistakes", "batch_size = 0", "with optimizer = prodigy", "min_snr_gamma = much"):
        assert fact in str(error.value)


def test_a_node_may_hold_values_that_do_not_act() -> None:
    """A node always has a value for every widget."""
    from_widgets({"loss_weighting": "none", "min_snr_gamma": 3.0, "loss_type": "mse", "huber_delta": 0.5})


OPTIMIZERS = {
    "adamw_8bit": "bitsandbytes",
    "lion": "lion-pytorch",
    "prodigy": "prodigyopt",
    "schedule_free_adamw": "schedulefree",
}


@pytest.mark.parametrize(("optimizer", "package"), OPTIMIZERS.items())
def test_a_missing_package_is_named_with_its_command(
    optimizer: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = package.replace("-", "_")
    monkeypatch.setattr(setting, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(CrucibleError) as error:
        parse_config({"optimizer": optimizer})
    assert f"optimizer = {optimizer}, but the package {package}" in str(error.value)
    assert f'"{sys.executable}" -m pip install {package}' in str(error.value)
    assert optimizer not in SETTINGS["optimizer"].offered
    assert set(OPTIMIZERS) - {optimizer} < set(SETTINGS["optimizer"].offered)


def test_what_needs_no_package_is_always_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "find_spec", lambda name: None)
    assert SETTINGS["optimizer"].offered == ["adamw", "adafactor"]
    assert SETTINGS["lr_scheduler"].offered == list(SETTINGS["lr_scheduler"].choices)
