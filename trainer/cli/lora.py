"""The commands `python -m trainer merge | resize | convert`, which make LoRA files from LoRA files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import TORCH
from ..errors import CrucibleError, errors_about
from ..files.names import unused_path
from ..formats.architectures import FORMS, NAMEABLE
from ..merging.recipe import MAJORITY_SIGNS, METHODS, Recipe
from ..messages.suggestions import nearest_path
from ..messages.wording import listed, size_text
from .display import display
from .exit_status import Outcome
from .stacked import stacked, stacked_path

if TYPE_CHECKING:
    from ..formats.architectures import Architecture, Form
    from ..formats.lora_model import LoraModel
    from ..formats.universal import Layers
    from ..merging.ingredients import Strengths
    from ..merging.model_folder import ModelFolder

PRECISIONS = ("fp16", "bf16", "fp32")


def add_lora_commands(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    merge = commands.add_parser("merge", help="merge several LoRAs into one, or into a checkpoint")
    merge.add_argument(
        "loras",
        nargs="+",
        metavar="LORA.safetensors[:STRENGTH[:STRENGTH_CLIP]]",
        help="a LoRA, its strength (default: 1), and its strength on the text encoders (default: the same)",
    )
    merge.add_argument("--method", choices=METHODS, default="linear", help="default: %(default)s")
    merge.add_argument("--rank", type=int, help="the new rank (default: as high as needed, or the sum of ranks)")
    merge.add_argument(
        "--density", type=float, default=0.5, help="share of values to keep, not for linear (default: 0.5)"
    )
    merge.add_argument("--majority_sign", choices=MAJORITY_SIGNS, default="total", help="for ties and dare_ties")
    merge.add_argument("--seed", type=int, default=0, help="random seed for the values that DARE drops (default: 0)")
    into = merge.add_mutually_exclusive_group()
    into.add_argument("--into", type=Path, metavar="MODEL", help="bake them into a copy of this checkpoint or folder")
    into.add_argument("--base", type=Path, metavar="MODEL", help="the base model, required for DoRA")
    merge.add_argument(
        "--other_base",
        action="store_true",
        help="merge into another language model than it was trained on",
    )
    _add_output(merge)
    merge.set_defaults(command=_merge, needs=(TORCH,))

    resize = commands.add_parser("resize", help="change the rank of a LoRA; LoHa and LoKr become LoRA")
    resize.add_argument("lora", type=Path, metavar="LORA.safetensors")
    resize.add_argument("--rank", type=int)
    resize.add_argument("--energy", type=float, help="keep this share of each layer at the lowest rank, such as 0.95")
    _add_output(resize)
    resize.set_defaults(command=_resize, needs=(TORCH,))

    convert = commands.add_parser("convert", help="convert a LoRA to the format of another program")
    convert.add_argument("lora", type=Path, metavar="LORA.safetensors")
    convert.add_argument("--to", choices=FORMS, default="auto", help="auto: the format that most programs read")
    _add_output(convert)
    convert.set_defaults(command=_convert, needs=(TORCH,))


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.safetensors", help="an existing file is never overwritten"
    )
    parser.add_argument(
        "--architecture",
        choices=("auto", *NAMEABLE),
        default="auto",
        metavar="NAME",
        help="whose layer names the files have, if the files do not tell: " + ", ".join(NAMEABLE),
    )
    parser.add_argument("--save_precision", choices=PRECISIONS, help="default: that of the input files")


@errors_about("model")
def _merge(options: argparse.Namespace) -> Outcome:
    import torch

    from ..formats.header import read_header
    from ..formats.identify import candidates_of_checkpoint
    from ..merging.architecture import architecture_of_all
    from ..merging.ingredients import embeddings_of, ingredients
    from ..merging.into import bake, base_weights
    from ..merging.model_folder import read_model_folder
    from ..merging.result import merge_to_file
    from ..optim.engine import DTYPES

    if options.into is not None and (options.rank, options.save_precision) != (None, None):
        raise CrucibleError(
            "--rank and --save_precision are for LoRAs, but --into writes a model, which has no rank and keeps "
            "its precision. Leave them out, or leave out --into.",
            "settings",
        )
    stack = [stacked(text) for text in options.loras]
    recipe = Recipe(options.method, options.rank, options.density, options.majority_sign, options.seed)
    base_model = options.into or options.base
    if base_model is not None and not base_model.expanduser().exists():
        path = base_model.expanduser().absolute()
        raise CrucibleError(
            f"There is no file or folder {path}, so there is no model to merge into or to take weights from. "
            f"{nearest_path(path)} Name the checkpoint, or the folder of the language model, that the LoRA was trained "
            "on."
        )
    folder = read_model_folder(base_model.expanduser()) if base_model and base_model.expanduser().is_dir() else None
    of_base = candidates_of_checkpoint(read_header(base_model).shapes) if base_model and folder is None else ()
    architecture = architecture_of_all([one.lora for one in stack], options.architecture, of_base)
    if base_model is not None and (architecture.id == "language") != (folder is not None):
        raise CrucibleError(
            f"The LoRA is for {architecture.name}, and {base_model} is {'a folder' if folder else 'a file'}: LoRAs of "
            "language models are merged into the folder of the model (with config.json), all others into a checkpoint "
            "file. Name the base model that the LoRA was trained on."
        )
    if options.into is not None and folder is not None:
        return _merge_into_folder(options, stack, recipe, folder)
    output = _free(options.output)
    shown, what = display(), "Merging" if options.into is None else "Baking"
    with ExitStack() as opened:

        def progress(done: int, total: int) -> None:
            shown.working(what, done, total, "layer")

        if options.into is not None:
            made = {"crucible.parents": json.dumps([one.record() for one in stack], ensure_ascii=False)}
            parts = ingredients(stack, architecture)
            told = bake(options.into, parts, recipe, architecture, output, made, progress).text()
            if embeddings := [*embeddings_of([one.lora for one in stack])]:
                told += f"\nNot in it, because a checkpoint holds no embeddings: {listed(embeddings)}."
        else:
            weights = folder.base_weights() if folder else options.base and base_weights(options.base, architecture)
            base = opened.enter_context(weights) if weights else None
            dtype = DTYPES.get(options.save_precision)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            _, told = merge_to_file(output, stack, recipe, base, progress, dtype, device, architecture)
    print(told)
    return Outcome({"output": str(output), "report": told})


def _merge_into_folder(
    options: argparse.Namespace, stack: Sequence[Strengths], recipe: Recipe, folder: ModelFolder
) -> Outcome:
    import transformers.utils.logging

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    from ..formats.architectures import ARCHITECTURES
    from ..merging.ingredients import ingredients
    from ..merging.into_folder import bake_into_folder, require_floats, require_same_base, trained_template
    from ..models.transformers.identity import model_identity
    from ..models.transformers.merged_answers import answers_of_base, lack_of_memory, require_same_answers

    def identities() -> list[str]:
        return [model_identity(folder.path, folder.tensors(), in_4bit=in_4bit) for in_4bit in (False, True)]

    require_floats(folder)
    if not options.other_base:
        require_same_base([(one.lora.name, one.lora.metadata) for one in stack], folder, identities)
    parts = ingredients(stack, ARCHITECTURES["language"])
    lack = lack_of_memory(folder)
    told = f"Each tensor was read back and compared. Not checked by answers: {lack}."

    def check(merged: Path) -> None:
        nonlocal told
        if not lack:
            told = require_same_answers(merged, answers_of_base(folder, parts, recipe))

    shown = display()

    def progress(done: int, total: int) -> None:
        shown.working("Merging", done, total, "tensor")

    baked = bake_into_folder(
        folder,
        parts,
        recipe,
        options.output,
        {"crucible.parents": json.dumps([one.record() for one in stack], ensure_ascii=False)},
        chat_template=next(filter(None, (trained_template(path) for path in map(stacked_path, options.loras))), ""),
        progress=progress,
        check=check,
    )
    print(f"{baked.text()}\n{told}")
    return Outcome({"output": str(baked.path), "report": f"{baked.text()}\n{told}"})


@errors_about("model")
def _resize(options: argparse.Namespace) -> Outcome:
    from ..formats.delta import rank_of
    from ..merging.architecture import architecture_of_all, undecided_text
    from ..merging.ingredients import layers_of
    from ..merging.resize import resize

    if (options.rank is None) == (options.energy is None):
        raise CrucibleError(
            "Give either --rank or --energy: the new rank, or the share of each layer to keep.", "settings"
        )
    stack = [stacked(str(options.lora))]
    architecture = architecture_of_all([stack[0].lora], options.architecture)
    if note := undecided_text(architecture):
        print(note)
    resized = resize(layers_of(stack[0].lora, architecture), options.rank, options.energy)
    print(resized.error_text())
    ranks = [rank_of(layer) or 0 for layer in resized.lora.layers.values()]
    if options.rank is not None and max(ranks, default=0) < options.rank:
        print(f"No layer has a rank of {options.rank}, and a higher rank adds nothing: the ranks stay as they are.")
    facts = {"command": "resize", "rank": options.rank, "energy": options.energy}
    return _save(resized.lora, stack, architecture, _free(options.output), options, facts)


@errors_about("model")
def _convert(options: argparse.Namespace) -> Outcome:
    from ..formats.peft_scale import scale_text
    from ..merging.architecture import architecture_of_all, undecided_text
    from ..merging.ingredients import layers_of

    stack = [stacked(str(options.lora))]
    architecture = architecture_of_all([stack[0].lora], options.architecture)
    print(undecided_text(architecture) or f"This LoRA is for {architecture.name}.")
    if scale := scale_text(stacked_path(str(options.lora)), stack[0].lora.metadata):
        print(f"{scale} The new file has it in a form that all of them read.")
    lora = layers_of(stack[0].lora, architecture)
    if architecture.id == "language" and options.to == "peft" and not options.output.suffix:
        return _save_adapter_folder(lora, stack[0].lora, options)
    return _save(
        lora, stack, architecture, _free(options.output), options, {"command": "convert", "to": options.to}, options.to
    )


def _save_adapter_folder(lora: Layers, source: LoraModel, options: argparse.Namespace) -> Outcome:
    from ..files.names import check_output_name, unused_name
    from ..formats.language_file import paths_of, peft_adapter
    from ..formats.lora_file import dtype_of
    from ..models.transformers.adapter_folder import write_adapter_folder
    from ..optim.engine import DTYPES

    paths = paths_of(lora)
    base_model = source.metadata.get("ss_sd_model_name", "")
    adapter = peft_adapter({paths[key]: layer for key, layer in lora.layers.items()}, base_model=base_model)
    output = options.output.expanduser()
    output = output.with_name(unused_name(check_output_name(output.name), lambda one: output.with_name(one).exists()))
    write_adapter_folder(output, adapter, DTYPES.get(options.save_precision) or dtype_of(source))
    print(f"Saved the folder {output}. It has no tokenizer and chat template: use those of the base model.")
    return Outcome({"output": str(output)})


def _free(output: Path) -> Path:
    """Return the path, with a number appended if it is taken."""
    return unused_path(output.expanduser().parent, output.name)


def _save(
    lora: Layers,
    stack: Sequence[Strengths],
    architecture: Architecture,
    output: Path,
    options: argparse.Namespace,
    facts: Mapping[str, Any],
    form: Form = "auto",
) -> Outcome:
    from ..merging.ingredients import embeddings_note
    from ..merging.result import save
    from ..optim.engine import DTYPES

    save(output, lora, stack, architecture, facts, form=form, dtype=DTYPES.get(options.save_precision))
    for line in embeddings_note([one.lora for one in stack]):
        print(line)
    print(f"Saved {output} ({size_text(output.stat().st_size)}).")
    return Outcome({"output": str(output), "bytes": output.stat().st_size})
