import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.files.names import check_output_name, unused_name


@pytest.mark.parametrize("name", ["lora", "my character v1.2", "角色_v2", "été", "a" * 200, "console"])
def test_usable_names_stay(name):
    assert check_output_name(name) == name


def test_a_typed_ending_is_dropped():
    assert check_output_name("lora.safetensors") == "lora"


EMPTY = ["", "   ", ".safetensors"]
FOLDERS = ["a/b", "a\\b", "../lora", "..", "C:lora", "/lora"]
RESERVED = ["con", "NUL", "com1.v2", "LPT9", "CON .x"]
CHARACTERS = ["what?", "a<b", 'a"b', "a|b", "a*", "a\nb", "a\0b", "\udcff"]
ENDS = [".hidden", "lora.", "lora ", " lora"]
TOO_LONG = ["字" * 67]


@pytest.mark.parametrize("name", [*EMPTY, *FOLDERS, *RESERVED, *CHARACTERS, *ENDS, *TOO_LONG])
def test_unusable_names_are_refused_with_the_name_and_a_remedy(name):
    with pytest.raises(CrucibleError) as caught:
        check_output_name(name)
    message = str(caught.value)
    assert repr(name) in message
    assert "my_character" in message


def test_a_counter_keeps_existing_files():
    assert unused_name("lora", set().__contains__) == "lora"
    assert unused_name("lora", {"lora"}.__contains__) == "lora_2"
    assert unused_name("lora", {"lora", "lora_2", "lora_3"}.__contains__) == "lora_4"
