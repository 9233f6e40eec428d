"""Errors for the person at the terminal: what was wrong, where, what to do. The exit codes are a contract."""


class GenexpError(Exception):
    """The run failed: data missing, disk full, diverged (exit code 1)."""

    exit_code = 1


class UsageError(GenexpError):
    """The command or its configuration was wrong (exit code 2)."""

    exit_code = 2


class HeldError(GenexpError):
    """Another process is at the run."""


class DataError(GenexpError):
    """A data set is missing or damaged."""


class DivergedError(GenexpError):
    """A loss or gradient became NaN or infinite."""
