"""ComfyUI's folders, as the nodes see them."""

import ipaddress
from pathlib import Path, PureWindowsPath

import folder_paths

DEMO = "demo"
NONE = "None"


def dataset_choices() -> list[str]:
    """The demo dataset, then every folder below ComfyUI's input folder and the registered `datasets` folders."""
    choices = [f"input/{name}" for name in folder_paths.get_input_subfolders()]
    for root in _dataset_roots():
        choices += [f"datasets/{path.relative_to(root).as_posix()}" for path in root.rglob("*") if path.is_dir()]
    return [DEMO, *sorted(set(choices))]


def dataset_folder(choice: str) -> str:
    """The folder of one of `dataset_choices`, or "demo".

    Raises:
        CrucibleError: it is none of them, or leads out of ComfyUI's folders.
    """
    if choice == DEMO:
        return DEMO
    kind, _, name = choice.partition("/")
    roots = {"input": [Path(folder_paths.get_input_directory())], "datasets": _dataset_roots()}.get(kind, [])
    return str(contained(choice, name, roots))


def pasted_folder(path: str) -> str:
    """An absolute folder that the user pasted in.

    Raises:
        CrucibleError: other computers can reach this ComfyUI, so that whoever can would read any folder.
    """
    from comfy.cli_args import args

    from ..trainer.errors import CrucibleError

    written = Path(path.strip().strip('"')).expanduser()
    if not written.is_absolute():
        raise CrucibleError(
            f"path is {path!r}, which is no absolute path, so it is not clear which folder is meant. Paste the whole "
            "path, or choose one of the folders in the list."
        )
    if not listens_on_loopback_alone(args.listen):
        raise CrucibleError(
            f"path is {path!r}, but this ComfyUI listens on {args.listen}, where other computers could use it to read "
            "any folder. Register the folder under `datasets` in extra_model_paths.yaml, then press R and choose it "
            "from the list."
        )
    return str(written)


def listens_on_loopback_alone(addresses: str) -> bool:
    """Whether a server on these addresses, with commas between, can be reached from its own computer only."""

    def is_loopback(address: str) -> bool:
        try:
            return ipaddress.ip_address(address).is_loopback
        except ValueError:
            return address == "localhost"

    return all(is_loopback(address.strip()) for address in addresses.split(","))


def dataset_roots() -> list[Path]:
    """The folders that images may be read from."""
    return [Path(folder_paths.get_input_directory()), *_dataset_roots()]


def contained(written: str, name: str, roots: list[Path]) -> Path:
    """The folder or file `name` inside one of `roots`, the first that has it. `written` is what the user chose.

    Raises:
        CrucibleError: there is none, or the path leads out of the roots.
    """
    from ..trainer.errors import CrucibleError

    for root in roots:
        path = (root / name).resolve()
        if name and path.is_relative_to(root.resolve()) and path.exists():
            return path
    raise CrucibleError(
        f"{written!r} is not in any folder that ComfyUI may read: {', '.join(map(str, roots)) or 'none'}. Put your "
        "images into a subfolder of ComfyUI's input folder, or register their folder under `datasets` in "
        "extra_model_paths.yaml, then press R to refresh the list."
    )


def captioner_roots() -> list[Path]:
    """Where captioners are: models/captioners, where downloads go, and what users registered under this name."""
    own = Path(folder_paths.models_dir) / "captioners"
    folder_paths.add_model_folder_path("captioners", str(own))
    roots = [Path(root) for root in folder_paths.get_folder_paths("captioners")]
    return [own, *(root for root in roots if root != own)]


def caption_cache_folder() -> Path:
    """What captioners wrote. No run can have this name."""
    return runs_folder() / ".captions"


def lora_folder() -> Path:
    """Where new LoRAs go: ComfyUI lists it among its LoRA folders."""
    return Path(folder_paths.get_output_directory()) / "loras"


def lora_choices() -> list[str]:
    """`NONE`, then the LoRAs in ComfyUI's list that can be opened without running code."""
    files = folder_paths.get_filename_list("loras")
    return [NONE, *(name for name in files if name.lower().endswith(".safetensors"))]


def lora_is_listed(name: str) -> bool:
    """Whether ComfyUI has a LoRA of this file name in any of its folders: it would find that one first."""
    return folder_paths.get_full_path("loras", name) is not None


def lora_file(name: str) -> Path:
    """The file of a LoRA, by the name under which ComfyUI lists it.

    Raises:
        CrucibleError: there is none, it is no safetensors file, or the name leads out of ComfyUI's folders.
    """
    from ..trainer.errors import CrucibleError
    from ..trainer.suggestions import nearest_names

    if not name.lower().endswith(".safetensors"):
        raise CrucibleError(
            f"LoRA {name!r} is no .safetensors file. Other kinds can run code when they are opened, so they are not "
            "read. Get it as .safetensors, or convert it."
        )
    path = None if _leads_out(name) else folder_paths.get_full_path("loras", name)
    if path is None:
        near = nearest_names(name, lora_choices()[1:], count=3)
        advice = f"The nearest names are {', '.join(near)}." if near else "Put it into models/loras, or choose another."
        raise CrucibleError(f"LoRA {name!r} is not in ComfyUI's LoRA folders, so it cannot be applied. {advice}")
    return Path(path)


def runs_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "crucible"


def temporary_folder() -> Path:
    """For files that need not outlive this start of ComfyUI, which empties it."""
    return Path(folder_paths.get_temp_directory()) / "crucible"


def _leads_out(name: str) -> bool:
    """Whether a file's name is a path of its own, on any system, and not one inside of a folder."""
    return PureWindowsPath(name).anchor != "" or ".." in PureWindowsPath(name).parts


def _dataset_roots() -> list[Path]:
    return [Path(root) for root in folder_paths.get_folder_paths("datasets") if Path(root).is_dir()]
