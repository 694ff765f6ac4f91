"""Updates: how a parameter's bytes are stored. One file per update; base.py is the interface."""
