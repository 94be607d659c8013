"""The files and folders of rows that Load Text Dataset offers."""

from pathlib import Path

import folder_paths

from .folders import DEMO, dataset_choices


def text_choices() -> list[str]:
    """Return the choices of datasets of texts.

    The demo rows come first, then every file that may have rows and every folder, inside ComfyUI's input folder and the
    registered `datasets` folders. Captions of images are left out.
    """
    roots = [("input", Path(folder_paths.get_input_directory()))]
    roots += [("datasets", Path(root)) for root in folder_paths.get_folder_paths("datasets")]
    files = {f"{kind}/{name}" for kind, root in roots for name in _files_of_rows(root)}
    return [DEMO, *sorted(files | {*dataset_choices()} - {DEMO})]


def _files_of_rows(root: Path) -> list[str]:
    """Return the paths of files that may have rows below a folder, relative to it; none if it cannot be read."""
    from ..trainer.data.ignored_names import is_about_the_folder
    from ..trainer.data.listing import list_folder
    from ..trainer.data.text.files import ALL_ENDINGS, TEXT_ENDINGS

    try:
        folders = list(list_folder(root).walk())
    except OSError:
        return []
    found = []
    for folder in folders:
        # The text file cat.txt beside cat.png is its caption.
        others = {file.stem for file in folder.files if file.suffix.lower() not in ALL_ENDINGS}
        for file in folder.files:
            ending = file.suffix.lower()
            is_caption = ending in TEXT_ENDINGS and file.stem in others
            if ending in ALL_ENDINGS and not is_caption and not is_about_the_folder(file):
                found.append(folder.named(file))
    return found
