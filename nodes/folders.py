"""The folders of ComfyUI that the nodes read from and write to."""

import ipaddress
from pathlib import Path

import folder_paths

DEMO = "demo"
NONE = "None"


def dataset_choices() -> list[str]:
    """Return the choices of dataset folders.

    The demo dataset comes first, then every folder inside ComfyUI's input folder and the registered `datasets` folders.
    """
    choices = [f"input/{name}" for name in folder_paths.get_input_subfolders()]
    for root in _dataset_roots():
        choices += [f"datasets/{path.relative_to(root).as_posix()}" for path in root.rglob("*") if path.is_dir()]
    return [DEMO, *sorted(set(choices))]


def dataset_folder(choice: str) -> str:
    """Return the path of a folder from `dataset_choices`, or "demo" for the demo dataset.

    Raises:
        CrucibleError: the folder does not exist, or lies outside ComfyUI's folders.
    """
    if choice == DEMO:
        return DEMO
    kind, _, name = choice.partition("/")
    roots = {"input": [Path(folder_paths.get_input_directory())], "datasets": _dataset_roots()}.get(kind, [])
    return str(contained(choice, name, roots))


def pasted_folder(path: str) -> str:
    """Return the folder whose absolute path the user pasted.

    Raises:
        CrucibleError: the path is not absolute, or other computers can reach this ComfyUI and could use it to read any
            folder of this one.
    """
    from comfy.cli_args import args

    from ..trainer.errors import CrucibleError

    written = Path(path.strip().strip('"')).expanduser()
    if not written.is_absolute():
        raise CrucibleError(
            f"path is {path!r}, which is not an absolute path, so it is not clear which folder you mean. Paste the "
            "full path, starting with / or a drive letter such as C:, or choose a folder from the list."
        )
    if not listens_on_loopback_alone(args.listen):
        raise CrucibleError(
            f"path is {path!r}, but this ComfyUI listens on {args.listen}, so other computers can reach it and could "
            "use path to read any folder of this one. Register the folder under `datasets` in extra_model_paths.yaml "
            "instead, restart ComfyUI, and choose the folder from the list."
        )
    return str(written)


def listens_on_loopback_alone(addresses: str) -> bool:
    """Return whether a server on these comma-separated addresses can be reached only from its own computer."""

    def is_loopback(address: str) -> bool:
        try:
            return ipaddress.ip_address(address).is_loopback
        except ValueError:
            return address == "localhost"

    return all(is_loopback(address.strip()) for address in addresses.split(","))


def dataset_roots() -> list[Path]:
    """Return the folders that training images may be read from."""
    return [Path(folder_paths.get_input_directory()), *_dataset_roots()]


def contained(written: str, name: str, roots: list[Path]) -> Path:
    """Return the folder or file `name` in the first of `roots` that contains it.

    Args:
        written: the user's choice as written, quoted in the error message.
        name: the path relative to a root.
        roots: the folders to search, in this order.

    Raises:
        CrucibleError: no root contains it, or the path leads out of the roots.
    """
    from ..trainer.errors import CrucibleError

    for root in roots:
        path = (root / name).resolve()
        if name and path.is_relative_to(root.resolve()) and path.exists():
            return path
    raise CrucibleError(
        f"{written!r} is not in any folder that ComfyUI may read ({', '.join(map(str, roots)) or 'none'}). Put your "
        "files into ComfyUI's input folder, images into a subfolder of it, and press R to refresh the list, or "
        "register their folder under `datasets` in extra_model_paths.yaml and restart ComfyUI."
    )


def captioner_roots() -> list[Path]:
    """Return the folders of captioners: models/captioners, which takes downloads, then those registered by the user."""
    own = Path(folder_paths.models_dir) / "captioners"
    folder_paths.add_model_folder_path("captioners", str(own))
    roots = [Path(root) for root in folder_paths.get_folder_paths("captioners")]
    return [own, *(root for root in roots if root != own)]


def caption_cache_folder() -> Path:
    """Return the folder that caches captions. Its name starts with a dot, which no run's name does."""
    return runs_folder() / ".captions"


def lora_folder() -> Path:
    """Return the folder for new LoRAs, which ComfyUI lists among its LoRA folders."""
    return Path(folder_paths.get_output_directory()) / "loras"


def lora_choices() -> list[str]:
    """Return `NONE`, followed by the safetensors files in ComfyUI's list of LoRAs; other formats can run code."""
    return [NONE, *filter(_is_safetensors, folder_paths.get_filename_list("loras"))]


def lora_is_listed(name: str) -> bool:
    """Return whether any of ComfyUI's LoRA folders has a file of this name, which could hide a new one."""
    return folder_paths.get_full_path("loras", name) is not None


def lora_file(name: str) -> Path:
    """Return the path of a LoRA from its name, as it is in ComfyUI's list or as `listed_name` takes it.

    Raises:
        CrucibleError: there is no such LoRA, it is unclear which one is meant, or it is not a safetensors file.
    """
    from ..trainer.errors import CrucibleError

    entry = lora_entry(name)
    if not _is_safetensors(entry):
        raise CrucibleError(
            f"LoRA {entry!r} is not a .safetensors file. Other formats can run code when they are opened, so they are "
            "not loaded. Download the LoRA as .safetensors, or convert it."
        )
    return Path(folder_paths.get_full_path_or_raise("loras", entry))


def lora_entry(name: str) -> str:
    """Return the entry of ComfyUI's list of LoRAs that a name refers to.

    Raises:
        CrucibleError: as `listed_name`.
    """
    from ..trainer.formats.lora_stack import listed_name

    listed = folder_paths.get_filename_list("loras")
    return name if name in listed else listed_name(name, listed, folder_paths.get_folder_paths("loras"))


def _is_safetensors(name: str) -> bool:
    from ..trainer.formats.header import ENDINGS

    return name.lower().endswith(ENDINGS)


def runs_folder() -> Path:
    """Return the folder that holds one subfolder per training run."""
    return Path(folder_paths.get_output_directory()) / "crucible"


def temporary_folder() -> Path:
    """Return the folder for temporary files; ComfyUI empties it when it starts."""
    return Path(folder_paths.get_temp_directory()) / "crucible"


def _dataset_roots() -> list[Path]:
    return [Path(root) for root in folder_paths.get_folder_paths("datasets") if Path(root).is_dir()]
