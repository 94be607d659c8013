"""Whether a language model can be trained, and which of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...config.layer_patterns import LayerPattern
from ...errors import CrucibleError
from ...messages.wording import counted
from .folder import LanguageFolder

CHECKED_TOKENS = 6
"""The number of tokens that the model's own logits are compared on."""

TOLERANCE = 0.05
"""The largest difference of logits, as a share of the largest logit, that rounding in 16 bits explains."""


def decoder(model: Any) -> tuple[str, Any]:
    """Return the part of a model that turns tokens into hidden states, with its path: neither head nor vision tower."""
    find = getattr(model, "get_decoder", None)
    found = find() if find is not None else model.base_model
    if found is model:
        found = model.base_model
    return next(path for path, module in model.named_modules() if module is found), found


def adaptable(model: Any, *, with_head: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yield the paths and modules of the layers that may get adapters.

    Args:
        model: a causal language model.
        with_head: whether the head is one of them. A head that shares its weight with the embeddings never is.
    """
    start, inner = decoder(model)
    for path, module in inner.named_modules():
        if path:
            yield f"{start}.{path}", module
    path, head = _head(model)
    if with_head and head.weight is not model.get_input_embeddings().weight:
        yield path, head


def head_path(model: Any) -> str:
    """Return the path of the layer that computes logits."""
    return _head(model)[0]


def _head(model: Any) -> tuple[str, Any]:
    head = model.get_output_embeddings()
    return next(path for path, module in model.named_modules() if module is head), head


def expert_parameters(model: Any) -> int:
    """Return the number of parameters in experts, which are stored as one tensor for all experts of a layer.

    Adapters are for linear layers, so experts get none.
    """
    parameters = decoder(model)[1].named_parameters()
    return sum(tensor.numel() for name, tensor in parameters if tensor.ndim == 3 and ".experts." in name)


def require_head_of_its_own(model: Any, patterns: Sequence[LayerPattern]) -> None:
    """Check that no pattern names a head that shares its weight with the embeddings.

    Raises:
        CrucibleError: one does.
    """
    path, head = _head(model)
    asked = next((pattern.name for pattern in patterns if pattern.matches(path)), None)
    if asked and head.weight is model.get_input_embeddings().weight:
        raise CrucibleError(
            f"layer_patterns has {asked!r}, which names {path}, but this model's {path} shares its weight with the "
            "embeddings (tie_word_embeddings). An adapter merged into it would change the embeddings too, and the "
            f"merged model would answer differently. Leave {path} out of layer_patterns."
        )


def require_trainable(folder: LanguageFolder, model: Any) -> None:
    """Check that a model has layers that can have adapters, and that it reads from left to right.

    Raises:
        CrucibleError: it has not, or it does not.
    """
    from transformers.pytorch_utils import Conv1D

    if model.get_output_embeddings() is None:
        raise CrucibleError(
            f"{folder.path} contains a {type(model).__name__}, which has no layer that predicts words, so it cannot be "
            "trained to write. Choose a model whose class ends in ForCausalLM."
        )
    if any(isinstance(module, Conv1D) for _, module in adaptable(model, with_head=False)):
        raise CrucibleError(
            f"{folder.path} contains a {type(model).__name__}, whose layers (Conv1D) store their weights the other way "
            "round than all newer models, so adapters for them would not load elsewhere. Choose a newer model of this "
            "size, such as HuggingFaceTB/SmolLM2-135M or Qwen/Qwen3-0.6B."
        )
    if getattr(model.config.get_text_config(), "use_bidirectional_attention", None) in (True, "all"):
        raise CrucibleError(
            f"{folder.path} contains a {type(model).__name__} that reads in both directions, as models for embeddings "
            "do, so it cannot write text. Choose the model for chats of the same family."
        )


def longest(folder: LanguageFolder, asked: int | None, usual: int) -> int:
    """Return the most tokens of an example.

    Raises:
        CrucibleError: the user asks for more than the model can read.
    """
    limit = folder.longest
    if asked is not None and limit is not None and asked > limit:
        raise CrucibleError(
            f"max_seq_length is {asked:,}, but {folder.name} reads {counted(limit, 'token')} at most "
            "(max_position_embeddings in its config.json), and what it writes after longer texts is of no use. Set "
            f"max_seq_length to {limit} or less."
        )
    return asked or min(usual, limit or usual)


def require_own_logits(folder: LanguageFolder, model: Any, logits: Callable[[Tensor], Tensor]) -> None:
    """Check on a few tokens that a function computes the same logits as the model, also with padding at the end.

    This finds models that do more after their last layer than is known here, or that let tokens see what comes later.

    Args:
        folder: the model's folder.
        model: the model.
        logits: a function from token ids (rows, length) to logits (rows, length, vocabulary).

    Raises:
        CrucibleError: the logits differ.
    """
    tokens = torch.arange(1, CHECKED_TOKENS + 1, device=model.get_input_embeddings().weight.device)
    tokens = (tokens % model.get_input_embeddings().weight.shape[0]).unsqueeze(0)
    own = model(input_ids=tokens, use_cache=False).logits.float()
    ours = logits(torch.cat([tokens, torch.zeros_like(tokens)], 1))[:, :CHECKED_TOKENS].to(own.device)
    if not own.isfinite().all():
        raise CrucibleError(
            f"The model in {folder.path} computes NaN or infinite values in this precision, so it cannot be trained. "
            "Set mixed_precision to bf16, or to fp32 where the graphics card does not have it."
        )
    difference = (own - ours).abs().max() / own.abs().max().clamp_min(1e-6)
    if difference > TOLERANCE:
        raise CrucibleError(
            f"The model in {folder.path} ({type(model).__name__}) computes its predictions in a way that is not known "
            f"here: they differ by {difference:.0%} from those that would be trained, so the result would be wrong. "
            "Choose another model, and please report this with the name of this one."
        )
