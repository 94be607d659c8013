"""Configs of other programs that train LoRAs, translated into our settings."""
