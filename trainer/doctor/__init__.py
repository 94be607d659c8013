"""The command `python -m trainer doctor`, which examines the computer that is to train.

Imports only the standard library, because the command is needed most where packages are missing or broken. Packages
that know something about the machine are loaded in a separate process (`probe.py`).
"""
