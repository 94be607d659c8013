"""Files that appear whole or not at all; how writing fails is tested with LoRA files."""

import pytest
from lora_crucible.whole_files import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (9_300_000, "9.3 MB"),
        (999_960_000, "1.0 GB"),
        (2_500_000_000_000, "2500.0 GB"),
    ],
)
def test_sizes_for_people(size, text):
    assert size_text(size) == text
