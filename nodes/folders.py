"""ComfyUI's folders, as the nodes see them."""

from pathlib import Path

import folder_paths

DEMO = "demo"


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


def lora_folder() -> Path:
    """Where new LoRAs go: ComfyUI lists it among its LoRA folders."""
    return Path(folder_paths.get_output_directory()) / "loras"


def runs_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "crucible"


def _dataset_roots() -> list[Path]:
    return [Path(root) for root in folder_paths.get_folder_paths("datasets") if Path(root).is_dir()]
