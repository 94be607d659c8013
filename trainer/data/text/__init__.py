"""Datasets of texts: conversations and plain texts that language models are trained on."""
