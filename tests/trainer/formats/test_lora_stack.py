import unicodedata

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_stack import StackEntry, listed_name, read_stack

LISTED = ["cat.safetensors", "people/ohwx.safetensors", "people\\zkz.safetensors", "old.pt", "a/x.safetensors"]


def test_rows_of_three():
    stack = [("cat.safetensors", 0.5, 1), ("people/ohwx.safetensors", -1.0, 0.0)]
    assert read_stack(stack, LISTED) == [
        StackEntry("cat.safetensors", 0.5, 1.0),
        StackEntry("people/ohwx.safetensors", -1.0, 0.0),
    ]
    assert [entry.as_tuple() for entry in read_stack(stack, LISTED)] == stack


def test_what_other_packs_hand_on():
    stack = [["cat", 1.0, 1.0], ("None", 1.0, 1.0), (None, 0.0, 0.0), None, ["", 1, 1], ("people\\ohwx", 1.0, 1.0)]
    assert [entry.name for entry in read_stack(stack, LISTED)] == ["cat.safetensors", "people/ohwx.safetensors"]
    assert read_stack(None, LISTED) == read_stack([], LISTED) == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cat.safetensors", "cat.safetensors"),
        ("people/zkz", "people\\zkz.safetensors"),
        ("ohwx", "people/ohwx.safetensors"),
        ("old.pt", "old.pt"),
    ],
)
def test_a_name_that_is_clear(written, meant):
    assert listed_name(written, LISTED) == meant


@pytest.mark.parametrize(
    "written", ["dog", "../cat.safetensors", "/etc/passwd", "other/cat.safetensors", "cat\0", ".", "x/../cat", "Cat"]
)
def test_a_name_that_is_not_in_the_list(written):
    with pytest.raises(CrucibleError, match=r"is not in ComfyUI's LoRA folders.*press R"):
        listed_name(written, LISTED)


def test_accents_composed_or_not():
    composed, decomposed = (unicodedata.normalize(form, "café.safetensors") for form in ("NFC", "NFD"))
    assert listed_name(composed, [decomposed]) == listed_name(decomposed, [decomposed]) == decomposed
    assert listed_name("caf\u00e9", [decomposed]) == decomposed
    for name in (composed, decomposed):
        assert listed_name(name, [composed, decomposed]) == name
    with pytest.raises(CrucibleError, match="could be any of"):
        listed_name("caf\u00e9", [composed, decomposed])


def test_both_endings_of_safetensors_files():
    assert listed_name("cat", ["cat.sft"]) == "cat.sft"
    assert listed_name("cat.sft", ["cat.safetensors", "cat.sft"]) == "cat.sft"
    with pytest.raises(CrucibleError, match=r"any of cat.safetensors, cat.sft.*ending"):
        listed_name("cat", ["cat.safetensors", "cat.sft"])


def test_a_whole_path_in_one_of_the_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [str(tmp_path / "models" / "loras")]
    for name in (f"{folders[0]}/a/x.safetensors", "~/models/loras/a/x", f"{folders[0]}/a\\x"):
        assert listed_name(name, LISTED, folders) == "a/x.safetensors"
    for name in ("~/elsewhere/a/x.safetensors", "/a/x.safetensors", f"{folders[0]}/../x.safetensors"):
        with pytest.raises(CrucibleError, match="is not in ComfyUI's LoRA folders"):
            listed_name(name, LISTED, folders)


def test_similar_names_are_offered():
    with pytest.raises(CrucibleError, match=r"Similar names are cat"):
        listed_name("cta.safetensors", LISTED)


def test_a_name_of_several_files():
    with pytest.raises(CrucibleError, match=r"could be any of a/x.safetensors, b/x.safetensors.*its folder"):
        listed_name("x", ["a/x.safetensors", "b/x.safetensors"])
    assert listed_name("x", ["a/x.safetensors", "x.safetensors"]) == "x.safetensors"


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ("cat.safetensors", "not a LoRA stack but 'cat.safetensors'"),
        ({"cat": 1.0}, "not a LoRA stack but"),
        ([("cat", 1.0, 1.0), ("cat", 1.0)], r"Row 2 of the LoRA stack is \('cat', 1.0\)"),
        ([("cat", 1.0, 1.0, True)], "Row 1"),
        ([(3, 1.0, 1.0)], "Row 1"),
        (["cat"], "Row 1 of the LoRA stack is 'cat'"),
        ([()], "Row 1"),
        ([("cat", "1.0", 1.0)], r"the strengths \['1.0', 1.0\]"),
        ([("cat", float("nan"), 1.0)], "not two numbers"),
        ([("cat", None, 1.0)], "not two numbers"),
        ([("cat" * 1000, 1.0)], "…, not"),
    ],
)
def test_what_is_no_stack(stack, message):
    with pytest.raises(CrucibleError, match=message):
        read_stack(stack, LISTED)
