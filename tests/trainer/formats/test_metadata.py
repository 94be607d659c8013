import dataclasses
import json

import pytest
from lora_crucible.config import ObjectiveSettings
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.metadata import TrainingFacts, build_metadata, tag_frequency

FACTS = TrainingFacts(
    output_name="my_cat",
    session="1234567890",
    trigger_word="mypetcat",
    base_model_name="/home/someone/models/v1-5.safetensors",
    base_model_identity="abc123",
    prediction_type="epsilon",
    algorithm="lora",
    rank=8,
    alpha=4.0,
    dropout=0.0,
    learning_rate=2e-4,
    text_encoder_learning_rate=None,
    lr_scheduler="constant_with_warmup",
    lr_warmup_steps=50,
    optimizer="torch.optim.adamw.AdamW(weight_decay=0.01)",
    max_grad_norm=1.0,
    steps=480,
    max_train_steps=500,
    epoch=96,
    epochs=100,
    batch_size=2,
    gradient_accumulation_steps=2,
    gradient_checkpointing=False,
    mixed_precision="fp32",
    seed=42,
    resolution=512,
    dataset_name="C:\\Users\\someone\\cat photos",
    dataset_fingerprint="def456",
    captions=("mypetcat, on a sofa", "mypetcat, Outside"),
    caption_dropout_rate=0.1,
    unit="image",
    examples=2,
    regularization_examples=7,
    prior_loss_weight=0.5,
    objective=ObjectiveSettings(),
    batches_per_epoch=10,
    started_at=1_690_000_000.25,
    finished_at=1_690_001_000.5,
    version="0.1.0",
    config={
        "train_data_dir": "/home/someone/datasets/cats",
        "base_model": "~/models/v1-5.safetensors",
        "output_dir": "/somewhere",
        "output_name": "my_cat",
        "lora_rank": 8,
        "sample_prompts": "a: mypetcat / on a sofa",
    },
)


def metadata(architecture="sd15", **changes):
    return build_metadata(ARCHITECTURES[architecture], dataclasses.replace(FACTS, **changes))


def test_kohyas_keys_have_kohyas_values():
    expected = {
        "output_name": "my_cat",
        "base_model_version": "sd_v1",
        "sd_model_name": "v1-5.safetensors",
        "network_module": "networks.lora",
        "network_dim": "8",
        "network_alpha": "4.0",
        "network_dropout": "None",
        "learning_rate": "0.0002",
        "unet_lr": "0.0002",
        "text_encoder_lr": "None",
        "steps": "480",
        "max_train_steps": "500",
        "epoch": "96",
        "num_epochs": "100",
        "batch_size_per_device": "2",
        "total_batch_size": "4",
        "gradient_checkpointing": "False",
        "mixed_precision": "no",
        "seed": "42",
        "resolution": "(512, 512)",
        "num_train_images": "2",
        "num_reg_images": "7",
        "prior_loss_weight": "0.5",
        "caption_dropout_rate": "0.1",
        "training_started_at": "1690000000.25",
    }
    found = metadata()
    assert {key: found[f"ss_{key}"] for key in expected} == expected
    assert json.loads(found["ss_dataset_dirs"]) == {"cat photos": {"n_repeats": 1, "img_count": 2}}
    assert json.loads(found["ss_tag_frequency"]) == {"cat photos": {"mypetcat": 2, "on a sofa": 1, "outside": 1}}


def test_the_modelspec_keys():
    found = metadata()
    modelspec = {key: value for key, value in found.items() if key.startswith("modelspec.")}
    assert modelspec == {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "my_cat",
        "modelspec.description": "Trained with LoRA Crucible: 2 images, 480 steps, rank 8.",
        "modelspec.date": "2023-07-22T04:43:20Z",
        "modelspec.resolution": "512x512",
        "modelspec.trigger_phrase": "mypetcat",
        "modelspec.prediction_type": "epsilon",
    }
    assert found["modelspec.trigger_phrase"] == "mypetcat"


@pytest.mark.parametrize(
    ("architecture", "modelspec", "version"),
    [
        ("sdxl", "stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
        ("flux1", "flux-1-dev/lora", "flux1"),
        ("unknown", "unknown/lora", "unknown"),
    ],
)
def test_the_architecture_is_named(architecture, modelspec, version):
    found = metadata(architecture)
    assert found["modelspec.architecture"] == modelspec
    assert found["ss_base_model_version"] == version


def test_what_does_not_apply_is_left_out():
    found = metadata(trigger_word="", prediction_type="")
    assert "modelspec.trigger_phrase" not in found
    assert "modelspec.prediction_type" not in found
    assert metadata(prediction_type="v_prediction")["modelspec.prediction_type"] == "v"


def test_only_times_and_name_differ_between_two_runs():
    config = {**FACTS.config, "output_dir": "/elsewhere", "output_name": "other"}
    first = metadata()
    second = metadata(output_name="other", started_at=1.7e9, finished_at=1.8e9, config=config)
    assert first.keys() == second.keys()
    assert {key for key in first if first[key] != second[key]} == {
        "ss_output_name",
        "ss_training_started_at",
        "ss_training_finished_at",
        "modelspec.title",
        "modelspec.date",
    }


def test_a_shared_file_does_not_tell_where_things_were():
    found = metadata()
    assert all(isinstance(value, str) for value in found.values())
    assert "someone" not in json.dumps(found)
    assert json.loads(found["crucible.config"]) == {
        "train_data_dir": "cats",
        "base_model": "v1-5.safetensors",
        "lora_rank": 8,
        "sample_prompts": "a: mypetcat / on a sofa",
    }
    assert found["crucible.base_model"] == "abc123"
    assert found["crucible.dataset"] == "def456"
    assert found["crucible.version"] == "0.1.0"


def test_tags_are_counted_as_kohya_counts_them():
    assert list(tag_frequency(["b, A,, a", " c ", ""]).items()) == [("a", 2), ("b", 1), ("c", 1)]


@pytest.mark.parametrize(
    ("algorithm", "module", "arguments"),
    [
        ("lora", "networks.lora", None),
        ("rslora", "networks.lora", None),
        ("dora", "lycoris.kohya", {"algo": "lora", "dora_wd": "True"}),
        ("loha", "lycoris.kohya", {"algo": "loha"}),
        ("lokr", "lycoris.kohya", {"algo": "lokr"}),
    ],
)
def test_algorithms_are_named_as_kohya_and_lycoris_name_them(algorithm, module, arguments):
    metadata = build_metadata(ARCHITECTURES["sd15"], dataclasses.replace(FACTS, algorithm=algorithm))
    assert metadata["ss_network_module"] == module
    found = metadata.get("ss_network_args")
    assert (None if found is None else json.loads(found)) == arguments


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"noise_offset": "None", "min_snr_gamma": "None", "debiased_estimation": "False", "loss_type": "l2"}),
        ({"noise_offset": 0.05, "loss_type": "huber"}, {"noise_offset": "0.05", "loss_type": "huber"}),
        ({"loss_weighting": "min_snr", "min_snr_gamma": 3.0}, {"min_snr_gamma": "3.0", "debiased_estimation": "False"}),
        ({"loss_weighting": "debiased"}, {"min_snr_gamma": "None", "debiased_estimation": "True"}),
    ],
)
def test_the_objective_is_told_in_kohyas_words(settings, expected):
    found = metadata(objective=ObjectiveSettings(**settings))
    assert {key: found[f"ss_{key}"] for key in expected} == expected
