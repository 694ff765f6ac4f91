"""Git-Theta: version control for machine-learning models, as a Git extension."""

__all__ = ["__version__"]

__version__ = "0.1.0"
