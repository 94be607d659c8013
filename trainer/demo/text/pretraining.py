"""How the demo language model is trained before any LoRA: on random prompts of its world, and their answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from ..muon import Optimizer
from .new_words import UNKNOWN
from .tokenizer import MAX_TOKENS
from .world import Exchange, exchanges

logger = logging.getLogger(__name__)

STEPS, BATCH = 2000, 64
POOL = 16
"""The number of batches that are drawn at once and sorted by length, so that little is padded."""


def new_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
    """Return the model with random weights: Qwen3 in everything but its sizes."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of tokens and of labels without end; labels are -100 wherever nothing is trained.

    Answers and the tokens that end them are trained; prompts are not, because they are random.
    """
    random = Random(seed)  # noqa: S311
    while True:
        drawn = exchanges(random, BATCH * POOL, without=UNKNOWN)
        rows = sorted((tokens_of(tokenizer, exchange) for exchange in drawn), key=lambda row: len(row[0]) + len(row[1]))
        places = list(range(POOL))
        random.shuffle(places)
        for place in places:
            batch = rows[place * BATCH : (place + 1) * BATCH]
            length = max(len(prompt) + len(answer) for prompt, answer in batch)
            tokens = torch.full((BATCH, length), tokenizer.pad_token_id)
            labels = torch.full((BATCH, length), -100)
            for index, (prompt, answer) in enumerate(batch):
                end = len(prompt) + len(answer)
                tokens[index, :end] = torch.tensor(prompt + answer)
                labels[index, len(prompt) : end] = torch.tensor(answer)
            yield tokens, labels


def tokens_of(tokenizer: PreTrainedTokenizerBase, exchange: Exchange) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its answer, as in the chat template."""
    turn = [{"role": "user", "content": exchange.prompt}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(prompt), [*tokenizer.encode(exchange.answer), tokenizer.eos_token_id]


def train(tokenizer: PreTrainedTokenizerBase, seed: int, steps: int = STEPS) -> Qwen3ForCausalLM:
    """Train a new model, and log its loss from time to time."""
    model = new_model(tokenizer, seed)
    optimizer = Optimizer(model, steps, matrix_rate=0.02, vector_rate=0.005)
    for step, (tokens, labels) in enumerate(islice(batches(tokenizer, seed), steps)):
        hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]  # padding is on the right, where nothing looks
        trained = labels[:, 1:] != -100
        loss = cross_entropy(model.lm_head(hidden[trained]), labels[:, 1:][trained])
        optimizer.step(loss)
        if step % 100 == 0 or step == steps - 1:
            logger.info("Step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return model.eval()
