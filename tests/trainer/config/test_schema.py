"""The settings describe themselves well enough to generate widgets, YAML and documentation from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lora_crucible
import pytest
from lora_crucible.config import SETTINGS, Setting, TrainingConfig, from_widgets
from lora_crucible.config.setting import AUTO_NUMBER
from lora_crucible.errors import CrucibleError
from pydantic import ValidationError

settings = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


@settings
def test_every_setting_can_become_a_widget(setting: Setting) -> None:
    assert setting.title
    assert setting.description.endswith(".")
    if setting.is_number:
        assert setting.minimum is not None
        assert setting.maximum is not None
        assert setting.step
        assert setting.widget_default == AUTO_NUMBER or setting.minimum <= setting.widget_default <= setting.maximum
    if setting.kind == "choice":
        assert setting.widget_default in setting.choices


def test_aliases_are_unique_and_hide_no_key() -> None:
    names = [name for setting in SETTINGS.values() for name in (setting.name, *setting.aliases)]
    assert len(names) == len(set(names))


def test_untouched_widgets_are_the_default_config() -> None:
    assert from_widgets({name: setting.widget_default for name, setting in SETTINGS.items()}) == TrainingConfig()


def test_auto_is_possible_where_no_one_value_suits_every_run() -> None:
    auto = {name for name, setting in SETTINGS.items() if setting.may_be_auto}
    assert auto == {
        "purpose",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "max_seq_length",
        "long_rows",
        "target_modules",
        "batch_size",
        "gradient_accumulation_steps",
        "epochs",
        "save_steps",
        "max_train_steps",
        "learning_rate",
        "text_encoder_learning_rate",
        "lr_warmup_steps",
        "resolution",
        "caption_source",
        "caption_dropout_rate",
        "validation_percent",
        "loss_weighting",
        "mixed_precision",
        "sample_every_n_steps",
        "sample_cfg",
        "adam_beta1",
        "adam_beta2",
        "lr_scheduler",
        "lr_warmup_ratio",
        "timestep_sampling",
        "timestep_shift",
        "validate_every_n_steps",
        "measure",
        "loader",
    }


def test_a_config_cannot_be_changed_or_contradict_itself() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainingConfig().lora_rank = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="both say how long"):
        TrainingConfig(epochs=1, max_train_steps=1)


def test_the_config_loads_without_heavy_packages() -> None:
    """ComfyUI waits at its start for the node definitions, which read the settings."""
    folder = Path(lora_crucible.__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(folder.parent)!r}); import {folder.name}.config; "
        "print([name for name in ('torch', 'PIL', 'yaml', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_one_number_stands_for_auto_in_all_widgets_and_zero_stands_for_itself() -> None:
    for setting in SETTINGS.values():
        if setting.is_number and setting.may_be_auto:
            assert setting.widget_default == AUTO_NUMBER < setting.minimum, setting.name
            assert getattr(from_widgets({setting.name: setting.widget_default}), setting.name) is None, setting.name
            if setting.minimum == 0 and not setting.minimum_excluded:
                assert getattr(from_widgets({setting.name: 0}), setting.name) == 0, setting.name
            else:
                with pytest.raises(CrucibleError, match=f"{setting.name} = 0, but .*, or auto"):
                    from_widgets({setting.name: 0})


def test_every_whole_number_can_be_chosen_except_for_sizes_in_pixels() -> None:
    """ComfyUI rounds a typed number to the step of its widget, so a larger step puts numbers out of reach."""
    stepped = {name for name, setting in SETTINGS.items() if setting.kind == "integer" and setting.step != 1}
    assert stepped == {"resolution", "bucket_step"}
