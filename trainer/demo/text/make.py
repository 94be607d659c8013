"""Creates the demo language model and its dataset: `python -m trainer.demo.text.make [model|dataset]`.

Everything is derived from one seed. The model takes about ten minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen3ForCausalLM

from ..tokenizer import write_json
from . import DATASET_DIR, REGULARIZATION_DIR, model_folder
from .new_words import UNKNOWN, regularization_prompts, rows
from .pretraining import train
from .tokenizer import write_tokenizer
from .world import exchanges

SEED = 1
SENTENCES = 20_000
"""The number of exchanges that decide the vocabulary."""


def make_dataset() -> None:
    """Write the rows of the dataset and the prompts for regularization."""
    _write_lines(DATASET_DIR / "new_words.jsonl", ({"prompt": row.prompt, "completion": row.answer} for row in rows()))
    _write_lines(REGULARIZATION_DIR / "prompts.jsonl", ({"prompt": prompt} for prompt in regularization_prompts()))


def make_model(seed: int = SEED) -> None:
    """Train the model and write its folder."""
    folder = model_folder()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        finished = Path(temporary) / folder.name
        write_vocabulary(finished, seed)
        model = train(AutoTokenizer.from_pretrained(finished), seed)
        write_model(finished, model)
        shutil.rmtree(folder, ignore_errors=True)
        finished.rename(folder)


def write_vocabulary(folder: Path, seed: int) -> None:
    """Write the tokenizer, which has tokens for the words of the world."""
    known = exchanges(Random(seed), SENTENCES, without=UNKNOWN)  # noqa: S311
    write_tokenizer(folder, [text for exchange in known for text in exchange])


def write_model(folder: Path, model: Qwen3ForCausalLM) -> None:
    """Write the weights in fp16, and a config that every release of transformers can read."""
    weights = {name: tensor.half() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = model.config
    sizes = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "max_position_embeddings", "rms_norm_eps", "eos_token_id", "pad_token_id",
        "hidden_act", "attention_bias", "attention_dropout",
    )  # fmt: skip
    written = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        **{name: getattr(config, name) for name in sizes},
    }
    write_json(folder / "config.json", dict(sorted(written.items())))


def _write_lines(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


STAGES = {"model": (make_model,), "dataset": (make_dataset,), "all": (make_dataset, make_model)}


def main() -> None:
    """Run the stage named on the command line, or all stages by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?", choices=STAGES, default="all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    for make in STAGES[arguments.stage]:
        make()


if __name__ == "__main__":
    main()
