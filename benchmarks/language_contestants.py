"""The worker processes of language.py and smollm2.py. Each gets one job as JSON and writes its result as JSON.

All contestants train the same model on the same rows in the same chat template: rank, alpha, layers, optimizer, batch
and precision (fp32) are equal, and only answers and the tokens that end them are trained.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shared import load_trainer

SEED = 0


class Stopwatch:
    """Measures a training's speed and memory: call `ready` just before it, `count` with each batch's tokens, and `step`
    after every step."""

    def ready(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory use
        self.before_gb = peak_gb()
        self.losses: list[float] = []
        self.tokens = 0
        self.times: list[tuple[float, float, int]] = []

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def step(self) -> None:
        self.times.append((time.perf_counter(), time.process_time(), self.tokens))

    def figures(self, warm_up: int) -> dict[str, Any]:
        """Return the results; the first `warm_up` steps are not timed."""
        timed = len(self.times) - warm_up
        seconds, busy, tokens = (
            last - first for first, last in zip(self.times[warm_up - 1], self.times[-1], strict=True)
        )
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "tokens_per_cpu_second": round(tokens / busy, 1),
            "before_training_gb": self.before_gb,
            "peak_training_gb": peak_gb(),
            "timed_steps": timed,
            "timed_tokens": tokens,
            "losses": [round(loss, 4) for loss in (*self.losses[:3], *self.losses[-3:])],
        }


def peak_gb() -> float:
    """Return the peak resident memory of the process in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


def read_rows(data: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]


