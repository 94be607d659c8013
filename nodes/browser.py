"""Messages from the nodes to the browser."""

LORA_SAVED = "crucible.lora_saved"
"""The event after which the browser refreshes its lists of LoRAs."""


def tell_lora_saved(lora_name):
    """Tell the browser that a LoRA was saved.

    Args:
        lora_name: the file name of the LoRA, relative to its folder.
    """
    from server import PromptServer

    server = PromptServer.instance
    server.send_sync(LORA_SAVED, {"lora_name": lora_name}, server.client_id)
