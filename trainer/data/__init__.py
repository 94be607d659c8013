"""Reads a dataset: finds the images, pairs them with captions, checks them, and gives their pixels."""
