"""The settings that only language models have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting

TaskType = Literal["text-to-image", "text-generation"]
LongRows = Literal["auto", "split", "cut_prompt", "leave_out"]


class TextSettings(BaseModel):
    """What is trained of texts, and how they are read, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_type: TaskType = setting(
        "text-to-image",
        "Task",
        "What the model makes: images from prompts, or texts (text-generation).",
        group="run",
        value_aliases={
            "causal_lm": "text-generation",
            "text_generation": "text-generation",
            "text_to_image": "text-to-image",
        },
    )
    max_seq_length: int | None = setting(
        None,
        "Longest row",
        "The most tokens of a row that are trained. Longer needs more memory. On auto, the longest row decides, up to "
        "what the model can read and 2,048.",
        group="text",
        step=64,
        aliases=("cutoff_len", "max_length", "model_max_length", "block_size"),
        ge=8,
        le=1_000_000,
    )
    long_rows: LongRows = setting(
        "auto",
        "Rows that are too long",
        "split cuts a text into several examples, cut_prompt removes the front of a prompt, leave_out leaves the row "
        "out. auto splits texts and cuts prompts.",
        group="text",
    )
    text_columns: str = setting(
        "",
        "Columns",
        "The keys of your rows if they have names of their own, such as: prompt=question, answer=reply. The names on "
        "the left are system, prompt, answer, text and messages.",
        group="text",
    )
    chat_template: str = setting(
        "auto",
        "Chat template",
        "The template that conversations are written with: auto is the tokenizer's own. For a model without one: "
        "chatml, llama3, mistral, gemma, vicuna, alpaca or plain.",
        group="text",
    )
    train_on_prompts: bool = setting(
        False,
        "Train on prompts too",
        "Train the prompts as well as the answers. Off, the model learns to answer and not to ask.",
        group="text",
        aliases=("train_on_inputs",),
    )
    regularization_rows: bool = setting(
        False,
        "Regularization rows",
        "Train the model's own answers to other prompts along with yours, so that it forgets less. The prompts are "
        "those of reg_data_dir, or general ones that come with the package.",
        group="text",
    )
    max_new_tokens: int = setting(
        128,
        "Longest answer",
        "The most tokens of an answer that is written as a sample or to measure the result.",
        group="text",
        step=16,
        ge=1,
        le=8192,
    )
    load_in_4bit: bool = setting(
        False,
        "Load in 4 bits",
        "QLoRA: hold the frozen model in 4 bits (NF4 with double quantization), which needs about a quarter of the "
        "memory and costs a little accuracy. Needs the package bitsandbytes.",
        group="text",
        aliases=("qlora",),
    )
