"""What the nodes tell the browser."""

LORA_SAVED = "crucible.lora_saved"
"""Event for the browser, which then refreshes its lists of LoRAs."""


def tell_lora_saved(lora_name):
    from server import PromptServer

    server = PromptServer.instance
    server.send_sync(LORA_SAVED, {"lora_name": lora_name}, server.client_id)
