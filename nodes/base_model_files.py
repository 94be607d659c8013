"""Which files the base model of a graph comes from, so that a run on it can be repeated without the graph."""

from dataclasses import dataclass, field

MODEL_LOADERS = {"CheckpointLoaderSimple": "ckpt_name", "UNETLoader": "unet_name"}
"""ComfyUI's loaders of a MODEL that the command line opens in the same way, with the input that names the file."""

CLIP_LOADERS = {
    "CLIPLoader": ("clip_name",),
    "DualCLIPLoader": ("clip_name1", "clip_name2"),
    "TripleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3"),
    "QuadrupleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3", "clip_name4"),
}
"""ComfyUI's loaders of a CLIP, with the inputs that name its files."""

DEMO = "CrucibleDemoModel"


@dataclass(frozen=True)
class BaseModelFiles:
    """The settings that open the base model of a graph on the command line.

    Attributes:
        settings: `base_model`, and what belongs to it.
        remarks: sentences for the user.
    """

    settings: dict
    remarks: list = field(default_factory=list)


def base_model_files(prompt, node_id):
    """Return the settings that open the base model that a node is connected to.

    Args:
        prompt: the graph in the API's format.
        node_id: the id of the node, whose inputs are model, clip and vae.

    Raises:
        CrucibleError: something between the loaders and the node, or a loader itself, has no counterpart on the
            command line.
    """
    model, clip, vae = (_source(prompt, node_id, name) for name in ("model", "clip", "vae"))
    if model[1]["class_type"] == DEMO and model == clip == vae:
        return BaseModelFiles({"base_model": "demo"})
    settings, remarks = {}, []
    file_input = MODEL_LOADERS.get(model[1]["class_type"])
    if file_input is None:
        raise _refused("model", model)
    settings["base_model"] = _text(model, file_input, "model")
    if model[1]["inputs"].get("weight_dtype", "default") != "default":
        raise _refused("model", model, "with another weight_dtype than default")
    if clip != model:
        settings |= _clip(clip, remarks)
    if vae != model:
        settings["vae"] = _vae(vae)
    names = ", ".join(str(value).replace("\n", ", ") for name, value in settings.items() if name != "clip_type")
    remarks.append(
        f"{names}: names in ComfyUI's model folders. The other computer needs the same files, in its own ComfyUI "
        "(COMFYUI_PATH) or at paths that you write in their place."
    )
    return BaseModelFiles(settings, remarks)


def _source(prompt, node_id, name):
    """Return the id and the description of the node that an input is connected to."""
    from ..trainer.errors import CrucibleError

    link = (prompt or {}).get(str(node_id), {}).get("inputs", {}).get(name)
    if not isinstance(link, list) or str(link[0]) not in prompt:
        raise CrucibleError(
            f"The run cannot be saved, because the graph does not say what the input {name} comes from. Connect it to "
            "a loader directly."
        )
    return str(link[0]), prompt[str(link[0])]


def _text(source, name, socket):
    """Return a widget of a loader, whose value must be in the graph."""
    value = source[1]["inputs"].get(name)
    if not isinstance(value, str):
        raise _refused(socket, source, f"whose {name} comes from another node")
    return value


def _clip(source, remarks):
    names = CLIP_LOADERS.get(source[1]["class_type"])
    if names is None:
        raise _refused("clip", source)
    files = [_text(source, name, "clip") for name in names]
    if source[1]["inputs"].get("device", "default") != "default":
        remarks.append("The text encoders run on the CPU in the graph; on the command line ComfyUI chooses.")
    settings = {"text_encoders": "\n".join(files)}
    if "type" in source[1]["inputs"]:
        settings["clip_type"] = _text(source, "type", "clip")
    return settings


def _vae(source):
    if source[1]["class_type"] != "VAELoader":
        raise _refused("vae", source)
    name = _text(source, "vae_name", "vae")
    if "." not in name:
        raise _refused("vae", source, f"set to {name}, which is not one file")
    return name


def _refused(socket, source, why=""):
    from ..trainer.errors import CrucibleError

    node_id, node = source
    kind = node["class_type"]
    title = (node.get("_meta") or {}).get("title") or kind
    shown = f"{title} ({kind}, node {node_id})" if title != kind else f"{kind} (node {node_id})"
    if "lora" in kind.lower():
        remedy = (
            "Bake that LoRA into the checkpoint with `python -m trainer merge --into` and load the result here, or "
            "choose the LoRA in continue_from if it is the one to train further"
        )
    elif "Sampling" in kind:
        remedy = (
            "Connect the model from before that node; noise shift in Objective (Crucible) sets its shift for training"
        )
    else:
        remedy = (
            f"Connect {socket} to Load Checkpoint, Load Diffusion Model, Load CLIP or Load VAE directly, or train here "
            "in ComfyUI"
        )
    return CrucibleError(
        f"The run cannot be saved, because {socket} comes from {shown}{' ' + why if why else ''}, which the command "
        f"line cannot repeat, so it would train something else. {remedy}."
    )
