import json

import pytest
from lora_crucible.formats.trigger_words import MAX_SIDECAR, plain, read_sidecars, trigger_words


def kohya(frequency, images):
    return {
        "ss_tag_frequency": json.dumps({"10_x": frequency}),
        "ss_dataset_dirs": json.dumps({"10_x": {"n_repeats": 10, "img_count": images}}),
    }


def words(metadata, sidecars=()):
    return trigger_words(metadata, sidecars)[0]


def test_what_the_trainer_wrote_comes_first(tmp_path):
    lora = tmp_path / "a.safetensors"
    lora.with_suffix(".json").write_text('{"activation text": "mine"}')
    metadata = {"modelspec.trigger_phrase": " ohwx woman ", **kohya({"other": 20}, 20)}
    assert trigger_words(metadata, read_sidecars(lora)) == (("ohwx woman",), "from the file")
    del metadata["modelspec.trigger_phrase"]
    assert trigger_words(metadata, read_sidecars(lora)) == (("mine",), "from a.json")


def test_tags_of_nearly_every_caption():
    assert words(kohya({"ohwx": 20, "smile": 9, "forest": 3}, 20)) == ("ohwx",)
    assert words(kohya({"ohwx": 18}, 20)) == ("ohwx",)
    assert words(kohya({"ohwx": 17}, 20)) == ()


@pytest.mark.parametrize(
    "metadata",
    [
        kohya({f"tag {n}": 20 for n in range(4)}, 20),  # as in datasets with one kind of image
        kohya({"a": 2, "b": 2}, 2),
        kohya({"a": "many"}, 20),
        {"ss_tag_frequency": "not json"},
        {"ss_tag_frequency": "[" * 100_000},
        {"ss_tag_frequency": '{"a": 3}'},
        {"ss_tag_frequency": "[1]", "ss_dataset_dirs": "{}"},
        {"ss_datasets": '[1, {"tag_frequency": 3}]'},
        {},
    ],
)
def test_no_tag_names_the_subject(metadata):
    assert trigger_words(metadata) == ((), "")


def test_several_datasets_of_newer_versions():
    datasets = [
        {"tag_frequency": {"a": {"ohwx": 9, "red": 2}}, "dataset_dirs": {"a": {"img_count": 9}}},
        {"tag_frequency": {"b": {"zkz": 5}}, "dataset_dirs": {"b": {"img_count": 5}}},
    ]
    assert words({"ss_datasets": json.dumps(datasets)}) == ("ohwx", "zkz")


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


def test_text_of_files_is_made_plain():
    assert plain("a\x00b\r\n\x1b[31mc\u202ed\udcff") == "a b [31mc d"
    assert plain("<b>角色</b>") == "<b>角色</b>"
    assert len(plain("x" * 10**6)) == 300
    hostile = trigger_words({"modelspec.trigger_phrase": "\u202e" * 10 + "y" * 10**6})[0]
    assert len(hostile[0]) == 300
