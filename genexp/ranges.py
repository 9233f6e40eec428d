"""The ranges of settings, as annotations of the keyword arguments that configs set.

config.components reads the annotations from the source of a config's `_target_`, without importing it, and checks the
values. A wrong value is thus refused before torch is loaded.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError


def whole(value: Any) -> Any:
    """Return a whole number that was written as a fraction, as 1e3 is for YAML, as an int; other values as they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(whole)]  # 1000, 1e3
PositiveInt = Annotated[Int, Field(ge=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**63)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DecayFactor = Annotated[float, Field(ge=1, allow_inf_nan=False)]  # divides a value at every step
Fraction = Annotated[float, Field(ge=0, lt=1)]  # [0, 1): a momentum, or a share that is not the whole
Share = Annotated[float, Field(ge=0, le=1)]  # [0, 1]: a probability
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=0)]
Widths = Annotated[list[PositiveInt], Field(min_length=1)]  # units of each hidden layer
TwoOrThreeWidths = Annotated[list[PositiveInt], Field(min_length=2, max_length=3)]
HiddenWidths = list[PositiveInt]  # the same, for models that may have no hidden layer
Units = Literal["sigmoid", "tanh", "relu", "linear"]
UnitsOfLayers = Annotated[list[Units], Field(min_length=1)]
Interval = Annotated[list[NonNegativeFloat], Field(min_length=2, max_length=2)]
Bandwidths = Annotated[list[PositiveFloat], Field(min_length=1)]
Numbers = Annotated[list[Number], Field(min_length=1)]
PositiveFloats = Annotated[list[PositiveFloat], Field(min_length=1)]
Shares = Annotated[list[Share], Field(min_length=1)]
NonNegativeFloats = Annotated[list[NonNegativeFloat], Field(min_length=1)]
Bins = Annotated[Int, Field(ge=2)]
AtLeastTwo = Annotated[Int, Field(ge=2)]  # of what has a standard error
Split = Literal["train", "valid", "test"]
Binarization = Literal["none", "threshold", "fresh", "fixed"]  # of grey images, see data.DataSet.binarized
_EpochsAndFactor = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
RateStages = Annotated[list[_EpochsAndFactor], Field(min_length=1)]  # of a learning rate, see optimizers.learning_rate


def _sides(value: Any) -> int | list[int]:
    sides = [whole(side) for side in (value if isinstance(value, list) and len(value) == 2 else [value, value])]
    if not all(type(side) is int and side >= 1 for side in sides):
        raise PydanticCustomError("sides", "should be a whole number above 0, or two of them, [height,width]")
    return sides[0] if sides[0] == sides[1] else sides


_HeightAndWidth = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
Sides = Annotated[PositiveInt | _HeightAndWidth, PlainValidator(_sides)]  # pixels of a square's side, or of both sides


@dataclass(frozen=True)
class AsBefore:
    """Marks a setting that a component got after runs of it were kept, as in `Annotated[bool, AsBefore(False)]`.

    With this value a run is the same as before there was the setting. The value is then no part of a run's identity,
    and it is filled in where a kept configuration lacks the setting.
    """

    value: Any
    only_with: str | None = None  # another setting; while that is null, this one has no effect

    def is_as_before(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Return True if the setting `name` of these has its value as before, or no effect."""
        unused = self.only_with is not None and settings.get(self.only_with) is None
        return unused or bool(settings[name] == self.value)


@dataclass(frozen=True)
class Beside:
    """Marks a setting that makes no other experiment, as in `Annotated[bool, Beside(False)]`.

    A run's identity has this value in its place. That the images are the same is known by their digest.
    """

    value: Any

    def in_identity(self, name: str, settings: Mapping[str, Any], as_typed: bool) -> Any:
        """Return the value in a run's identity for the setting `name` of these; `as_typed` as in earlier versions."""
        return settings[name] if as_typed else self.value


@dataclass(frozen=True)
class DataPath:
    """Marks the place of a data set's files, as in `Annotated[str | None, DataPath("known_as")]`.

    A run's identity has what the setting `known_as` says, or else the path, less "./", "a/../" and a "/" at the end.
    """

    known_as: str

    def in_identity(self, name: str, settings: Mapping[str, Any], as_typed: bool) -> Any:
        """Return the value in a run's identity for the setting `name` of these; `as_typed` as in earlier versions."""
        known_as = settings.get(self.known_as)
        path = settings[name] if known_as is None else known_as
        return path if path is None or as_typed else os.path.normpath(path)


@dataclass(frozen=True)
class AtMost:
    """Marks a number that another setting limits, as in `Annotated[PositiveInt, AtMost("n_samples")]`.

    `times` the number, and `more`, are at most the other setting.
    """

    other: str
    times: int = 1
    more: int = 0

    def mistake(self, name: str, settings: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the setting `name` of these; None if nothing is."""
        most = (settings[self.other] - self.more) // self.times
        if settings[name] <= most:
            return None
        given, limit = f"{name}={settings[name]}", f"{self.other}={settings[self.other]}"
        if most < 1:
            return f"{given} needs more than {limit}"
        return f"{given}: should be at most {most:,}, because of {limit}"


@dataclass(frozen=True)
class FileFor:
    """Marks a file that is read if another setting has a value, as in `Annotated[str | None, FileFor("kind", "b")]`.

    It is given with that value only. `such_as` says which file it may be.
    """

    other: str
    value: str
    such_as: str

    def mistake(self, name: str, settings: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the setting `name` of these; None if nothing is."""
        is_asked, is_given = settings[self.other] == self.value, settings[name] is not None
        if is_asked and not is_given:
            return f"{self.other}={self.value} needs {name}=FILE, such as {self.such_as}"
        if is_given and not is_asked:
            return f"{name}={settings[name]} is for {self.other}={self.value}; {self.other} is {settings[self.other]}"
        return None

    def unreadable(self, name: str, settings: Mapping[str, Any]) -> str | None:
        """Return why the file of the setting `name` cannot be read; None if it can, or none is given."""
        try:
            if settings[name] is not None:
                with open(os.path.expanduser(settings[name]), "rb"):  # noqa: PTH111, PTH123
                    pass
        except OSError as error:
            return f"{name}={settings[name]} cannot be read: {error.strerror}"
        return None


Neighbours = Annotated[PositiveInt, AtMost("n_samples", more=1)]  # others beside each sample
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth of the releases of torch-fidelity"
InceptionWeights = Annotated[str | None, FileFor("features", "inception", _INCEPTION)]

MARKS = {"AsBefore": AsBefore, "AtMost": AtMost, "Beside": Beside, "DataPath": DataPath, "FileFor": FileFor}
OF_LIBRARIES = {"Annotated", "Any", "BeforeValidator", "Field", "Literal", "Mapping", "PlainValidator"}
NO_TYPES = {"MARKS", "OF_LIBRARIES", "PydanticCustomError", *OF_LIBRARIES, *MARKS}
NAMES = {name: value for name, value in globals().items() if name[0].isupper() and name not in (*NO_TYPES, "NO_TYPES")}
