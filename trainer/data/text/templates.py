"""Chat templates by name, for tokenizers that have none."""

from __future__ import annotations

from ...errors import CrucibleError

_MERGED_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
)

NAMED: dict[str, tuple[str, str]] = {
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "{{ '<|im_end|>' }}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
    ),
    "llama3": (
        "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
    ),
    "mistral": (
        _MERGED_SYSTEM + "{% for message in messages %}{% if message['role'] == 'user' %}"
        "[INST] {% if loop.first %}{{ system }}{% endif %}{{ message['content'] }} [/INST]"
        "{% else %} {{ message['content'] }}{{ '</s>' }}{% endif %}{% endfor %}",
        "</s>",
    ),
    "gemma": (
        _MERGED_SYSTEM + "{% for message in messages %}"
        "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
        "{% if loop.first %}{{ system }}{% endif %}{{ message['content'] | trim }}{{ '<end_of_turn>' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<end_of_turn>",
    ),
    "vicuna": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
        "{% elif message['role'] == 'user' %}USER: {{ message['content'] }}\n"
        "{% else %}ASSISTANT: {{ message['content'] }}{{ '</s>' }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        "</s>",
    ),
    "alpaca": (
        "{% if messages[0]['role'] != 'system' %}Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n{% endif %}"
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
        "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
        "{% else %}### Response:\n{{ message['content'] }}{{ '</s>' }}\n\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}",
        "</s>",
    ),
    "plain": (
        "{% for message in messages %}{{ message['content'] }}"
        "{{ '</s>' if message['role'] == 'assistant' else '' }}\n{% endfor %}",
        "</s>",
    ),
}  # fmt: skip
"""Jinja templates by name, and the stop token in each; the tokenizer's own takes its place where it has no such token.

They write no BOS: who renders adds it where the tokenizer does.
"""


def named_template(name: str, eos_token: str, has_token: bool) -> str:
    """Return a chat template by its name.

    Args:
        name: one of `NAMED`.
        eos_token: the tokenizer's token for the end of a text.
        has_token: whether the tokenizer has the stop token of the template; otherwise `eos_token` takes its place.

    Raises:
        CrucibleError: there is no template of this name.
    """
    if name not in NAMED:
        raise CrucibleError(
            f"chat_template is {name!r}, and there is no template of this name, so it is not known how conversations "
            f"are written. Set it to auto or one of {', '.join(NAMED)}."
        )
    template, stop = NAMED[name]
    return template if has_token else template.replace(f"'{stop}'", repr(eos_token))
