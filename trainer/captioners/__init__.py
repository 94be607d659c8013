"""Writes captions for images: captioning models behind one interface, and what is done with their texts."""
