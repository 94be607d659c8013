"""The commands `python -m trainer merge | resize | convert`, which make LoRA files from LoRA files."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor.requirements import TORCH
from ..errors import CrucibleError
from ..files.names import unused_path
from ..formats.architectures import FORMS, NAMEABLE
from ..merging.recipe import MAJORITY_SIGNS, METHODS, Recipe
from ..messages.wording import listed, size_text

if TYPE_CHECKING:
    from ..formats.architectures import Architecture, Form
    from ..formats.universal import Layers
    from ..merging.ingredients import Strengths

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
    into.add_argument("--into", type=Path, metavar="CHECKPOINT.safetensors", help="bake them into a copy of this file")
    into.add_argument("--base", type=Path, metavar="CHECKPOINT.safetensors", help="the base model, required for DoRA")
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


def _merge(options: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from ..formats.header import read_header
    from ..formats.identify import candidates_of_checkpoint
    from ..merging.architecture import architecture_of_all
    from ..merging.ingredients import embeddings_of, ingredients
    from ..merging.into import bake, base_weights
    from ..merging.result import merge_to_file
    from ..optim.engine import DTYPES

    if options.into is not None and (options.rank, options.save_precision) != (None, None):
        raise CrucibleError(
            "--rank and --save_precision are for LoRAs, but --into writes a checkpoint, which has no rank and keeps "
            "its precision. Leave them out, or leave out --into."
        )
    stack = [_stacked(text) for text in options.loras]
    recipe = Recipe(options.method, options.rank, options.density, options.majority_sign, options.seed)
    base_model = options.into or options.base
    of_base = candidates_of_checkpoint(read_header(base_model).shapes) if base_model is not None else ()
    architecture = architecture_of_all([one.lora for one in stack], options.architecture, of_base)
    output = _free(options.output)
    with tqdm(total=0, dynamic_ncols=True, leave=False) as bar, ExitStack() as opened:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if options.into is not None:
            bar.set_description("Baking", refresh=False)
            made = {"crucible.parents": json.dumps([one.record() for one in stack], ensure_ascii=False)}
            parts = ingredients(stack, architecture)
            told = bake(options.into, parts, recipe, architecture, output, made, progress).text()
            if embeddings := [*embeddings_of([one.lora for one in stack])]:
                told += f"\nNot in it, because a checkpoint holds no embeddings: {listed(embeddings)}."
        else:
            bar.set_description("Merging", refresh=False)
            base = options.base and opened.enter_context(base_weights(options.base, architecture))
            dtype = DTYPES.get(options.save_precision)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            _, told = merge_to_file(output, stack, recipe, base, progress, dtype, device, architecture)
    print(told)


def _resize(options: argparse.Namespace) -> None:
    from ..formats.delta import rank_of
    from ..merging.architecture import architecture_of_all, undecided_text
    from ..merging.ingredients import layers_of
    from ..merging.resize import resize

    if (options.rank is None) == (options.energy is None):
        raise CrucibleError("Give either --rank or --energy: the new rank, or the share of each layer to keep.")
    stack = [_stacked(str(options.lora))]
    architecture = architecture_of_all([stack[0].lora], options.architecture)
    if note := undecided_text(architecture):
        print(note)
    resized = resize(layers_of(stack[0].lora, architecture), options.rank, options.energy)
    print(resized.error_text())
    ranks = [rank_of(layer) or 0 for layer in resized.lora.layers.values()]
    if options.rank is not None and max(ranks, default=0) < options.rank:
        print(f"No layer has a rank of {options.rank}, and a higher rank adds nothing: the ranks stay as they are.")
    facts = {"command": "resize", "rank": options.rank, "energy": options.energy}
    _save(resized.lora, stack, architecture, _free(options.output), options, facts)


def _convert(options: argparse.Namespace) -> None:
    from ..formats.peft_scale import scale_text
    from ..merging.architecture import architecture_of_all, undecided_text
    from ..merging.ingredients import layers_of

    stack = [_stacked(str(options.lora))]
    architecture = architecture_of_all([stack[0].lora], options.architecture)
    print(undecided_text(architecture) or f"This LoRA is for {architecture.name}.")
    if scale := scale_text(options.lora.expanduser(), stack[0].lora.metadata):
        print(f"{scale} The new file has it in a form that all of them read.")
    lora = layers_of(stack[0].lora, architecture)
    _save(
        lora, stack, architecture, _free(options.output), options, {"command": "convert", "to": options.to}, options.to
    )


_STACKED = re.compile(r"(.*\.(?:safetensors|sft))((?::[^:]*)*)", re.IGNORECASE | re.DOTALL)


def _stacked(text: str) -> Strengths:
    """Read a LoRA and its strengths: "file.safetensors", "file.safetensors:0.7" or "file.safetensors:0.7:0.5"."""
    from ..formats.lora_file import read_lora
    from ..formats.lora_model import LoraModel
    from ..merging.ingredients import Strengths

    match = _STACKED.fullmatch(text)
    try:
        strengths = [float(number) for number in match[2].split(":")[1:]] if match else []
    except ValueError:
        match = None
    if match is None or len(strengths) > 2 or not all(map(math.isfinite, strengths)):
        raise CrucibleError(
            f"{text!r} is not a LoRA with a strength. Write the file, then its strength after a colon and, if the "
            "text encoders need a different one, theirs after another colon: mine.safetensors:0.7:0.5."
        )
    path = Path(match[1]).expanduser()
    tensors, metadata = read_lora(path)
    strengths = strengths or [1.0]
    return Strengths(LoraModel(tensors, path.name, metadata), strengths[0], strengths[-1])


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
) -> None:
    from ..merging.ingredients import embeddings_note
    from ..merging.result import save
    from ..optim.engine import DTYPES

    save(output, lora, stack, architecture, facts, form=form, dtype=DTYPES.get(options.save_precision))
    for line in embeddings_note([one.lora for one in stack]):
        print(line)
    print(f"Saved {output} ({size_text(output.stat().st_size)}).")
