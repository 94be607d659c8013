"""`python -m trainer doctor`: examines the computer that a training is to run on.

Imports nothing but the standard library, since it is wanted most where packages are missing or broken. What packages
know of the machine they are asked in a process of its own (`probe.py`).
"""
