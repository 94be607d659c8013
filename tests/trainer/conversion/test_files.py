"""Files with the keys of real configs of other programs, and what they are here.

The shapes are those of configs that people use: presets and templates of the programs, and scripts and files from
public repositories. Values, paths and prompts are made up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from lora_crucible.config import setting as settings
from lora_crucible.config.schema import TrainingConfig
from lora_crucible.config.yaml_file import checked, read_settings
from lora_crucible.conversion.conversion import Conversion
from lora_crucible.conversion.convert import convert
from lora_crucible.conversion.write import report_of, yaml_of

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Expected:
    """What a file must become. `says` are parts of what is said about it, and `values` other settings."""

    files: tuple[str, ...]
    rank: int
    alpha: float
    rate: float
    text_rate: float | None
    batch: int
    length: tuple[str, int]
    repeats: int
    resolution: int
    says: tuple[str, ...] = ()
    values: tuple[tuple[str, object], ...] = ()
    number: int = 0


EXPECTED = [
    Expected(
        ("kohya_ss_flux.json",), 12, 6, 4e-4, None, 6, ("max_train_steps", 900), 1, 768,
        ("min_snr_gamma = 5: flow models have no", "--w", "fp8_base"),
        (
            ("vae", "/models/ae.safetensors"), ("text_encoders", "/models/clip_l.safetensors\n/models/t5.safetensors"),
            ("sample_steps", 24), ("sample_cfg", 3.5), ("timestep_sampling", "logit_normal"), ("timestep_shift", 1),
        ),
    ),
    Expected(
        ("kohya_ss_sdxl_lokr.json",), 24, 12, 1.0, 1.0, 6, ("epochs", 9), 1, 896,
        ("multires_noise_iterations = 6", "module_dropout", "rank_dropout"),
        (("algorithm", "lokr"), ("optimizer", "prodigy"), ("target_modules", "linear_and_convolution"), ("seed", 77)),
    ),
    Expected(
        ("kohya_ss_locon.json",), 48, 24, 1.2e-4, 6e-5, 2, ("epochs", 1), 1, 576,
        ("512 x 640", "conv_dim = 16, conv_alpha = 8: convolutions have rank 48 and alpha 24"),
        (("aspect_ratio_buckets", False), ("allow_upscaling", True), ("noise_offset", 0.05)),
    ),
    Expected(
        ("kohya_ss_loha.json",), 20, 10, 1e-4, 1e-4, 4, ("epochs", 2), 1, 512,
        ("bucket_reso_steps = 1: left out", "caption_extension = .none-use-foldername", "scale_weight_norms = 1"),
        (("algorithm", "loha"), ("lr_warmup_ratio", None), ("loss_weighting", "min_snr"), ("min_snr_gamma", 10)),
    ),
    Expected(
        ("kohya_ss_prodigy.json",), 40, 20, 1.0, 1.0, 3, ("epochs", 160), 1, 1024,
        ("use_bias_correction", "optimizer_args, d0"),
        (("optimizer", "prodigy"), ("weight_decay", 0.01), ("bucket_step", 32)),
    ),
    Expected(
        ("kohya_ss_with_dataset.json",), 10, 5, 7e-4, 7e-4, 6, ("epochs", 1), 6, 960,
        ("keep_tokens_separator = |||", "kohya_dataset_sizes.toml"),
        (("extra_resolutions", "640"), ("lr_warmup_ratio", 0.05), ("horizontal_flip", True)),
    ),
    Expected(
        ("onetrainer_sdxl.json",), 20, 10, 0.9, None, 6, ("epochs", 40), 1, 960,
        ("put it into all_images under the name 3_swimming", "counted in batches there", "optimizer.d_coef"),
        (("lr_warmup_steps", 60), ("caption_source", "file_name"), ("min_snr_gamma", 6), ("optimizer", "prodigy")),
    ),
    Expected(
        ("onetrainer_sd15.json",), 16, 1, 4.95e-4, 2e-5, 2, ("epochs", 100), 1, 448,
        ("learning_rate_scaler = BATCH", "concept_file_name"),
        (("ema_decay", 0.995), ("lr_warmup_steps", 200), ("train_text_encoder", True)),
    ),
    Expected(
        ("onetrainer_flux.json",), 28, 14, 1.5e-4, None, 5, ("epochs", 100), 1, 832,
        ("transformer.weight_dtype = NFLOAT_4", "dynamic_timestep_shifting shifts by the image's size"),
        (("extra_resolutions", "640"), ("logit_mean", 0.3), ("logit_std", 1.2), ("timestep_shift", None)),
    ),
    Expected(
        ("onetrainer_qwen.json",), 16, 1, 6e-4, None, 1, ("epochs", 100), 4, 704,
        ("samples, height, seed, width",),
        (("algorithm", "dora"), ("shuffle_caption", True), ("keep_tokens", 2), ("horizontal_flip", True)),
    ),
    Expected(
        ("onetrainer_zimage.json",), 9, 3, 4.5e-4, None, 4, ("epochs", 100), 1, 576,
        ("layer_filter = ^(?=.*attention)",),
        (("algorithm", "loha"), ("mixed_precision", "bf16"), ("target_modules", "attention_and_feed_forward")),
    ),
    Expected(
        ("ai_toolkit_flux.yaml",), 18, 9, 1.3e-4, None, 6, ("max_train_steps", 500), 2, 960,
        ("a step there is one batch, so 1500 of them are 500 steps here",),
        (
            ("extra_resolutions", "704, 448"), ("sample_prompts", "ohwx, an otter on a raft\nan otter reading a map"),
            ("layer_patterns", "*single_transformer_blocks.4.proj_out*\n*single_transformer_blocks.9.proj_out*"),
        ),
    ),
    Expected(
        ("ai_toolkit_sd35.yaml",), 22, 11, 8e-5, None, 4, ("max_train_steps", 700), 1, 832,
        ("train.linear_timesteps", "train.skip_first_sample"),
        (("reg_data_dir", "/pictures/animals"), ("timestep_sampling", "uniform"), ("timestep_shift", 1)),
    ),
    Expected(
        ("ai_toolkit_wan22.yaml",), 30, 15, 1.1e-4, None, 5, ("max_train_steps", 1800), 1, 640,
        ("train.switch_boundary_every = 10", "train_low_noise"),
        (("weight_decay", 2e-4), ("extra_resolutions", "512")),
    ),
    Expected(
        ("ai_toolkit_qwen.json",), 14, 14, 1.7e-4, None, 6, ("max_train_steps", 2200), 1, 576,
        ("ignore_if_contains", "train.optimizer = automagic", "train.timestep_type = weighted"),
        (("algorithm", "lokr"), ("mask_source", "file"), ("horizontal_flip", True)),
    ),
    Expected(
        ("ai_toolkit_sdxl_two_jobs.yaml",), 26, 13, 0.8, 0.6, 6, ("max_train_steps", 400), 1, 896,
        (),
        (("target_modules", "linear_and_convolution"), ("output_name", "otter_five_1"), ("min_snr_gamma", 4)),
    ),
    Expected(
        ("ai_toolkit_sdxl_two_jobs.yaml",), 6, 3, 1.9e-4, None, 6, ("max_train_steps", 500), 1, 896,
        (),
        (("output_name", "otter_five_2"), ("train_data_dir", "/pictures/heron")),
        number=1,
    ),
    Expected(
        ("lora_scripts.toml",), 36, 18, 1.5e-4, 1.5e-5, 3, ("epochs", 12), 1, 576,
        ("clip_skip = 2", "sample_sampler = euler_a"),
        (("lr_scheduler_num_cycles", 2), ("prior_loss_weight", 0.8), ("reg_data_dir", "./animals")),
    ),
    Expected(
        ("lora_scripts_gui.toml",), 44, 22, 9e-5, None, 8, ("epochs", 8), 1, 896,
        ("save_precision = bf16", "--d, --h, --w"),
        (("lr_warmup_ratio", 0.05), ("adam_beta2", 0.98), ("sample_negative_prompt", "blurry"), ("optimizer", "lion")),
    ),
    Expected(
        ("sd_scripts_sdxl.toml",), 34, 17, 2.5e-5, None, 10, ("epochs", 4), 7, 1024,
        ("832 x 1216", "max_train_steps = 9999", "in_json"),
        (("optimizer", "adafactor"), ("max_grad_norm", 1000), ("lr_warmup_steps", 60), ("caption_dropout_rate", 0.05)),
    ),
    Expected(
        ("flux_command.sh",), 38, 19, 1.4e-4, None, 14, ("epochs", 6), 11, 544,
        ("a step averages 14 images", "train_blocks = single", "lr_warmup_steps = 30: lr_scheduler = constant"),
        (
            ("mixed_precision", "bf16"), ("timestep_shift", 3.1582), ("logit_std", 1.1), ("huber_delta", 0.2),
            ("trigger_word", "ohwx otter"), ("reg_data_dir", "C:\\pictures\\animals"), ("adam_beta2", 0.95),
        ),
    ),
    Expected(
        ("flux_command.bat",), 54, 27, 7e-4, None, 2, ("max_train_steps", 1200), 1, 544,
        ("ae = %VAE_MODEL_DIR%: the file does not set this variable", "optimizer_args, warmup_steps = 120"),
        (("train_data_dir", "D:/pictures/otter"), ("optimizer", "schedule_free_adamw"), ("weight_decay", 0.1)),
    ),
    Expected(
        ("sdxl_command.ps1",), 46, 23, 0.5, 0.4, 4, ("epochs", 10), 1, 960,
        ("optimizer_type = DAdaptation: prodigy here", "adds --resume under conditions that are not followed"),
        (("shuffle_caption", True), ("output_name", "otter")),
    ),
    Expected(
        ("sd15_command.sh",), 50, 25, 1.6e-4, 1.8e-5, 4, ("epochs", 10), 1, 480,
        ("convolutions have rank 50 and alpha 25",),
        (("algorithm", "loha"), ("min_snr_gamma", 5), ("optimizer", "adamw_8bit")),
    ),
    Expected(
        ("musubi_wan.sh",), 42, 21, 1.7e-4, None, 16, ("epochs", 16), 5, 704,
        ("960 x 544", "dit_high_noise", "max_timestep = 875"),
        (("loraplus_ratio", 4), ("timestep_shift", 5), ("base_model", "models/wan_low.safetensors")),
    ),
    Expected(
        ("sdxl_from_the_prompt.txt",), 5, 1, 1.8e-4, None, 3, ("max_train_steps", 600), 1, 768,
        ("sample_prompts = D:/prompts.json", "there is no seed"),
        (("aspect_ratio_buckets", False), ("train_text_encoder", False), ("sample_every_n_steps", 150)),
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def every_optimizer_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A config may be meant for another computer, so packages that are missing here must not matter."""
    monkeypatch.setattr(settings, "find_spec", lambda name: object())


