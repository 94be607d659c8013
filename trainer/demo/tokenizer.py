"""The demo model's tokenizer: CLIP's byte-level BPE with a vocabulary of about 560 tokens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

from . import shapes

MAX_TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def byte_characters() -> list[str]:
    """Return the 256 printable characters that stand for bytes in byte-level BPE, in CLIP's order."""
    ranges = ("!", "~"), ("¡", "¬"), ("®", "ÿ")
    printable = [code for first, last in ranges for code in range(ord(first), ord(last) + 1)]
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def caption_words() -> list[str]:
    """Return every word in the captions that the demo model is trained on, sorted."""
    scenes = [shapes.Scene("circle", colour, "white", shapes.PLAIN, (0, 0), 0) for colour in shapes.COLOURS]
    frame = {word for scene in scenes for word in shapes.caption(scene).split()}
    return sorted({*frame, *shapes.SHAPES, *shapes.COLOURS, *shapes.BACKGROUNDS, *shapes.BASE_STYLES})


def pairs_of(pieces: list[str]) -> list[tuple[str, str]]:
    """Return each piece with its right neighbour."""
    return list(itertools.pairwise(pieces))


def split_word(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """Split a word by applying BPE merges, the earliest learned pair first, until none applies."""
    pieces = [*word[:-1], word[-1] + END_OF_WORD]
    while pairs := [pair for pair in pairs_of(pieces) if pair in merges]:
        pair = min(pairs, key=merges.__getitem__)
        position = pairs_of(pieces).index(pair)
        pieces[position : position + 2] = ["".join(pair)]
    return pieces


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Return merges that turn each word into one token.

    New merges rank after all earlier ones, so they cannot change how an earlier word is merged.
    """
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := split_word(word, merges)) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
    return list(merges)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer that has one token for each caption word and encodes all other text as bytes.

    The files are those of SD1.5's tokenizer folder, which every release of transformers can read. As in SD1.5, the end
    token is used for padding.
    """
    merges = learn_merges(caption_words())
    characters = byte_characters()
    tokens = [*characters, *(character + END_OF_WORD for character in characters)]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": MAX_TOKENS,
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file in the style of transformers: UTF-8, indented, with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
