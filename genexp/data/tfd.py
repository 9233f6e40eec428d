"""The Toronto Face Database, 48×48 grey: read from the file that its authors give on request."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genexp.data import DataSet
from genexp.errors import DataError

UNLABELLED, TRAIN, VALID, TEST = range(4)  # what `folds` holds for an image, in each of the five folds


def tfd(data_dir: Path, *, path: str | None, fold: Literal[1, 2, 3, 4, 5]) -> DataSet:
    """The unlabelled faces to train on, and one fold's validation and test faces, each 1×48×48; and all five folds.

    So was the original GAN trained: some 100,000 unlabelled images, and the labelled training images of the fold not
    used. Labels are expressions, from 0; the unlabelled have −1. Read from `path`, or data_dir/TFD/TFD_48x48.mat.

    Raises DataError when the file is missing, is damaged, or does not hold what it should.
    Source: Susskind, Anderson and Hinton 2010.
    """
    file = Path(path).expanduser() if path is not None else data_dir / "TFD" / "TFD_48x48.mat"
    images, expressions, codes = _load(file)
    code = codes[:, fold - 1]
    labelled = (codes != UNLABELLED).any(1)
    labels = np.where(labelled, expressions - expressions[labelled].min(initial=expressions.max()), -1)
    rows = {"train": code == UNLABELLED, "valid": code == VALID, "test": code == TEST}
    for split, wanted in (("train", UNLABELLED), ("valid", VALID), ("test", TEST)):
        if not rows[split].any():
            raise _damaged(file, f"no image has the code {wanted} in fold {fold} ('folds'), so {split} is empty")

    def faces(chosen: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(images[chosen])).unsqueeze(1)

    return DataSet(
        faces(rows["train"]),
        faces(rows["valid"]),
        faces(rows["test"]),
        labels={split: torch.from_numpy(labels[chosen]) for split, chosen in rows.items()},
        folds=tuple((faces(code == VALID), faces(code == TEST)) for code in codes.T),
    )


def _load(file: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """`images` (N, 48, 48) uint8, `labs_ex` (N,) int64 and `folds` (N, 5), checked."""
    if not file.is_file():
        raise DataError(
            f"TFD: {file} is missing; the Toronto Face Database is given on request and never downloaded\n"
            "Ask its authors (J. Susskind, University of Toronto) for TFD_48x48.mat, "
            "and put it there or set dataset.path=FILE"
        )
    from scipy.io import loadmat  # takes a second to import

    try:
        content = loadmat(str(file), appendmat=False, variable_names=("images", "labs_ex", "folds"))
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _damaged(file, f"it cannot be read as a MATLAB file ({reason})") from error
    for name in ("images", "labs_ex", "folds"):
        if name not in content:
            raise _damaged(file, f"it has no variable '{name}'")
    images, expressions, codes = content["images"], np.ravel(content["labs_ex"]), content["folds"]
    n = len(images)
    for name, array, shape in (
        ("images", images, (n, 48, 48)),
        ("labs_ex", expressions, (n,)),
        ("folds", codes, (n, 5)),
    ):
        if array.shape != shape or not n:
            raise _damaged(file, f"'{name}' is {_times(array.shape)} and should be {_times(shape if n else ('N', 48))}")
        if array.dtype.kind not in "iuf":
            raise _damaged(file, f"'{name}' holds no numbers")
    if images.dtype != np.uint8:
        raise _damaged(file, f"'images' is {images.dtype} and should be uint8, 0 to 255")
    if not np.isin(codes, (UNLABELLED, TRAIN, VALID, TEST)).all():
        raise _damaged(file, "'folds' holds other codes than 0, 1, 2 and 3")
    return images, expressions.astype(np.int64), codes


def _times(shape: tuple[Any, ...]) -> str:
    return "×".join(map(str, shape))


def _damaged(file: Path, mistake: str) -> DataError:
    return DataError(
        f"TFD: {file} is damaged, or another file: {mistake}\n"
        "Put a good copy of TFD_48x48.mat in its place, or set dataset.path=FILE"
    )
