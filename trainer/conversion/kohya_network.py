"""Kohya's network modules and their arguments: LoRA, LyCORIS and the other kinds of adapters."""

from __future__ import annotations

from typing import Any

from .conversion import Conversion, as_number, is_off, is_on, plain_number

ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
"""Our algorithm for each of LyCORIS'."""

NOT_LORA = {"oft": "OFT", "boft": "BOFT", "ia3": "(IA)³", "dylora": "DyLoRA", "glora": "GLoRA", "full": "full matrices"}
"""Adapters that are not offered, by the name of the module or algorithm."""

LAYERS = {"full": "linear_and_convolution", "attn-mlp": "attention_and_feed_forward", "attn-only": "attention"}
"""Our layers for each of LyCORIS' presets."""

_DROPOUT = "lora_dropout drops inputs of the LoRA; the ranks and modules of a LoRA are not dropped"


def set_network(conversion: Conversion, values: dict[str, Any], *, is_flow: bool) -> None:
    """Translate the kind, the rank, the alpha and the layers of the adapter; the arguments are taken out."""
    from .kohya import pairs

    module = str(values.pop("network_module", "") or "")
    arguments = pairs(values.pop("network_args", None)) | pairs(values.pop("network_args_custom", None))
    for key in ("conv_dim", "conv_alpha", "lycoris_algo", "lokr_factor", "dropout", "train_norm"):
        if key in values and not is_off(values[key]):  # lora-scripts keeps them beside the other arguments
            arguments.setdefault({"lycoris_algo": "algo", "lokr_factor": "factor"}.get(key, key), str(values[key]))
        values.pop(key, None)
    if not module:
        conversion.guess(
            "there is no network_module, so it is taken as an ordinary LoRA, which is all that is trained here"
        )
    is_lycoris = module.startswith("lycoris")
    algorithm = arguments.pop("algo", "lora" if is_lycoris else module.rsplit(".", 1)[-1] or "lora").lower()
    _set_algorithm(conversion, "network_args, algo" if is_lycoris else "network_module", algorithm, arguments)
    rank, alpha = as_number(values.pop("network_dim", None)), as_number(values.pop("network_alpha", None))
    if rank:
        conversion.set("lora_rank", plain_number(rank), "network_dim")
    else:
        conversion.default("lora_rank", 4)
    if alpha:
        conversion.set("lora_alpha", plain_number(alpha), "network_alpha")
    elif alpha == 0:
        conversion.set("lora_alpha", conversion.settings["lora_rank"], "network_alpha = 0 means the rank there")
    else:
        conversion.default("lora_alpha", 1)
    dropout = values.pop("network_dropout", arguments.pop("dropout", None))
    arguments.pop("dropout", None)
    if not is_off(dropout) and conversion.settings["algorithm"] in ("loha", "lokr"):
        conversion.lose("network_dropout", dropout, f"{conversion.settings['algorithm']} has no dropout here")
    elif not is_off(dropout):
        conversion.set("lora_dropout", as_number(dropout), "network_dropout")
        conversion.differ("network_dropout", dropout, "dropped from the inputs of the LoRA, there from its middle")
    else:
        conversion.set("lora_dropout", 0, "as there")
    _set_layers(conversion, arguments, is_lycoris=is_lycoris, is_flow=is_flow)
    for key, value in arguments.items():
        if key in ("rank_dropout", "module_dropout", "rank_dropout_scale"):
            conversion.lose(f"network_args, {key}", value, _DROPOUT)
        elif key == "loraplus_lr_ratio" and conversion.settings["algorithm"] not in ("loha", "lokr"):
            conversion.set("loraplus_ratio", as_number(value), "network_args, loraplus_lr_ratio")
        elif "lr_weight" in key or "block_dims" in key or "block_alphas" in key or key == "block_lr_zero_threshold":
            conversion.lose(f"network_args, {key}", value, "layer_patterns gives layers ranks of their own, by name")
        else:
            conversion.lose(f"network_args, {key}", value)


def _set_algorithm(conversion: Conversion, key: str, algorithm: str, arguments: dict[str, str]) -> None:
    word = algorithm.removeprefix("lora_") if algorithm.startswith("lora_") else algorithm
    known = algorithm.startswith("lora") or algorithm in ALGORITHMS
    ours = ALGORITHMS.get(algorithm, "lora")
    if algorithm in ("loha", "lokr"):
        ours = algorithm
    if not known:
        conversion.differ(
            key, NOT_LORA.get(word, algorithm), "not offered here, so an ordinary LoRA is trained instead"
        )
    if word == "fa" and known:
        conversion.differ(key, algorithm, "LoRA-FA trains one of the two matrices, an ordinary LoRA both")
    decomposed = arguments.pop("dora_wd", arguments.pop("weight_decompose", None))
    if is_on(decomposed):
        if ours == "lora":
            ours = "dora"
        else:
            conversion.lose("network_args, dora_wd", True, f"{ours} has no DoRA here")
    conversion.set("algorithm", ours, key)
    if ours == "lokr":
        factor = arguments.pop("factor", None)
        if not is_off(factor) and as_number(factor) != -1:
            conversion.lose("network_args, factor", factor, "LoKr's matrices are split as evenly as they can be")
    for name in (
        "use_tucker",
        "use_cp",
        "decompose_both",
        "use_scalar",
        "bypass_mode",
        "rescaled",
        "constrain",
        "factor",
    ):
        value = arguments.pop(name, None)
        if value is not None and as_number(value) != -1:
            conversion.lose(f"network_args, {name}", value)


def _set_layers(conversion: Conversion, arguments: dict[str, str], *, is_lycoris: bool, is_flow: bool) -> None:
    """Translate which layers get an adapter.

    networks.lora trains the linear layers and 1 x 1 convolutions of the transformer blocks, and with conv_dim the other
    convolutions too; LyCORIS trains what its preset says, all layers if it says nothing.
    """
    rank, convolutions = conversion.settings["lora_rank"], as_number(arguments.pop("conv_dim", None))
    conv_alpha, preset = as_number(arguments.pop("conv_alpha", None)), arguments.pop("preset", None)
    if is_lycoris:
        layers = LAYERS.get(str(preset or "full"))
        if layers is None:
            conversion.differ("network_args, preset", preset, "attention and feed-forward layers are the nearest here")
            layers = "attention_and_feed_forward"
        reason = "the preset of LyCORIS" + ("" if preset else ", full unless it is set")
    elif convolutions and not is_flow:
        layers, reason = "linear_and_convolution", "network_args, conv_dim"
    else:
        layers, reason = "attention_and_feed_forward", "as there: the layers of the transformer blocks"
    conversion.set("target_modules", layers, reason)
    alpha = conversion.settings["lora_alpha"]
    if layers == "linear_and_convolution" and ((convolutions or rank) != rank or (conv_alpha or alpha) != alpha):
        theirs = f"{convolutions or rank:g}, conv_alpha = {conv_alpha or alpha:g}"
        conversion.differ(
            "network_args, conv_dim", theirs, f"convolutions have rank {rank} and alpha {alpha} like the rest"
        )
