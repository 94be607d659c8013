import json

import pytest
from lora_crucible.formats.lora_sidecars import plain, read_sidecars
from lora_crucible.formats.trigger_words import trigger_words


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


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"ss_tag_frequency": json.dumps({"1_ohwx": {"ohwx": 1}})}, ("ohwx",)),  # ai-toolkit
        ({"ss_tag_frequency": json.dumps({"1_a red, fox": {"a red, fox": 1}})}, ("a red, fox",)),
        ({"ss_tag_frequency": json.dumps({"1_photos": {"ohwx": 1}})}, ()),
        ({"ss_tag_frequency": json.dumps({"1_ohwx": {"ohwx": 1, "smile": 1}})}, ()),
        ({"trained_words": "ohwx woman", **kohya({"photo": 20}, 20)}, ("ohwx woman",)),  # SimpleTuner
        ({"trigger_words": '["ohwx", "red hat", 3]'}, ("ohwx", "red hat")),
        ({"trigger_word": "[trigger]"}, ("[trigger]",)),
        ({"ss_trigger_words": " ", "trigger_phrase": "ohwx"}, ("ohwx",)),
    ],
)
def test_where_trainers_state_the_trigger_word(metadata, found):
    assert trigger_words(metadata) == (found, "from the file" if found else "")


def test_text_of_files_is_made_plain():
    assert plain("a\x00b\r\n\x1b[31mc\u202ed\udcff") == "a b [31mc d"
    assert plain("<b>角色</b>") == "<b>角色</b>"
    assert len(plain("x" * 10**6)) == 300
    hostile = trigger_words({"modelspec.trigger_phrase": "\u202e" * 10 + "y" * 10**6})[0]
    assert len(hostile[0]) == 300
