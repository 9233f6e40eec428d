"""From a command line to a checked configuration, with every mistake answered in plain words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from genexp.config.command_line import CommandLine
from genexp.config.compose import compose
from genexp.config.mistakes import in_plain_words
from genexp.config.schema import checked
from genexp.errors import GenexpError, UsageError


def configuration(line: CommandLine) -> Any:
    """Return the configuration of a command line, of its command's class in `schema.SCHEMAS`. Raises UsageError."""
    with plain_mistakes(line):
        composed = compose(line)
    return checked(line.command, composed)


@contextmanager
def plain_mistakes(line: CommandLine) -> Iterator[None]:
    """Turn the errors of Hydra within it into GenexpErrors that name the mistake in the command line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:  # some of the first are OSErrors
        raise in_plain_words(error, line) from error
    except (GenexpError, BrokenPipeError, MemoryError):
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a choice is sought as a file
            raise UsageError(f"there is no setting of this name: {Path(error.filename).name[:60]}...") from error
        raise GenexpError(f"{error.filename or 'the outputs folder'} cannot be written: {error.strerror}") from error
    except Exception as error:  # the parsers of Hydra and YAML raise others, too
        raise in_plain_words(error, line) from error
