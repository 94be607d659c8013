"""Captioning of images: captioning models behind one interface, and the processing of their texts."""
