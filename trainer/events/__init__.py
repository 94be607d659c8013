"""What a run tells whoever started it."""