def accepted(text: str) -> TrainingConfig:
    """Return the config that a converted file is, as `check` reads it."""
    return checked(read_settings(text, "the converted file"))


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: f"{one.files[0]}-{one.number}")
def test_a_real_config_says_the_same_here(expected: Expected) -> None:
    conversion = convert([FILES / name for name in expected.files])[expected.number]
    config = accepted(yaml_of(conversion))
    assert (config.lora_rank, config.lora_alpha) == (expected.rank, expected.alpha)
    assert config.learning_rate == pytest.approx(expected.rate, rel=1e-3)
    assert config.text_encoder_learning_rate == expected.text_rate
    assert config.train_text_encoder is (expected.text_rate is not None)
    assert config.batch_size is not None
    assert config.gradient_accumulation_steps is not None
    assert config.batch_size * config.gradient_accumulation_steps == expected.batch
    assert (config.repeats, config.resolution) == (expected.repeats, expected.resolution)
    name, value = expected.length
    assert getattr(config, name) == value
    for setting, wanted in expected.values:
        assert getattr(config, setting) == wanted, setting
    report = report_of(conversion)
    for text in expected.says:
        assert text in report


@pytest.mark.parametrize("name", sorted({one.files[0] for one in EXPECTED}))
def test_no_key_vanishes(name: str) -> None:
    """Each key of a file is the origin of a value in the YAML, or the report names it."""
    for conversion in convert([FILES / name]):
        assert len(conversion.given) > 10
        told = set(re.findall(r"\w+", f"{yaml_of(conversion)} {report_of(conversion)}"))
        assert set(conversion.given) <= told
        assert len(conversion.unsaid) <= max(9, len(conversion.given) // 5), (
            "too many keys are only listed as taken together with others"
        )


