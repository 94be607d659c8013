"""Encoded images and captions are reused until they change."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from lora_crucible.config import DataSettings
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusion.inputs import Caption, Encoders, Inputs, cached_examples, stacked
from lora_crucible.models.diffusion.objective import row_losses
from PIL import Image


class CountingEncoders(Encoders):
    """Encoders that scale images down by 8 and turn captions into their length, counting each call."""

    def __init__(self, vae: str = "vae", text: str = "text") -> None:
        self.vae_identity, self.text_identity = vae, text
        self.encoded: list[str] = []

    def latent(self, pixels: torch.Tensor, name: str) -> torch.Tensor:
        self.encoded.append(name)
        return pixels[::8, ::8].permute(2, 0, 1).clone()

    def caption(self, text: str) -> list[torch.Tensor]:
        self.encoded.append(text)
        return [torch.full((2,), float(len(text)))]


def make(folder: Path, count: int = 3) -> None:
    for number in range(count):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")


def samples(folder: Path, cache: TensorCache, encoders: Encoders, dropout: float = 0.0, **settings):
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), **settings))
    return cached_examples(dataset.examples(64), encoders, cache, dropout, True, lambda *_: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    make(tmp_path / "images")
    return tmp_path / "images"


def encoded_in(folder: Path, store: Path, **identity: str) -> Counter[str]:
    encoders = CountingEncoders(**identity)
    found = samples(folder, TensorCache(store), encoders)
    for sample in found:  # the cached values belong to the images and captions of this folder
        latent, caption = sample.inputs.draw(0)
        (length,) = caption.encoded()
        picture = Image.open(folder / sample.name)
        assert latent.values[0, 0, 0].item() == pytest.approx(picture.getpixel((0, 0))[0] / 255)
        assert length[0] == len((folder / sample.name).with_suffix(".txt").read_text())
    return Counter(encoders.encoded)


def test_only_what_changed_is_encoded_again(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache"
    everything = Counter(["0.png", "1.png", "2.png", "picture 0", "picture 1", "picture 2", ""])
    assert encoded_in(folder, store) == everything
    assert encoded_in(folder, store) == Counter()

    (folder / "1.txt").write_text("another caption")
    assert encoded_in(folder, store) == Counter(["another caption"])
    Image.new("RGB", (64, 64), (200, 0, 0)).save(folder / "2.png")
    assert encoded_in(folder, store) == Counter(["2.png"])
    (folder / "0.png").rename(folder / "renamed.png")
    (folder / "0.txt").rename(folder / "renamed.txt")
    assert encoded_in(folder, store) == Counter()

    assert encoded_in(folder, store, vae="another") == Counter(["renamed.png", "1.png", "2.png"])
    assert encoded_in(folder, store, text="another") == Counter(["picture 0", "another caption", "picture 2", ""])
    assert encoded_in(folder, store) == Counter()


def test_another_size_or_crop_is_encoded_anew(folder: Path, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    samples(folder, cache, CountingEncoders())
    for settings in ({"resolution": 128, "allow_upscaling": True}, {"horizontal_flip": True}):
        encoders = CountingEncoders()
        samples(folder, cache, encoders, **settings)
        assert Counter(encoders.encoded) == Counter(["0.png", "1.png", "2.png"])


def test_images_with_repeats_are_encoded_once(folder: Path) -> None:
    encoders = CountingEncoders()
    found = samples(folder, TensorCache(None), encoders, repeats=5)
    assert len(found) == 15
    assert len({id(sample) for sample in found}) == 3
    assert encoders.encoded.count("0.png") == 1


def test_an_entry_that_vanishes_while_it_is_used_is_named(folder: Path, tmp_path: Path) -> None:
    samples(folder, TensorCache(tmp_path / "cache"), CountingEncoders())
    found = samples(folder, TensorCache(tmp_path / "cache"), CountingEncoders())
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(CrucibleError, match=r"0\.png disappeared from the cache.*Start again"):
        found[0].inputs.draw(0)


def test_latents_that_are_no_numbers_are_refused(folder: Path) -> None:
    class Broken(CountingEncoders):
        def latent(self, pixels, name):
            return super().latent(pixels, name) * float("nan")

    with pytest.raises(CrucibleError, match=r"0\.png to NaN or infinite values.*--fp32-vae"):
        samples(folder, TensorCache(None), Broken())


def test_captions_are_dropped_as_often_as_asked() -> None:
    a, b, none = (Caption(text, lambda: None) for text in ("a", "b", ""))
    inputs = Inputs((lambda: "latent",), (a, b), none, dropout=0.25)  # type: ignore[arg-type]
    drawn = Counter(inputs.draw(seed)[1].text for seed in range(2000))
    assert 0.21 < drawn[""] / 2000 < 0.29
    assert 0.4 < drawn["a"] / (drawn["a"] + drawn["b"]) < 0.6
    assert [inputs.draw(seed) for seed in range(50)] == [inputs.draw(seed) for seed in range(50)]


def test_a_mask_leaves_only_its_part_in_the_loss(folder: Path) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(folder / "1.mask.png")
    found = samples(folder, TensorCache(None), CountingEncoders(), mask_source="file")
    values, masks = stacked([sample.inputs.draw(0)[0] for sample in found], torch.device("cpu"))
    assert masks is not None
    assert masks[0].min() == 1
    assert masks[1, :, :4].min() == 1
    assert masks[1, :, 4:].max() == 0
    target = values.clone()
    target[..., 4:] += 3.0  # wrong only in the right half
    losses = row_losses(values, target, masks)
    assert losses.tolist() == pytest.approx([4.5, 0.0, 4.5])
    assert torch.equal(row_losses(values, target), row_losses(values, target, torch.ones_like(masks)))


def test_an_empty_mask_is_refused(folder: Path) -> None:
    Image.new("L", (64, 64), 0).save(folder / "1.mask.png")
    with pytest.raises(CrucibleError, match=r"mask of 1\.png leaves nothing"):
        samples(folder, TensorCache(None), CountingEncoders(), mask_source="file")
