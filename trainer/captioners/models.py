"""The captioners that can be chosen: folders on this machine, and models that can be downloaded from the hub.

Imports only the standard library, because the node's list of captioners is built from this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CrucibleError

DEPTH = 2
"""The number of folder levels below a root that are searched for captioners: `name`, or `owner/name`."""


@dataclass(frozen=True)
class KnownModel:
    """A captioner that can be downloaded by name.

    Attributes:
        repo: the owner and name on the Hugging Face hub.
        revision: the commit that was reviewed; later uploads are not downloaded.
        gigabytes: the approximate size of the download.
    """

    repo: str
    revision: str
    gigabytes: float

    @property
    def name(self) -> str:
        """The repository's name without its owner."""
        return self.repo.split("/")[1]

    @property
    def label(self) -> str:
        """The model's entry in the node's list; workflows store it, so its size must not change once released."""
        return f"{self.name} (download, {self.gigabytes} GB)"


KNOWN = (
    KnownModel("florence-community/Florence-2-base", "00921df66db728a9ceb750f5eca43e5c203a2051", 0.5),
    KnownModel("florence-community/Florence-2-large-ft", "26b734a54fdfbf9c398351eedfabb7f27fc470b7", 1.6),
    KnownModel("Salesforce/blip-image-captioning-large", "353689b859fcf0523410b1806dace5fb46ecdf41", 1.9),
    KnownModel("HuggingFaceTB/SmolVLM-500M-Instruct", "a7da5b986cb59b408707209984f360a5f4ad7e47", 1.0),
    KnownModel("Qwen/Qwen3-VL-2B-Instruct", "89644892e4d85e24eaac8bacfd4f463576704203", 4.3),
    KnownModel("Qwen/Qwen2.5-VL-3B-Instruct", "66285546d2b821cf421d4f5eb2576359d3770cd3", 7.5),
    KnownModel("Qwen/Qwen3-VL-4B-Instruct", "ebb281ec70b05090aa6165b016eac8ec08e71b17", 8.9),
    KnownModel("SmilingWolf/wd-vit-tagger-v3", "790b0e92cefd2a0221451604e7831fe643ab7c4f", 0.4),
)
"""The models that can be downloaded by name."""

DEFAULT = KNOWN[0]
"""The captioner that is used unless the user chooses another."""


def known_model(written: str) -> KnownModel | None:
    """Return the known model with this label, repository or name, or None if there is none."""
    return next((model for model in KNOWN if written in (model.label, model.repo, model.name)), None)


def captioner_names(roots: Sequence[Path]) -> list[str]:
    """Return the folders below the roots that contain a model, as sorted paths relative to their root."""
    names = set()
    for root in roots:
        for depth in range(1, DEPTH + 1):
            for config in root.glob("/".join(["*"] * depth) + "/config.json"):
                name = config.parent.relative_to(root).as_posix()
                if not any(part.startswith(".") for part in name.split("/")):
                    names.add(name)
    return sorted(names)


def captioner_choices(roots: Sequence[Path]) -> list[str]:
    """Return the entries of the node's list: the known models, then the folders.

    A known model stays listed after it is downloaded, so that workflows saved before remain valid.
    """
    return [*(model.label for model in KNOWN), *captioner_names(roots)]


def find_captioner(written: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder of a captioner inside the roots, or None if there is none."""
    model = known_model(written)
    for root in roots:
        for name in (written,) if model is None else (model.name, model.repo):
            folder = (root / name).resolve()
            if name and folder.is_relative_to(root.resolve()) and (folder / "config.json").is_file():
                return folder
    return None


def not_there(written: str, roots: Sequence[Path]) -> CrucibleError:
    """Return the error for a captioner that is not on this machine and may not be downloaded."""
    model = known_model(written)
    root = roots[0]
    if model is None:
        names = ", ".join(captioner_names(roots)) or "none"
        return CrucibleError(
            f"The captioner {written!r} was not found in the folders for captioners "
            f"({', '.join(map(str, roots))}). Captioners found there: {names}. Put the model's folder there, with "
            "config.json, model.safetensors and the tokenizer files, then press R to refresh the list, or choose "
            "another captioner."
        )
    return CrucibleError(
        f"The captioner {model.name} is not on this machine, and downloading is off, so nothing can be captioned. "
        f"Turn download on to fetch it once (about {model.gigabytes} GB), or get all .json, .txt, .csv, .jinja and "
        f"model*.safetensors files of {model.repo} from the Hugging Face hub and put them into this folder:\n  "
        f"{root / model.name}"
    )