def tokens_of(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """Return the tokens of a row's prompt in the chat template, and of its answer with the stop token."""
    turn = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    answer = tokenizer.encode(row["completion"], add_special_tokens=False)
    return tokenizer.encode(prompt, add_special_tokens=False), [*answer, tokenizer.eos_token_id]


def rows_of(data: str, count: int) -> list[dict[str, str]]:
    """Return `count` rows, the first ones again where there are fewer."""
    rows = read_rows(data)
    return [rows[index % len(rows)] for index in range(count)]


def counted(model: torch.nn.Module, watch: Stopwatch) -> None:
    """Let a model tell the stopwatch of the tokens that it reads, without padding."""

    def count(_: torch.nn.Module, __: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        watch.count(int(arguments["attention_mask"].sum()))

    model.register_forward_pre_hook(count, with_kwargs=True)


def timed(watch: Stopwatch) -> Any:
    """Return a callback of transformers' Trainer that tells the stopwatch of every step."""
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            watch.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if "loss" in (logs or {}):
                watch.losses.append(logs["loss"])

    return Timed()


def lora_config(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def training_arguments(batch: int, steps: int, learning_rate: float, checkpointing: bool) -> dict[str, Any]:
    """Return the arguments that Trainer and SFTTrainer share."""
    return {
        "output_dir": "peer",
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "seed": SEED,
        "disable_tqdm": True,
    }


def loaded(model: str, load_in_4bit: bool) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if not load_in_4bit:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, quantization_config=quantized)


# The contestants. Each builds its model, calls `watch.ready()`, trains, and calls `watch.step()` after every step.


def trainer(
    watch: Stopwatch,
    *,
    model: str,
    data: str,
    batch: int,
    steps: int,
    rank: int,
    learning_rate: float,
    load_in_4bit: bool = False,
    checkpointing: bool = False,
) -> None:
    """Train with transformers' Trainer and peft."""
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = rows_of(data, batch * steps)
    examples = [
        {
            "input_ids": prompt + answer,
            "attention_mask": [1] * len(prompt + answer),
            "labels": [-100] * len(prompt) + answer,
        }
        for prompt, answer in (tokens_of(tokenizer, row) for row in rows)
    ]
    base = loaded(model, load_in_4bit)
    if load_in_4bit:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=checkpointing)
    torch.manual_seed(SEED)
    adapted = get_peft_model(base, lora_config(rank))
    if checkpointing:
        adapted.enable_input_require_grads()
    training = Trainer(
        model=adapted,
        args=TrainingArguments(**training_arguments(batch, steps, learning_rate, checkpointing)),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[timed(watch)],
    )
    counted(training.model, watch)
    watch.ready()
    training.train()


def trl(
    watch: Stopwatch,
    *,
    model: str,
    data: str,
    batch: int,
    steps: int,
    rank: int,
    learning_rate: float,
    checkpointing: bool = False,
) -> None:
    """Train with TRL's SFTTrainer."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = rows_of(data, batch * steps)
    conversations = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in rows
    ]
    torch.manual_seed(SEED)
    training = SFTTrainer(
        model=loaded(model, load_in_4bit=False),
        processing_class=tokenizer,
        args=SFTConfig(**training_arguments(batch, steps, learning_rate, checkpointing), max_length=None),
        train_dataset=Dataset.from_list(conversations),
        peft_config=lora_config(rank),
        callbacks=[timed(watch)],
    )
    counted(training.model, watch)
    watch.ready()
    training.train()


def crucible(
    watch: Stopwatch,
    *,
    model: str,
    data: str,
    batch: int,
    steps: int,
    rank: int,
    learning_rate: float,
    load_in_4bit: bool = False,
    checkpointing: bool = False,
) -> None:
    """Train with this checkout's trainer."""
    load_trainer()
    from lora_crucible.config import parse_config
    from lora_crucible.data.text.chat_rendering import ChatRenderer
    from lora_crucible.data.text.load import load_text_dataset
    from lora_crucible.events.callbacks import Callbacks
    from lora_crucible.models.transformers.model import TransformersBaseModel
    from lora_crucible.runs.paths import RunFiles
    from lora_crucible.training.plan import plan_run
    from lora_crucible.training.run import run_training

    config = parse_config(
        {
            "task_type": "text-generation",
            "base_model": model,
            "train_data_dir": data,
            "batch_size": batch,
            "gradient_accumulation_steps": 1,
            "max_train_steps": steps,
            "lora_rank": rank,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0,
            "target_modules": "linear",
            "learning_rate": learning_rate,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "weight_decay": 0,
            "mixed_precision": "fp32",
            "gradient_checkpointing": checkpointing,
            "load_in_4bit": load_in_4bit,
            "seed": SEED,
            "measure": "never",
            "validation_percent": 0,
            "sample_every_n_steps": steps,
            "save_steps": steps,
        }
    )

    class Counted(TransformersBaseModel):
        def losses(self, rows: Any, *arguments: Any) -> Any:
            watch.count(sum(len(row.inputs.tokens) for row in rows))
            return super().losses(rows, *arguments)

    base = Counted(model, make_renderer=ChatRenderer, load_in_4bit=load_in_4bit)
    plan = plan_run(base, load_text_dataset(config), config)
    folder = Path("crucible").resolve()

    def stepped(report: Any, _: int) -> None:
        watch.losses.append(report.loss)
        watch.step()

    watch.ready()
    run_training(base, plan, RunFiles.claim("language", folder, folder), Callbacks(stepped=stepped))


# The peak of the loss alone


def loss_peak(watch: Stopwatch, *, chunked: bool, tokens: int, vocabulary: int, width: int) -> dict[str, Any]:
    """Compute a loss and its gradient once, in chunks or plainly; return the memory that it takes beside its inputs."""
    torch.manual_seed(SEED)
    hidden = torch.randn(tokens, width, requires_grad=True)
    head = torch.randn(vocabulary, width) * width**-0.5
    labels = torch.randint(vocabulary, (tokens,))
    watch.ready()
    start = time.perf_counter()
    if chunked:
        load_trainer()
        from lora_crucible.models.language.loss import Head, token_losses

        loss = token_losses(hidden, labels, Head(head)).mean()
    else:
        loss = torch.nn.functional.cross_entropy(hidden @ head.T, labels)
    loss.backward()
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "peak_gb": round(peak_gb() - watch.before_gb, 3),
        "loss": round(loss.item(), 5),
    }


def make_model(folder: str, tokenizer: str, **sizes: int) -> dict[str, Any]:
    """Write a Qwen3 model with random weights, and the tokenizer of another folder."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(SEED)
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **ends, tie_word_embeddings=True))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return {"parameters": model.num_parameters()}


def main() -> None:
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    arguments = request["arguments"]
    watch = Stopwatch()
    jobs: dict[str, Callable[..., Any]] = {"crucible": crucible, "trainer": trainer, "trl": trl}
    if request["job"] in jobs:
        warm_up = arguments.pop("warm_up")
        jobs[request["job"]](watch, **arguments)
        result = watch.figures(warm_up)
    elif request["job"] == "loss_peak":
        result = loss_peak(watch, **arguments)
    else:
        result = make_model(**arguments)
    Path(request["answer"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
