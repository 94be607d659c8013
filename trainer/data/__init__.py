"""Datasets: finding images, pairing them with captions, checking them, and loading their pixels."""
