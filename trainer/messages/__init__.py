"""Helpers for the wording of messages to the user."""
