"""genexp: a command-line experiment runner for the classic deep generative models."""

__version__ = "0.1.0"
