"""Whole runs on tiny models of transformers: from a file of rows to an adapter that other programs read.

What users of other trainers suffer, and the tests that would fail if it happened here (the table in
docs/language_models.md has it in plain words):

- The model never stops, because padding and the end are one token: `test_an_overfitted_lora_is_the_same_everywhere`
  here, where they are; `test_answer_and_stop_token_are_trained_and_nothing_else` in data/text/test_chat_rendering.py;
  `test_padding_is_by_length_and_never_by_id` in models/language/test_inputs.py.
- Nothing is trained, because all labels are masked: `test_a_row_without_trained_tokens_is_named` in test_model.py.
- The mark of the answer is tokenized differently in its context: `test_markers_in_a_row_change_nothing` and
  `test_spaces_stay_with_the_words_that_they_precede` in data/text/test_chat_rendering.py.
- A long row is cut and loses its answer: `test_an_answer_is_never_cut` in data/text/test_long_rows.py.
- Packed rows see each other: rows are never packed (`packing: true` is refused in config/test_foreign_values.py), and
  `test_rows_do_not_depend_on_the_batch_or_on_padding` in test_model.py.
- Accumulation weighs rows wrongly: `test_twenty_steps_have_the_losses_of_transformers_trainer` in
  test_beside_transformers.py.
- BOS is there twice: `test_bos_is_added_once_where_the_template_lacks_it` and
  `test_named_templates_train_answers_and_keep_system_texts` in data/text/test_chat_rendering.py.
- Merging into 4 bits ruins the model: `test_quantized_weights_are_refused` in cli/test_language_loras.py.
- Merging into another base: `test_another_base_of_the_same_size_is_refused_unless_asked_for` in
  cli/test_language_loras.py.
- The loss jumps after a resume: `test_a_run_in_two_parts_equals_one_in_one` here and in training/test_resume.py.
- Nonsense when served without the template: `test_transformers_loads_the_folder_with_the_template_of_the_training` in
  test_adapter_folder.py; `test_the_template_of_the_training_is_in_the_merged_folder` in cli/test_language_loras.py.
- Roles that do not take turns: `test_roles_alternate_and_end_with_an_answer` in data/text/test_kinds.py;
  `test_roles_that_the_template_refuses_are_an_error` in data/text/test_chat_rendering.py.
- Think blocks trained or lost: `test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer` and
  `test_thoughts_in_answers_are_trained` in data/text/test_chat_rendering.py.
- Sizes of the vocabulary that do not match: `test_an_adapter_with_embeddings_of_another_vocabulary_is_refused` in
  cli/test_language_loras.py; `test_a_token_that_the_model_does_not_know_is_named` in test_model.py.
- NaN in float16: `test_activations_beyond_the_range_of_float16_train` here;
  `test_losses_reach_float16_gradients_through_a_loss_scale` in models/language/test_loss.py.
- Keys and types that change from row to row: `test_problems_name_key_value_and_remedy` in data/text/test_kinds.py;
  `test_faulty_rows_prevent_training_and_are_all_named` and `test_files_with_several_layouts_are_named` in
  data/text/test_dataset.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.config import parse_config
from lora_crucible.data.text.chat_rendering import ChatRenderer
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.demo.text import model_folder
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.transformers.model import TransformersBaseModel
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from peft import PeftModel
from random_models import ALL, make_model, save, save_in_shards
from transformers import AutoModelForCausalLM, AutoTokenizer
from word_rows import QUICK, ROWS

pytestmark = pytest.mark.usefixtures("no_curves", "checkpoints_in_time")


class Stop(BaseException):
    pass


def train(folder: Path, base: Path, stop_after: int | None = None, **values: Any) -> RunResult:
    """Train on the rows from a file, as the command line does."""
    data = folder.parent / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": one, "answer": other}) + "\n" for one, other in ROWS.items()))
    config = parse_config({**QUICK, "base_model": str(base), "train_data_dir": str(data), **values})

    def stepped(report: Any, steps: int) -> None:
        if report.step == stop_after:
            raise Stop

    model = TransformersBaseModel(str(base), make_renderer=ChatRenderer, load_in_4bit=config.load_in_4bit)
    return train_or_resume(model, load_text_dataset(config), config, folder, folder, Callbacks(stepped=stepped))


def base_of(folder: Path, kind: str) -> Path:
    """Write a model whose token for padding is the one that ends a text."""
    if kind != "Qwen2":
        return save_in_shards(folder, kind)
    # transformers reads the tokenizers of these models with Qwen's own rules, whatever their files say.
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    tokenizer.pad_token = tokenizer.eos_token
    save(folder, kind, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(folder)
    return folder


def answers(model: Any, folder: Path) -> dict[str, str]:
    """Return what a model answers to the prompts, up to the end token, with the tokenizer of a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for prompt in ROWS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        written = model.generate(**tokens, max_new_tokens=24, do_sample=False, pad_token_id=2)[0]
        answer = written[tokens["input_ids"].shape[1] :].tolist()
        assert answer[-1] == tokenizer.eos_token_id, f"{prompt!r} never stops: {tokenizer.decode(answer)}"
        found[prompt] = tokenizer.decode(answer[:-1])
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_an_overfitted_lora_is_the_same_everywhere(tmp_path: Path, kind: str, checkpointing: bool) -> None:
    """In a model whose token for padding is the one that ends a text, the answers are learned and end."""
    base, merged = base_of(tmp_path / "base", kind), tmp_path / "merged"
    result = train(
        tmp_path / "out", base, max_train_steps=150, batch_size=4, gradient_accumulation_steps=1, learning_rate=1e-2,
        lora_dropout=0, gradient_checkpointing=checkpointing, sample_every_n_steps=150, save_steps=150,
    )  # fmt: skip
    adapter = result.files.folder / "adapter"
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    assert answers(peft, adapter) == ROWS
    assert main(["merge", str(result.files.lora), "--into", str(base), "--output", str(merged)]) == 0
    baked = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert answers(baked, merged) == ROWS
    tokens = torch.tensor([[1, 3, 6, 8, 2, 1, 4], [1, 3, 11, 2, 1, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(peft(tokens).logits, baked(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [{}, {"regularization_rows": True}, {"load_in_4bit": True}, {"algorithm": "dora", "lora_dropout": 0}],
    ids=lambda values: "_".join(values) or "defaults",
)
def test_a_run_in_two_parts_equals_one_in_one(tmp_path: Path, values: dict[str, Any]) -> None:
    """The loss does not jump after a resume: order, dropout, optimizer and answers of the base are those of before."""
    if "load_in_4bit" in values:
        pytest.importorskip("bitsandbytes")
    base = save_in_shards(tmp_path / "base", "Gemma3" if not values else "Qwen3")
    whole = train(tmp_path / "whole", base, **values)
    for step in (2, 5):
        with pytest.raises(Stop):
            train(tmp_path / "parts", base, step, **values)
    parts = train(tmp_path / "parts", base, **values)
    assert "Resumed after step 5" in parts.report
    assert parts.losses == whole.losses
    first, second = (read_lora(result.files.lora)[0] for result in (whole, parts))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_changed_rows_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_in_shards(tmp_path / "base")
    with pytest.raises(Stop):
        train(tmp_path / "out", base, 4)
    monkeypatch.setitem(ROWS, "moon", "a red moon")
    assert "Resumed" not in train(tmp_path / "out", base).report


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_beyond_the_range_of_float16_train(tmp_path: Path, checkpointing: bool) -> None:
    """Sums over the layers are larger than the largest number of float16 in many models."""
    base = tmp_path / "base"
    model = make_model("Llama")
    with torch.no_grad():
        model.model.embed_tokens.weight.sign_().mul_(6e4)
        for layer in model.model.layers:
            layer.mlp.down_proj.weight *= 2e3
    save_in_shards(base, "Llama")
    for shard in base.glob("model*"):
        shard.unlink()
    model.save_pretrained(base)
    with torch.no_grad():
        hidden = model(torch.tensor([[1, 3, 6, 8, 2]]), output_hidden_states=True).hidden_states
    assert max(one.abs().max() for one in hidden[:-1]) > torch.finfo(torch.float16).max
    result = train(tmp_path / "out", base, mixed_precision="fp16", gradient_checkpointing=checkpointing)
    assert torch.tensor(result.losses).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in read_lora(result.files.lora)[0].values())
    assert "NaN" not in result.report
