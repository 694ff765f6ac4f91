"""Merges: how the values of several sides become one. One file per family; base.py is the interface."""
