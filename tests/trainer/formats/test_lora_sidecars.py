"""Notes of other tools next to a LoRA."""

import json

import pytest
from lora_crucible.formats.lora_sidecars import MAX_SIDECAR, read_sidecars
from lora_crucible.formats.trigger_words import trigger_words


def words(metadata, sidecars):
    return trigger_words(metadata, sidecars)[0]


PAGE = {
    "modelVersions": [
        {"trainedWords": ["another"], "files": [{"name": "b.safetensors"}]},
        {"trainedWords": ["ohwx"], "files": [{"name": "a.safetensors"}]},
    ]
}
RGTHREE = [{"word": "ohwx", "civitai": True, "metadata": True}, {"word": "1girl", "metadata": True, "count": 30}]


@pytest.mark.parametrize(
    ("file", "notes"),
    [
        ("a.json", {"activation text": "ohwx"}),
        ("a.json", PAGE),
        ("a.json", {"modelVersions": [{"trainedWords": ["ohwx"]}]}),
        ("a.metadata.json", {"file_name": "a", "civitai": {"trainedWords": ["ohwx"]}}),
        ("a.safetensors.rgthree-info.json", {"trainedWords": RGTHREE}),
        ("a.safetensors.rgthree-info.json", {"trainedWords": [{"word": "ohwx", "user": True}]}),
        ("a.swarm.json", {"modelspec.trigger_phrase": "ohwx"}),
        ("a.cm-info.json", {"ModelName": "A", "TrainedWords": ["ohwx"]}),
        ("a.cminfo.json", {"TrainedWords": ["ohwx"]}),
        ("a.civitai.info", {"trainedWords": "ohwx", "model": {"name": "A"}}),
    ],
)
def test_the_words_of_each_tool(tmp_path, file, notes):
    (tmp_path / file).write_text(json.dumps(notes), encoding="utf-8-sig")
    found = trigger_words({}, read_sidecars(tmp_path / "a.safetensors"))
    assert found == (("ohwx",), f"from {file}")


@pytest.mark.parametrize(
    "notes",
    [
        {"civitai": None, "trainedWords": None, "modelVersions": 3},
        {"civitai": {"civitai": {"trainedWords": ["deeper"]}}},
        {"modelVersions": [{"trainedWords": ["x"]}, {"trainedWords": ["y"], "files": [{"name": "b.safetensors"}]}]},
        {"modelVersions": [3, {"files": "a.safetensors"}]},
        {"trainedWords": [{"word": "1girl", "metadata": True, "count": 30}, {"word": 3}, [], None]},
    ],
)
def test_notes_without_words_of_this_lora(tmp_path, notes):
    (tmp_path / "a.metadata.json").write_text(json.dumps(notes))
    (sidecar,) = read_sidecars(tmp_path / "a.safetensors")
    assert (sidecar.trigger_words, sidecar.problem) == ((), "")


def test_the_users_own_notes_come_first(tmp_path):
    lora = tmp_path / "a.safetensors"
    lora.with_suffix(".civitai.info").write_text('{"trainedWords": ["of the page"]}')
    lora.with_suffix(".json").write_text('{"activation text": "mine"}')
    assert words({}, read_sidecars(lora)) == ("mine",)


@pytest.mark.parametrize(
    ("tips", "strength"),
    [('{"strength": 0.7}', 0.7), ("{}", None), ("[", None), (3, None), ('{"strength": "x"}', None)],
)
def test_the_strength_in_lora_manager(tmp_path, tips, strength):
    (tmp_path / "a.metadata.json").write_text(json.dumps({"usage_tips": tips}))
    assert read_sidecars(tmp_path / "a.safetensors")[0].strength == strength


def test_civitais_words(tmp_path):
    lora = tmp_path / "a.safetensors"
    (tmp_path / "a.civitai.info").write_text('{"trainedWords": ["one,", "two words", 3, "", "one"]}')
    assert words({}, read_sidecars(lora)) == ("one", "two words")


def test_a_preferred_strength(tmp_path):
    lora = tmp_path / "a.safetensors"
    for written, read in (("0.6", 0.6), ("0", None), ('"x"', None), ("true", None), ("1e99", None), ("NaN", None)):
        lora.with_suffix(".json").write_text(f'{{"preferred weight": {written}}}')
        assert read_sidecars(lora)[0].strength == read


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
        (b'["a"]', "contains no notes"),
        (b" " * (MAX_SIDECAR + 1), "is larger than 10 MB"),
    ],
)
def test_broken_notes_are_left_aside_with_a_word(tmp_path, content, problem):
    lora = tmp_path / "a.safetensors"
    lora.with_suffix(".json").write_bytes(content)
    (sidecar,) = read_sidecars(lora)
    assert problem in sidecar.problem
    assert sidecar.problem.startswith("a.json")
    assert trigger_words({"modelspec.trigger_phrase": "ohwx"}, [sidecar])[0] == ("ohwx",)


def test_no_notes(tmp_path):
    (tmp_path / "a.json").mkdir()
    assert read_sidecars(tmp_path / "a.safetensors") == []