NEW_KEYS = {
    "lora_scripts.toml": ("[others]\n", "[others]\nbrand_new_option = 3\n"),
    "flux_command.sh": ("--seed 8", "--seed 8 --brand_new_option 3"),
    "kohya_dataset_class.toml": ("keep_tokens = 2\n", "keep_tokens = 2\nbrand_new_option = 3\n"),
    "kohya_ss_flux.json": ("{\n", '{\n"brand_new_option": 3,\n'),
    "onetrainer_zimage.json": ("{\n", '{\n"brand_new_option": 3,\n'),
    "onetrainer_concepts.json": ("{\n", '{\n"brand_new_option": 3,\n'),
    "ai_toolkit_flux.yaml": ("steps: 1500\n", "steps: 1500\n        brand_new_option: 3\n"),
    "ai_toolkit_sd35.yaml": ("caption_ext: txt,", "caption_ext: txt, brand_new_option: 3,"),
}


@pytest.mark.parametrize("name", NEW_KEYS)
def test_a_key_that_nobody_knows_is_named(name: str, tmp_path: Path) -> None:
    before, after = NEW_KEYS[name]
    text = (FILES / name).read_text(encoding="utf-8")
    assert before in text
    (tmp_path / name).write_text(text.replace(before, after, 1), encoding="utf-8")
    (conversion,) = convert([tmp_path / name])
    assert any("brand_new_option" in one and "does not know this key" in one for one in conversion.lost)


def test_secrets_are_never_shown() -> None:
    for name in ("sd_scripts_sdxl.toml", "onetrainer_qwen.json"):
        (conversion,) = convert([FILES / name])
        assert "hidden-in-the-test" not in yaml_of(conversion) + report_of(conversion)


def test_every_line_of_the_yaml_is_yaml_or_a_comment() -> None:
    for name in sorted({one.files[0] for one in EXPECTED}):
        for conversion in convert([FILES / name]):
            loaded = yaml.safe_load(yaml_of(conversion))
            assert set(loaded) == set(conversion.settings)


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028"])
def test_no_name_of_a_file_and_no_value_ends_a_comment(end: str) -> None:
    conversion = Conversion("a program", f"a{end}base_model: other.toml", "a")
    conversion.set("lora_rank", 4, f"rank{end}lora_alpha: 1")
    conversion.lose("notes", f"none{end}seed: 1")
    conversion.guess(f"something{end}epochs: 3")
    assert yaml.safe_load(yaml_of(conversion)) == {"lora_rank": 4}
