"""Files are told apart by what is in them, and refused by what they seem to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.cli.main import main
from lora_crucible.conversion.convert import convert
from lora_crucible.conversion.recognize import recognize
from lora_crucible.errors import CrucibleError

FILES = Path(__file__).parent / "files"

KINDS = {
    "lora_scripts.toml": "sd-scripts",
    "kohya_dataset_class.toml": "dataset",
    "musubi_dataset.toml": "dataset",
    "flux_command.sh": "command",
    "flux_command.bat": "command",
    "sdxl_command.ps1": "command",
    "kohya_ss_flux.json": "kohya_ss",
    "onetrainer_flux.json": "onetrainer",
    "onetrainer_concepts.json": "concepts",
    "ai_toolkit_flux.yaml": "ai-toolkit",
    "ai_toolkit_qwen.json": "ai-toolkit",
}

REFUSED = {
    "workflow": ('{"nodes": [], "links": []}', "is a workflow of ComfyUI"),
    "api workflow": ('{"3": {"class_type": "KSampler", "inputs": {}}}', "a workflow of ComfyUI in the form of its API"),
    "adapter": ('{"peft_type": "LORA", "r": 8}', "the config of an adapter that PEFT saved"),
    "model": (
        '{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30"}',
        "the config of a diffusers model",
    ),
    "SimpleTuner": ('{"--model_family": "flux", "--lora_rank": 16}', "a config of SimpleTuner"),
    "diffusion-pipe": ("[model]\ntype = 'flux'\n[adapter]\ntype = 'lora'\nrank = 8\n", "a config of diffusion-pipe"),
    "LLaMA-Factory": ("stage: sft\nfinetuning_type: lora\nlora_target: all\nunknown_of_it: 3\n", "LLaMA-Factory"),
    "accelerate": ("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\n", "the config of accelerate"),
    "ours": ("base_model: demo\ntrain_data_dir: demo\nlora_rank: 8\n", "is a config of LoRA Crucible already"),
    "prose": ("Dear reader, this is a letter.", 'it starts with "Dear reader'),
    "broken JSON": ('{"LoRA_type": ', "looks like JSON, but cannot be read"),
    "full fine-tune": (
        "accelerate launch sdxl_train.py --pretrained_model_name_or_path=a --train_data_dir=b --learning_rate=1e-5",
        "starts sdxl_train.py, which trains a whole model",
    ),
    "embedding": (
        '{"training_method": "EMBEDDING", "model_type": "STABLE_DIFFUSION_15"}',
        "has training_method = EMBEDDING, but only LoRAs are trained here",
    ),
    "generation": (
        '{"job": "generate", "config": {"name": "x", "process": [{"type": "to_folder"}]}}',
        "a job of ai-toolkit that trains no LoRA (its processes: to_folder)",
    ),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ending", ["", ".txt"])
def test_the_content_says_which_program_a_file_is_of(name: str, ending: str, tmp_path: Path) -> None:
    if ending and Path(name).suffix in (".yaml", ".bat"):
        return
    path = tmp_path / f"{name}{ending}"
    path.write_bytes((FILES / name).read_bytes())
    assert recognize(path).kind == KINDS[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_called_by_what_it_is(name: str, tmp_path: Path) -> None:
    text, expected = REFUSED[name]
    path = tmp_path / "file.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CrucibleError) as error:
        convert([path])
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"), [(b"\x89PNG\0\1\2\3" * 9, "is no config file"), (b"", "no config that")]
)
def test_files_without_text(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CrucibleError, match=expected):
        recognize(tmp_path / "a.json")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(CrucibleError, match=r"A similar path exists: .*config\.toml"):
        recognize(tmp_path / "confg.toml")


def test_a_config_and_its_dataset_are_taken_together(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(
        'pretrained_model_name_or_path = "/m"\nnetwork_module = "networks.lora"\nnetwork_dim = 8\nseed = 1\n'
    )
    (conversion,) = convert([config, FILES / "kohya_dataset_class.toml"])
    assert (conversion.settings["lora_rank"], conversion.settings["repeats"]) == (8, 11)
    assert conversion.settings["train_data_dir"] == "C:\\pictures\\otter"
    alone = convert([FILES / "kohya_dataset_class.toml"])[0]
    assert "lora_rank" not in alone.settings
    assert alone.settings["batch_size"] == 7


def test_the_command_writes_a_config_that_check_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        (FILES / "lora_scripts.toml")
        .read_text()
        .replace("./models/base.ckpt", "demo")
        .replace('"./pictures"', '"demo"')
    )
    source = tmp_path / "old.toml"
    source.write_text(text.replace('reg_data_dir = "./animals"\n', "").replace("AdamW8bit", "AdamW"))
    assert main(["convert-config", str(source)]) == 0
    said = capsys.readouterr().out
    assert "clip_skip = 2" in said
    assert f"Saved {tmp_path / 'old.yaml'}" in said
    assert main(["check", str(tmp_path / "old.yaml")]) == 0
    assert "lora_rank = 36" in capsys.readouterr().out
    assert main(["convert-config", str(source)]) == 0
    assert (tmp_path / "old_2.yaml").is_file(), "an existing file is never overwritten"


def test_several_trainings_become_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "mine.yaml"
    assert main(["convert-config", str(FILES / "ai_toolkit_sdxl_two_jobs.yaml"), "--output", str(output)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_1.yaml", "mine_2.yaml"]
    assert "These are 2 trainings, so 2 files were written" in capsys.readouterr().out


def test_packages_that_are_missing_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lora_crucible.config.setting.find_spec", lambda name: None)
    assert main(["convert-config", str(FILES / "kohya_ss_flux.json"), "--output", str(tmp_path / "a.yaml")]) == 0
    assert "optimizer: adamw_8bit" in (tmp_path / "a.yaml").read_text()
    assert "To train here: optimizer = adamw_8bit, but the package bitsandbytes" in capsys.readouterr().out
