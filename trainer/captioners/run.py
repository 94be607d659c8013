"""Captioning of a list of images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from ..data.images.decode import UnreadableImage, open_image
from ..errors import CrucibleError
from .base import Captioner, Check, too_large
from .cache import CaptionCache
from .options import CaptionOptions, CaptionStyle
from .wording import finish, needs_caption

LONGEST_SIDE = 1024
"""The longest side, in pixels, of the images given to captioners; more pixels take longer without better captions."""

NAMES_SHOWN = 10
"""The most images without a caption that a report names."""

Session = Callable[[], AbstractContextManager[Callable[[], None]]]
"""A function that opens a context in which a captioner is loaded and on its device.

The context yields a function that frees as much memory as possible.
"""


@dataclass(frozen=True)
class Picture:
    """An image file to caption.

    Attributes:
        name: the name by which the user knows the image.
        path: the image file.
        caption: the caption that the image already has, or "".
    """

    name: str
    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Captioned:
    """The outcome of captioning one image.

    Attributes:
        picture: the image file.
        caption: the caption that the image has now; "" if it still has none.
        image: the image as the captioner saw it, for a preview; None if the captioner did not see it.
        written: whether the caption is new.
        problem: the reason why a new caption is missing; "" if there is no problem.
    """

    picture: Picture
    caption: str
    image: Image.Image | None = None
    written: bool = False
    problem: str = ""


@dataclass
class CaptionResult:
    """The results so far, complete at any moment, so that a run can be stopped without losing any.

    Attributes:
        captions: the caption of each image that has one, new or kept.
        written: the images with a new caption.
        kept: the number of images that were left unchanged.
        problems: a line for each image that should have a new caption but has none.
    """

    captions: dict[Path, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    kept: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, done: Captioned) -> None:
        """Add the outcome of one image."""
        if done.caption:
            self.captions[done.picture.path] = done.caption
        if done.written:
            self.written.append(done.picture.path)
        elif done.problem:
            self.problems.append(f"{done.picture.name}: {done.problem}")
        else:
            self.kept += 1

    def report(self, captioner: str) -> str:
        """Describe the result in a few lines.

        Args:
            captioner: the captioner's name.
        """
        count = len(self.written)
        lines = [f"{count} image{'s' * (count != 1)} captioned by {captioner}, {self.kept} left unchanged"]
        lines += [f"Not captioned: {problem}" for problem in self.problems[:NAMES_SHOWN]]
        if len(self.problems) > NAMES_SHOWN:
            lines.append(f"Not captioned: {len(self.problems) - NAMES_SHOWN} more")
        return "\n".join(lines)


def caption_images(
    captioner: Captioner,
    pictures: Sequence[Picture],
    options: CaptionOptions,
    session: Session,
    *,
    cache: CaptionCache | None = None,
    check: Check = lambda: None,
    is_out_of_memory: Callable[[Exception], bool] = lambda error: isinstance(error, torch.OutOfMemoryError),
) -> Iterator[Captioned]:
    """Caption images and yield each outcome as soon as it is known, so that stopping early loses nothing.

    Images that keep their caption come first, then those whose text is in the cache, then all others. The captioner
    is loaded only if there are others.

    Args:
        captioner: the captioner, not yet loaded.
        pictures: the images.
        options: the way captions are written and combined with existing ones.
        session: opens the context in which the captioner is loaded.
        cache: texts of earlier runs; new texts are added to it.
        check: a callback that is called often, also while the captioner writes; exceptions that it raises are passed
            on.
        is_out_of_memory: recognizes errors after which a smaller batch may succeed.

    Raises:
        CrucibleError: the captioner cannot be loaded, runs out of memory with a single image, or none of the images
            can be captioned or keeps its caption.
    """
    open_pictures = []
    for picture in pictures:
        check()
        if not needs_caption(picture.caption, options):
            yield Captioned(picture, picture.caption)
            continue
        written = _cached(cache, picture)
        if written is None:
            open_pictures.append(picture)
        else:
            yield _finished(picture, written, options, captioner, image=None)
    if not open_pictures:
        return
    with session() as free_memory:
        batches = _Batches(captioner, options, check, is_out_of_memory, free_memory)
        succeeded, failure = len(open_pictures) < len(pictures), None
        for picture, image, written, error in batches.run(open_pictures):
            if error is None:
                succeeded = True
                if cache is not None:
                    cache.put(picture.path, written)
                yield _finished(picture, written, options, captioner, image)
            else:
                if failure is None or isinstance(failure[1], UnreadableImage):
                    failure = picture, error
                yield Captioned(picture, picture.caption, problem=_reason(error))
    if not succeeded and failure is not None:
        picture, error = failure
        raise CrucibleError(
            f"None of the {len(open_pictures)} images could be captioned by {captioner.folder.name}. One of them, "
            f"{picture.name}: {_reason(error)}. Fix that problem, or choose another captioner."
        ) from error


@contextmanager
def standalone_session(captioner: Captioner) -> Iterator[Callable[[], None]]:
    """Open a session outside ComfyUI, on the first graphics card if there is one, otherwise on the CPU."""
    on_cuda = torch.cuda.is_available()
    captioner.load(torch.bfloat16 if on_cuda and torch.cuda.is_bf16_supported() else torch.float32)
    try:
        if on_cuda:
            try:
                captioner.module.to("cuda")
            except torch.OutOfMemoryError as error:
                raise too_large(captioner) from error
        yield torch.cuda.empty_cache
    finally:
        captioner.unload()


class _Batches:
    """A captioner that is given images in batches, which shrink when memory runs out."""

    def __init__(
        self,
        captioner: Captioner,
        options: CaptionOptions,
        check: Check,
        is_out_of_memory: Callable[[Exception], bool],
        free_memory: Callable[[], None],
    ) -> None:
        self.captioner = captioner
        self.style: CaptionStyle = options.style
        self.size = options.batch_size or captioner.batch_size
        self.is_out_of_memory = is_out_of_memory
        self.free_memory = free_memory
        self._check = check
        self._stopped_by: Exception | None = None

    def check(self) -> None:
        try:
            self._check()
        except Exception as error:
            self._stopped_by = error
            raise

    def run(self, pictures: Sequence[Picture]) -> Iterator[tuple[Picture, Image.Image | None, str, Exception | None]]:
        """Yield each picture with its image and text, or with the error that captioning it raised."""
        waiting = list(pictures)
        while waiting:
            batch, waiting = waiting[: self.size], waiting[self.size :]
            opened = []
            for picture in batch:
                self.check()
                try:
                    opened.append((picture, _opened(picture.path)))
                except UnreadableImage as error:
                    yield picture, None, "", error
            for (picture, image), text in self._captions(opened):
                if isinstance(text, Exception):
                    yield picture, image, "", text
                else:
                    yield picture, image, text, None

    def _captions(
        self, opened: list[tuple[Picture, Image.Image]]
    ) -> Iterator[tuple[tuple[Picture, Image.Image], str | Exception]]:
        while opened:
            some = opened[: self.size]
            outcome = self._try([image for _, image in some])
            if isinstance(outcome, list):
                yield from zip(some, outcome, strict=True)
            elif self.is_out_of_memory(outcome):
                self._shrink(len(some), outcome)
                continue
            elif len(some) > 1:  # one image may have caused it, so each is tried alone
                for pair in some:
                    alone = self._try([pair[1]])
                    yield pair, alone[0] if isinstance(alone, list) else alone
            else:
                yield some[0], outcome
            opened = opened[len(some) :]

    def _try(self, images: list[Image.Image]) -> list[str] | Exception:
        try:
            return self.captioner.caption(images, self.style, self.check)
        except Exception as error:
            if error is self._stopped_by:
                raise
            # The traceback would keep every tensor of the failed batch in memory.
            return error.with_traceback(None)

    def _shrink(self, count: int, error: Exception) -> None:
        self.free_memory()
        if count == 1:
            raise CrucibleError(
                f"Memory ran out while {self.captioner.folder.name} captioned a single image, so this captioner is too "
                "large for the memory that is free now. Captions that were already written are kept. Close other "
                "programs that use the graphics card, or choose a smaller captioner."
            ) from error
        self.size = count // 2


def _opened(path: Path) -> Image.Image:
    image = open_image(path, at_least=LONGEST_SIDE)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image


def _cached(cache: CaptionCache | None, picture: Picture) -> str | None:
    try:
        return None if cache is None else cache.get(picture.path)
    except OSError:  # reported when the image is opened
        return None


def _finished(
    picture: Picture, written: str, options: CaptionOptions, captioner: Captioner, image: Image.Image | None
) -> Captioned:
    caption = finish(written, picture.caption, options, tags=captioner.writes_tags)
    if caption:
        return Captioned(picture, caption, image, written=True)
    if written.strip():
        problem = "all words that the captioner wrote for it are blocked"
    elif captioner.writes_tags:
        problem = "no tag reached its threshold; lower the thresholds"
    else:
        problem = "the captioner wrote nothing"
    return Captioned(picture, picture.caption, image, problem=problem)


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return error.reason
    text = str(error).strip()
    return f"the captioner failed with {type(error).__name__}" + (f" ({text.splitlines()[0]})" if text else "")
