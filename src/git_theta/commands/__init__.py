"""The commands: one thin file per verb, each with a click command named `command`. They print; they do no work."""
