"""The settings that only language models have, and the task that says whether one is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import TaskType, setting

LongRows = Literal["auto", "split", "cut_prompt", "leave_out"]


class RowSettings(BaseModel):
    """How rows of texts are read and what of them is trained, part of every `TrainingConfig`.

    They are stored with every dataset of texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_seq_length: int | None = setting(
        None,
        "Longest row",
        "The most tokens of a row that are trained. Longer needs more memory. auto takes the length of the longest "
        "row, up to what the model can read and 2,048.",
        group="text",
        instead="resolution says how large images are trained",
        step=1,
        aliases=("cutoff_len", "max_length", "model_max_length", "block_size", "sequence_len"),
        ge=8,
        le=1_000_000,
    )
    long_rows: LongRows = setting(
        "auto",
        "Rows that are too long",
        "split trains a long text as several examples, cut_prompt removes the front of a long prompt, leave_out "
        "leaves the row out. auto splits texts and cuts prompts.",
        group="text",
    )
    text_columns: str = setting(
        "",
        "Columns",
        "The keys of your rows if they have names of their own, such as: prompt=question, answer=reply. The names on "
        "the left are system, prompt, answer, text and messages.",
        group="text",
        instead="caption_source says where captions come from",
    )
    train_on_prompts: bool = setting(
        False,
        "Train on prompts too",
        "Train prompts as well as answers. Off, the model learns to answer, and not to write questions.",
        group="text",
        aliases=("train_on_inputs", "train_on_prompt"),
    )
    regularization_rows: bool = setting(
        False,
        "Regularization rows",
        "Train the model's own answers to other prompts along with your rows, so that it forgets less. The prompts "
        "are those in reg_data_dir, or general ones that come with the package.",
        group="dataset",
        task="text-generation",
        instead="reg_data_dir names a folder of regularization images",
    )


class TextSettings(BaseModel):
    """The task, and what only the training of language models needs, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_type: TaskType = setting(
        "text-to-image",
        "Task",
        "What the trained model makes: text-to-image for images from prompts, text-generation for texts.",
        group="run",
        value_aliases={
            "causal_lm": "text-generation",
            "text_generation": "text-generation",
            "causallm": "text-generation",
            "text_to_image": "text-to-image",
        },
    )
    chat_template: str = setting(
        "auto",
        "Chat template",
        "The template that conversations are written in: auto is the tokenizer's own. For a model without one: "
        "chatml, llama3, mistral, gemma, vicuna, alpaca or plain. In ComfyUI it is that of the CLIP.",
        group="run",
        task="text-generation",
    )
    max_new_tokens: int = setting(
        128,
        "Longest answer",
        "The most tokens of an answer that a language model writes as a sample or to measure the result.",
        group="samples",
        task="text-generation",
        step=1,
        ge=1,
        le=8192,
    )
    load_in_4bit: bool = setting(
        False,
        "Load in 4 bits",
        "QLoRA: hold the frozen model in 4 bits (NF4 with double quantization), which needs about a quarter of the "
        "memory and costs a little accuracy. Needs the package bitsandbytes. In ComfyUI the loaded file decides.",
        group="run",
        task="text-generation",
        instead="a quantized image model is trained in the precision that it is loaded in",
        aliases=("qlora",),
    )
