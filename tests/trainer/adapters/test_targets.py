"""The layers that users choose by kind or by name."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.adapters.targets import select_layers
from lora_crucible.config.layer_patterns import LayerPattern, parse_patterns
from lora_crucible.errors import CrucibleError
from torch import nn

PATHS = [
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "time_embedding.linear_1",
]


def modules() -> list[tuple[str, nn.Module]]:
    with torch.device("meta"):
        linear, convolution = nn.Linear(2, 2), nn.Conv2d(2, 2, 1)
    return [(path, convolution if "conv" in path else linear) for path in PATHS] + [("norm", nn.LayerNorm(2))]


def chosen(target_modules: str = "attention", patterns: str = "") -> list[int]:
    return [PATHS.index(path) for path in select_layers(modules(), target_modules, parse_patterns(patterns))]


@pytest.mark.parametrize(
    ("target_modules", "expected"),
    [
        ("attention", [1, 2, 3, 5]),
        ("attention_and_feed_forward", [1, 2, 3, 4, 5]),
        ("linear", [1, 2, 3, 4, 5, 6]),
        ("linear_and_convolution", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_kinds_of_layers(target_modules: str, expected: list[int]) -> None:
    assert chosen(target_modules) == expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("to_v", [2]),
        ("attn1.to_q", [1, 5]),
        ("mid_block.*", [5]),
        ("*conv*, ff.net.2", [0, 4]),
        ("q_proj\nv_proj", [1, 2, 3, 5]),  # as language models call them
        (PATHS[6], [6]),
    ],
)
def test_names_of_layers(patterns: str, expected: list[int]) -> None:
    assert chosen(patterns=patterns) == expected


def test_the_first_pattern_that_matches_gives_the_rank() -> None:
    found = select_layers(modules(), "attention", parse_patterns("mid_block.* rank=2, to_q rank=8 alpha=4, to_v"))
    assert found[PATHS[5]].rank == 2
    assert (found[PATHS[1]].rank, found[PATHS[1]].alpha) == (8, 4.0)
    assert found[PATHS[2]] == LayerPattern("to_v", None, None)


def test_a_name_that_no_layer_has_lists_those_that_are_there() -> None:
    with pytest.raises(CrucibleError, match=r"'attn3\.to_q'.*attn1\.to_q.*conv1|conv1.*attn1\.to_q"):
        chosen(patterns="to_v, attn3.to_q")
    with pytest.raises(CrucibleError, match=r"'to_qq' \(a list under target_modules means the same\).*Is to_q meant"):
        chosen(patterns="to_qq")


@pytest.mark.parametrize("text", ["to_q rank", "to_q rank=x", "to_q rank=1.5", "to_q dim=4", "to_q alpha=-1"])
def test_patterns_that_are_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match=r"attn2\.to_k rank=4 alpha=2"):
        parse_patterns(text)
