"""genexp: a command-line experiment runner for the classic deep generative models."""

from genexp.threads import spin_briefly

__version__ = "0.1.0"

spin_briefly()  # before torch is imported, in every process that computes
