"""Checkpoint formats: where each tensor's bytes lie in a file. One file per format; base.py is the interface."""
