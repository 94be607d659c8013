"""Tests of captioning many images: batches, memory, broken images, stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_captioner import FakeCaptioner, save_pictures
from lora_crucible.captioners.cache import CaptionCache
from lora_crucible.captioners.options import CaptionOptions, CaptionStyle
from lora_crucible.captioners.run import CaptionResult, Picture, caption_images, standalone_session
from lora_crucible.errors import CrucibleError

REPLACE = CaptionOptions(mode="replace")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    return [Picture(path.name, path) for path in save_pictures(tmp_path / "images", 10)]


def run(
    captioner: FakeCaptioner,
    pictures: list[Picture],
    options: CaptionOptions = REPLACE,
    result: CaptionResult | None = None,
    **more: Any,
) -> CaptionResult:
    """Caption pictures; `result` is filled during the run, so that it can be examined after an error."""
    result = CaptionResult() if result is None else result
    for done in caption_images(captioner, pictures, options, more.pop("session", captioner.session), **more):
        result.add(done)
    return result


def test_every_image_gets_its_own_caption(tmp_path: Path, pictures: list[Picture]) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    result = run(captioner, pictures)
    assert result.captions == {picture.path: f"shade {i}, plain" for i, picture in enumerate(pictures)}
    assert captioner.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert captioner.loads == 1
    assert result.report("fake") == "10 images captioned by fake, 0 left unchanged"


def test_batch_size(tmp_path: Path, pictures: list[Picture]) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    run(captioner, pictures, CaptionOptions(batch_size=7))
    assert list(map(len, captioner.batches)) == [7, 3]


def test_images_with_a_caption_keep_it_and_no_model_is_loaded_for_them(tmp_path: Path, pictures: list[Picture]) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    captioned = [Picture(picture.name, picture.path, "crux, mine") for picture in pictures]
    options = CaptionOptions(mode="only_missing", trigger_word="crux")
    result = run(captioner, captioned, options)
    assert set(result.captions.values()) == {"crux, mine"}
    assert (result.kept, result.written, captioner.loads) == (10, [], 0)
    mixed = [*captioned[:8], *pictures[8:]]
    result = run(captioner, mixed, options)
    assert captioner.batches == [[8, 9]]
    assert result.captions[pictures[9].path] == "crux, shade 9, plain"


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(tmp_path: Path, pictures: list[Picture]) -> None:
    freed = []

    def at_most_three(shades: list[int]) -> None:
        if len(shades) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    captioner = FakeCaptioner(tmp_path / "model", at_most_three)

    @contextmanager
    def session() -> Iterator[Callable[[], None]]:
        yield lambda: freed.append(None)

    result = run(captioner, pictures, CaptionOptions(batch_size=8), session=session)
    assert len(result.written) == 10
    assert captioner.batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert len(freed) == 2
    assert not result.problems


def test_an_image_that_does_not_fit_alone_ends_the_run_with_what_was_done(
    tmp_path: Path, pictures: list[Picture]
) -> None:
    def not_eight(shades: list[int]) -> None:
        if 8 in shades:
            raise torch.OutOfMemoryError("CUDA out of memory")

    captioner = FakeCaptioner(tmp_path / "model", not_eight)
    result = CaptionResult()
    with pytest.raises(CrucibleError, match=r"Memory ran out.*model.*single image.*kept.*smaller captioner"):
        run(captioner, pictures, result=result)
    assert len(result.written) == 8


def test_an_image_that_fails_is_named_and_the_others_are_captioned(tmp_path: Path, pictures: list[Picture]) -> None:
    def not_five(shades: list[int]) -> None:
        if 5 in shades:
            raise ValueError("odd shape")

    pictures[2].path.write_bytes(b"no image")
    result = run(FakeCaptioner(tmp_path / "model", not_five), pictures)
    assert len(result.written) == 8
    assert pictures[5].path not in result.captions
    report = result.report("fake")
    assert "Not captioned: 02.png: it is not an image" in report
    assert "Not captioned: 05.png: the captioner failed with ValueError (odd shape)" in report


def test_a_failed_image_keeps_the_caption_that_it_has(tmp_path: Path, pictures: list[Picture]) -> None:
    pictures[2].path.write_bytes(b"no image")
    captioned = [Picture(picture.name, picture.path, "mine") for picture in pictures]
    result = run(FakeCaptioner(tmp_path / "model"), captioned)
    assert result.captions[pictures[2].path] == "mine"
    assert len(result.problems) == 1


def test_the_only_image_left_is_named_if_it_cannot_be_read(tmp_path: Path, pictures: list[Picture]) -> None:
    pictures[2].path.write_bytes(b"no image")
    captioned = [replace(picture, caption="" if picture == pictures[2] else "mine") for picture in pictures]
    result = run(FakeCaptioner(tmp_path / "model"), captioned, CaptionOptions())
    assert result.kept == 9
    assert result.problems == ["02.png: it is not an image, or its format is not supported"]


def test_a_captioner_that_fails_with_every_image_is_an_error(tmp_path: Path, pictures: list[Picture]) -> None:
    def never(shades: list[int]) -> None:
        raise RuntimeError("sizes do not match")

    with pytest.raises(CrucibleError, match=r"None of the 10 images.*model.*00\.png.*sizes do not match"):
        run(FakeCaptioner(tmp_path / "model", never), pictures)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_cancel_keeps_what_is_done(tmp_path: Path, pictures: list[Picture], error: type[BaseException]) -> None:
    """Finished captions are kept whatever error the host raises, even in the middle of a batch."""
    captioner = FakeCaptioner(tmp_path / "model")

    def check() -> None:
        if len(captioner.batches) == 1:
            raise error("stop")

    result = CaptionResult()
    cache = CaptionCache(tmp_path / "cache", captioner, CaptionStyle())
    with pytest.raises(error, match="stop"):
        run(captioner, pictures, result=result, cache=cache, check=check)
    assert [path.name for path in result.written] == ["00.png", "01.png", "02.png", "03.png"]
    again = run(captioner, pictures, cache=CaptionCache(tmp_path / "cache", captioner, CaptionStyle()))
    assert len(again.written) == 10
    assert captioner.batches[1:] == [[4, 5, 6, 7], [8, 9]]


def test_an_error_of_the_host_in_the_middle_of_a_batch_is_not_taken_for_one_of_the_image(
    tmp_path: Path, pictures: list[Picture]
) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    batches_begun = 0
    caption = captioner.caption

    def stopped_in_the_second(images: Any, style: CaptionStyle, check: Callable[[], None]) -> list[str]:
        nonlocal batches_begun
        batches_begun += 1
        check()
        return caption(images, style)

    def check() -> None:
        if batches_begun == 2 and not stopped:
            stopped.append(None)
            raise RuntimeError("stop")

    stopped: list[None] = []
    captioner.caption = stopped_in_the_second  # type: ignore[method-assign]
    result = CaptionResult()
    with pytest.raises(RuntimeError, match="stop"):
        run(captioner, pictures, result=result, check=check)
    assert len(result.written) == 4


def test_a_second_run_gives_the_same_captions_without_the_model(tmp_path: Path, pictures: list[Picture]) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    first = run(captioner, pictures, cache=CaptionCache(tmp_path / "cache", captioner, CaptionStyle()))
    blocked = CaptionOptions(mode="replace", trigger_word="crux", blocked_words=("plain",))
    second = run(captioner, pictures, cache=CaptionCache(tmp_path / "cache", captioner, CaptionStyle()))
    third = run(captioner, pictures, blocked, cache=CaptionCache(tmp_path / "cache", captioner, CaptionStyle()))
    assert first.captions == second.captions
    assert third.captions[pictures[0].path] == "crux, shade 0"
    assert captioner.loads == 1


def test_nothing_left_of_a_text_is_said(tmp_path: Path, pictures: list[Picture]) -> None:
    blocked = CaptionOptions(blocked_words=("shade 0", "plain"))
    result = run(FakeCaptioner(tmp_path / "model"), pictures[:2], blocked)
    assert result.problems == ["00.png: all words that the captioner wrote for it are blocked"]
    assert pictures[0].path not in result.captions


def test_a_standalone_session_loads_and_unloads(tmp_path: Path) -> None:
    captioner = FakeCaptioner(tmp_path / "model")
    with standalone_session(captioner) as free_memory:
        assert captioner.module is not None
        free_memory()
    with pytest.raises(AssertionError):
        _ = captioner.module


def test_many_problems_are_counted(tmp_path: Path) -> None:
    result = CaptionResult(problems=[f"{i}.png: broken" for i in range(14)])
    assert result.report("fake").splitlines()[-1] == "Not captioned: 4 more"
