"""Tests that a folder's files decide which captioner opens it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny_captioners as tiny
import torch
import transformers
from lora_crucible.captioners import base
from lora_crucible.captioners.blip import BlipCaptioner
from lora_crucible.captioners.chat import ChatCaptioner
from lora_crucible.captioners.florence import FlorenceCaptioner
from lora_crucible.captioners.registry import KINDS, open_captioner
from lora_crucible.captioners.tagger import TaggerCaptioner
from lora_crucible.errors import CrucibleError


def folder_with(folder: Path, config: object, weights: str | None = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights:
        (folder / weights).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "florence2", "architectures": ["Florence2ForConditionalGeneration"]}, FlorenceCaptioner),
        ({"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]}, BlipCaptioner),
        ({"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}, ChatCaptioner),
        ({"model_type": "qwen2_5_vl"}, ChatCaptioner),
        ({"model_type": "qwen3_vl"}, ChatCaptioner),
        ({"model_type": "smolvlm"}, ChatCaptioner),
        ({"model_type": "idefics3"}, ChatCaptioner),
        ({"architecture": "vit_base_patch16_224", "pretrained_cfg": {}}, TaggerCaptioner),
    ],
)
def test_kinds(tmp_path: Path, config: dict[str, object], kind: type) -> None:
    assert type(open_captioner(folder_with(tmp_path, config))) is kind


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}, "BlipForQuestionAnswering"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architecture": "resnet50"}, "resnet50"),
        ({}, "unnamed"),
    ],
)
def test_an_unknown_kind_is_named_with_those_that_are_known(
    tmp_path: Path, config: dict[str, object], name: str
) -> None:
    with pytest.raises(CrucibleError) as error:
        open_captioner(folder_with(tmp_path, config))
    text = str(error.value)
    for fact in (str(tmp_path), name, "Choose one", *(kind.supported for kind in KINDS)):
        assert fact in text


def test_florence_with_code_of_its_own_is_refused_with_the_right_repository(tmp_path: Path) -> None:
    config = {"model_type": "florence2", "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"}}
    with pytest.raises(CrucibleError, match=r"program code.*never run here.*florence-community/Florence-2-base"):
        open_captioner(folder_with(tmp_path, config))


def test_other_models_with_code_of_their_own_are_refused(tmp_path: Path) -> None:
    config = {"model_type": "moondream", "architectures": ["Moondream"], "auto_map": {"AutoModel": "hub.Moondream"}}
    with pytest.raises(CrucibleError, match=r"Moondream.*program code from its repository, which is never run"):
        open_captioner(folder_with(tmp_path, config))


@pytest.mark.parametrize(("weights", "said"), [("pytorch_model.bin", "pytorch_model.bin"), (None, "no weights at all")])
def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path, weights: str | None, said: str) -> None:
    config = {"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]}
    with pytest.raises(CrucibleError, match=r"model\.safetensors") as error:
        open_captioner(folder_with(tmp_path, config, weights))
    assert said in str(error.value)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match=r"is not a captioner.*no config\.json.*Choose the folder"):
        open_captioner(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_config_that_is_broken(tmp_path: Path, content: str) -> None:
    with pytest.raises(CrucibleError, match=r"config\.json cannot be read.*Download the file again"):
        open_captioner(folder_with(tmp_path, content))


def test_a_damaged_or_incomplete_model_says_so(tmp_path: Path) -> None:
    folder = tiny.blip(tmp_path / "blip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CrucibleError, match=r"blip cannot be loaded.*damaged.*download the model again"):
        open_captioner(folder).load(torch.float32)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CrucibleError, match="cannot be loaded"):
        open_captioner(folder).load(torch.float32)


def test_a_chat_model_without_a_template_says_so(tmp_path: Path) -> None:
    folder = tiny.idefics3(tmp_path / "smol")
    for file in (*folder.glob("chat_template*"),):
        file.unlink()
    with pytest.raises(CrucibleError, match=r"no chat template.*chat_template\.json.*Instruct"):
        open_captioner(folder).load(torch.float32)


@pytest.mark.parametrize("package", ["timm", "num2words", "torchvision"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with (
        pytest.raises(CrucibleError, match=f"needs {package}, which is not installed") as error,
        base._loading(tmp_path / "model"),
    ):
        raise ImportError(f"Tagger requires the {package} library but it was not found in your environment.")
    assert f'"{sys.executable}" -m pip install {package}' in str(error.value)


def test_a_transformers_that_is_too_old_for_florence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path, {"model_type": "florence2"})
    real = transformers

    class Old:
        __version__ = "4.51.0"

        def __getattr__(self, name: str) -> object:
            if name.startswith("Florence2"):
                raise AttributeError(name)
            return getattr(real, name)

    monkeypatch.setitem(sys.modules, "transformers", Old())
    with pytest.raises(CrucibleError, match=r"Florence-2.*4\.51\.0.*4\.56 or newer"):
        open_captioner(folder).load(torch.float32)
