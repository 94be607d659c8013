"""Tests of taggers: thresholds, categories of tags, readable names."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_captioners as tiny
import torch
from lora_crucible.captioners.options import CaptionStyle
from lora_crucible.captioners.registry import open_captioner
from lora_crucible.captioners.tagger import TaggerCaptioner, read_tags, readable
from lora_crucible.errors import CrucibleError
from PIL import Image
from safetensors.torch import load_file

ALL = CaptionStyle(general_threshold=0.0, character_threshold=0.0)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("long_hair", "long hair"),
        ("hatsune_miku_(cosplay)", "hatsune miku (cosplay)"),
        ("^_^", "^_^"),
        ("0_0", "0_0"),
        (">_<", ">_<"),
        ("(o)_(o)", "(o)_(o)"),
        ("|_|", "|_|"),
        ("x_x", "x_x"),
        ("+_-", "+_-"),
        ("6+girls", "6+girls"),
        ("v_over_eye", "v over eye"),
        ("k-pop", "k-pop"),
        (":d", ":d"),
    ],
)
def test_underscores_are_spaces_but_not_in_faces(tag: str, expected: str) -> None:
    assert readable(tag) == expected


class Logits(torch.nn.Module):
    """A stand-in for a network that gives the same answer for every image."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(probabilities).logit())
        self.seen: list[torch.Tensor] = []
        settings = {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}
        self.config = type("Config", (), {"pretrained_cfg": settings})()

    def forward(self, pixels: torch.Tensor) -> object:
        self.seen.append(pixels)
        return type("Output", (), {"logits": self.logits.expand(len(pixels), -1)})()


@pytest.fixture
def tagger(tmp_path: Path) -> TaggerCaptioner:
    """Return a tagger with fixed probabilities in the order of `tiny.TAGS`."""
    captioner = TaggerCaptioner(tmp_path)
    captioner.names = [
        (readable(name), {"0": "general", "4": "character", "9": "rating"}.get(kind, "")) for name, kind in tiny.TAGS
    ]
    captioner._module = Logits([0.6, 0.3, 0.5, 0.9, 0.34, 0.7, 0.99])
    return captioner


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (CaptionStyle(), "^_^, long hair"),
        (CaptionStyle(general_threshold=0.6), "^_^"),
        (CaptionStyle(general_threshold=0.3), "^_^, long hair, smile"),
        (CaptionStyle(character_threshold=0.6), "hatsune miku, ^_^, long hair"),
        (CaptionStyle(character_threshold=1.01), "^_^, long hair"),
        (CaptionStyle(rating_tag=True), "^_^, long hair, general"),
        (CaptionStyle(general_threshold=0.95), ""),
    ],
)
def test_thresholds(tagger: TaggerCaptioner, style: CaptionStyle, expected: str) -> None:
    assert tagger.caption([tiny.picture(1)], style) == [expected]


def test_kinds_of_tags_are_apart(tagger: TaggerCaptioner) -> None:
    (tags,) = tagger.tags([tiny.picture(1)], ALL)
    assert list(tags.rating) == ["general", "explicit"]
    assert list(tags.character) == ["hatsune miku"]
    assert list(tags.general) == ["^_^", "long hair", "smile"]
    assert tags.general["long hair"] == pytest.approx(0.5, abs=1e-6)
    assert "artist name" not in tags.text(with_rating=True)


def test_images_are_padded_with_white_and_given_blue_first(tagger: TaggerCaptioner) -> None:
    tagger.caption([Image.new("RGB", (80, 20), (255, 0, 0))], ALL)
    pixels = tagger.module.seen[0][0]
    assert pixels.shape == (3, 8, 8)
    assert pixels[:, 0, 0].tolist() == pytest.approx([1, 1, 1])
    assert pixels[:, 4, 4].tolist() == pytest.approx([-1, -1, 1], abs=0.2)


def test_taggers_that_describe_their_preprocessing_see_red_first(tagger: TaggerCaptioner) -> None:
    (tagger.folder / "preprocess.json").write_text("{}")
    tagger.caption([Image.new("RGB", (20, 20), (255, 0, 0))], ALL)
    assert tagger.module.seen[0][0][:, 4, 4].tolist() == pytest.approx([1, -1, -1], abs=0.01)


def test_a_tagger_as_timm_saves_it(tmp_path: Path) -> None:
    """The probabilities equal those of timm's own model on the same pixels."""
    timm = pytest.importorskip("timm")
    folder = tiny.tagger(tmp_path / "wd")
    captioner = open_captioner(folder)
    captioner.load(torch.bfloat16)
    assert captioner.dtype == torch.float32
    picture = tiny.picture(5, (32, 32))
    (tags,) = captioner.tags([picture], ALL)
    own = timm.create_model("test_vit", num_classes=len(tiny.TAGS), img_size=32).eval()
    own.load_state_dict(load_file(folder / "model.safetensors"))
    pixels = torch.tensor(list(picture.get_flattened_data())).reshape(1, 32, 32, 3).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = own(pixels[:, [2, 1, 0]]).sigmoid()[0]
    found = {**tags.rating, **tags.general, **tags.character}
    for (name, kind), probability in zip(tiny.TAGS, expected.tolist(), strict=True):
        if kind != "1":
            assert found[readable(name)] == pytest.approx(probability, abs=1e-5)


def test_a_list_of_tags_of_another_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    folder = tiny.tagger(tmp_path / "wd")
    lines = (folder / "selected_tags.csv").read_text().splitlines()
    (folder / "selected_tags.csv").write_text("\n".join(lines[:-2]))
    with pytest.raises(CrucibleError, match=r"selected_tags\.csv lists 5 tags.*knows 7.*same repository"):
        open_captioner(folder).load(torch.float32)


def test_a_missing_or_broken_list_of_tags_is_named(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    with pytest.raises(CrucibleError, match=r"selected_tags\.csv is missing.*mere numbers.*Download it"):
        read_tags(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(CrucibleError, match="does not have the columns name and category"):
        read_tags(path)
