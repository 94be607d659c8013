"""The command `python -m trainer caption`, which writes captions for a folder of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..captioners.models import DEFAULT, KNOWN
from ..captioners.options import (
    DETAILS,
    LANGUAGES,
    MODES,
    CaptionOptions,
    CaptionStyle,
    split_words,
)
from ..doctor.requirements import TORCH
from ..errors import errors_about
from .display import display
from .exit_status import ExitStatus, Outcome

if TYPE_CHECKING:
    from ..captioners.run import CaptionResult


def add_caption_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    style, known = CaptionStyle(), ", ".join(model.name for model in KNOWN)
    caption = commands.add_parser("caption", help="write captions for the images in a folder")
    folder = caption.add_mutually_exclusive_group(required=True)
    folder.add_argument("folder", nargs="?", metavar="FOLDER", type=Path)
    folder.add_argument("--input", metavar="FOLDER", type=Path, help="the same as FOLDER, as guides write it")
    caption.add_argument(
        "--captioner",
        default=DEFAULT.name,
        help=f"a model's folder, one of {known}, or owner/name on the hub (default: %(default)s)",
    )
    caption.add_argument(
        "--captioners_dir", type=Path, help="folder of captioners and of downloads (default: in Hugging Face's own)"
    )
    caption.add_argument("--download", action="store_true", help="download the captioner from the hub if it is missing")
    caption.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER/metadata.csv",
        help="a table (.csv, .tsv, .jsonl) instead of text files",
    )
    caption.add_argument("--mode", choices=MODES, default=MODES[0])
    caption.add_argument("--detail", choices=DETAILS, default=style.detail)
    caption.add_argument("--language", choices=LANGUAGES, default=style.language, help="language of chat models")
    caption.add_argument("--instruction", default="", help="instruction for chat models, replaces detail and language")
    caption.add_argument("--trigger_word", default="")
    caption.add_argument("--blocked_words", default="", help="words to leave out, separated by commas")
    caption.add_argument("--max_length", type=_count, default=0, help="most words or tags; 0 = the captioner's default")
    caption.add_argument("--general_threshold", type=_probability, default=style.general_threshold, help="for taggers")
    caption.add_argument("--character_threshold", type=_probability, default=style.character_threshold)
    caption.add_argument("--rating_tag", action="store_true", help="let taggers rate how safe for work the image is")
    caption.add_argument("--batch_size", type=_count, default=0, help="0 = the captioner's default")
    caption.set_defaults(command=_caption, needs=(TORCH,))


def _caption(options: argparse.Namespace) -> Outcome:
    import transformers.utils.logging

    from ..captioners.cache import CaptionCache
    from ..captioners.dataset import pictures_in
    from ..captioners.registry import open_captioner
    from ..captioners.run import CaptionResult, caption_images, standalone_session
    from ..captioners.tables import open_table
    from ..captioners.write import check_writable, without_shared

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = (options.folder or options.input).expanduser().resolve()
    with errors_about("data"):
        pictures, unread = pictures_in(folder)
        settings = _settings(options)
        result = CaptionResult(problems=unread)
        if options.output is None:
            check_writable(folder)
            pictures, shared = without_shared(pictures, settings)
            result.problems += shared
        else:
            options.output = options.output.expanduser().resolve()
            open_table(options.output)
    with errors_about("model"):
        captioner = open_captioner(_captioner_folder(options))
    cache = CaptionCache(_cache_folder(), captioner, settings.style)
    try:
        _follow(
            caption_images(captioner, pictures, settings, lambda: standalone_session(captioner), cache=cache),
            len(pictures),
            result,
        )
    finally:  # also after Ctrl-C
        _write(result, options.output, folder)
    print(result.report(captioner.folder.name))
    facts = {
        "written": len(result.written),
        "kept": result.kept,
        "problems": result.problems,
        "captions": {str(path): result.captions[path] for path in result.written},
        "output": None if options.output is None else str(options.output),
    }
    return Outcome(facts, ExitStatus.PARTLY if result.problems else ExitStatus.DONE)


def _settings(options: argparse.Namespace) -> CaptionOptions:
    return CaptionOptions(
        mode=options.mode,
        trigger_word=" ".join(options.trigger_word.split()),
        blocked_words=split_words(options.blocked_words),
        batch_size=options.batch_size,
        style=CaptionStyle(
            detail=options.detail,
            language=options.language,
            instruction=options.instruction,
            max_length=options.max_length,
            general_threshold=options.general_threshold,
            character_threshold=options.character_threshold,
            rating_tag=options.rating_tag,
        ),
    )


def _captioner_folder(options: argparse.Namespace) -> Path:
    """Return the captioner's folder: the user's own if it is one, otherwise the one that `get_captioner` finds."""
    from ..captioners.download import get_captioner

    folder = Path(options.captioner).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    root = (options.captioners_dir or _hub_folder() / "captioners").expanduser().resolve()
    shown = display()

    def progress(done: int, total: int, file: str) -> None:
        shown.working("Downloading", done, total, "B", file)

    return get_captioner(options.captioner, [root], download=options.download, progress=progress, announce=shown.say)


def _follow(captions: Any, count: int, result: CaptionResult) -> None:
    shown = display()
    for number, done in enumerate(captions, start=1):
        result.add(done)
        shown.working("Captioning", number, count, "image")
        if done.written:
            shown.say(f"{done.picture.name}: {done.caption}")


def _write(result: CaptionResult, output: Path | None, folder: Path) -> None:
    from ..captioners.write import write_sidecars, write_table
    from ..data.images.metadata_files import METADATA_FILES

    if output is None:
        files = write_sidecars({path: result.captions[path] for path in result.written})
        print(f"{len(files)} caption file{'s' * (len(files) != 1)} written; replaced files are kept as .bak")
    elif result.captions:
        write_table(output, result.captions, result.written)
        print(f"Captions: {output}")
        if output.parent != folder or output.name not in METADATA_FILES:
            print(f"Training reads them if you set metadata_path to {output}.")


def _hub_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME)


def _cache_folder() -> Path:
    return _hub_folder() / "captioners" / ".captions"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1.01:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
