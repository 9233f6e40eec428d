"""The Toronto Face Database, 48×48 grey, read from the file that its authors give on request."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from genexp.data import DataSet, split_by_rows
from genexp.errors import DataError, UsageError
from genexp.ranges import AsBefore, Beside, Binarization
from genexp.text import first_line

UNLABELLED, TRAIN, VALID, TEST = range(4)  # codes in `folds`, one for each image and fold


def tfd(
    data_dir: Path,
    *,
    path: Annotated[str | None, Beside(None)],
    fold: Literal[1, 2, 3, 4, 5],
    flip: Annotated[bool, AsBefore(False)] = False,
    binarize: Annotated[Binarization, AsBefore("none")] = "none",
) -> DataSet:
    """Return the unlabelled faces for training, the validation and test faces of `fold`, and all five folds; 1×48×48.

    The original GAN was trained on the same images: some 100,000 without a label, and none of the fold's labelled
    training images. Labels are expressions, from 0; unlabelled images have −1. The file is `path`, or
    data_dir/TFD/TFD_48x48.mat. Raises UsageError if there is no file `path`, and DataError if the other one is missing,
    or if the file is damaged or holds other data.
    Source: Susskind, Anderson and Hinton 2010.
    """
    file = Path(path).expanduser() if path is not None else data_dir / "TFD" / "TFD_48x48.mat"
    if path is not None and not file.is_file():
        raise UsageError(f"dataset.path={path}: {file.absolute()} is no file\nSet it to the file TFD_48x48.mat")
    faces, expressions, codes = _load(file)
    rows = {}
    for split, code in (("train", UNLABELLED), ("valid", VALID), ("test", TEST)):
        rows[split] = codes[:, fold - 1] == code
        if not rows[split].any():
            raise _damage_error(file, f"no image has the code {code} in fold {fold} ('folds'), so {split} is empty")
    labelled = (codes != UNLABELLED).any(1)
    labels = torch.where(labelled, expressions - expressions[labelled].min(), -1)
    folds = tuple((faces[fold_codes == VALID], faces[fold_codes == TEST]) for fold_codes in codes.T)
    return replace(split_by_rows(faces, labels, rows), folds=folds, flip=flip).binarized(binarize)


def _load(file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Read and check a file's `images` (N, 1, 48, 48) uint8, `labs_ex` (N,) int64 and `folds` (N, 5) int64."""
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
        raise _damage_error(file, f"it cannot be read as a MATLAB file ({first_line(error)})") from error
    for name in ("images", "labs_ex", "folds"):
        if name not in content:
            raise _damage_error(file, f"it has no variable '{name}'")
    images, expressions, codes = content["images"], np.ravel(content["labs_ex"]), content["folds"]
    n = len(images)
    for name, array, shape in (
        ("images", images, (n or "N", 48, 48)),
        ("labs_ex", expressions, (n,)),
        ("folds", codes, (n, 5)),
    ):
        if array.shape != shape:
            actual, expected = ("×".join(map(str, dimensions)) for dimensions in (array.shape, shape))
            raise _damage_error(file, f"'{name}' is {actual} and should be {expected}")
        if array.dtype.kind not in "iuf":
            raise _damage_error(file, f"'{name}' holds no numbers")
    if images.dtype != np.uint8:
        raise _damage_error(file, f"'images' is {images.dtype} and should be uint8, 0 to 255")
    if not np.isin(codes, (UNLABELLED, TRAIN, VALID, TEST)).all():
        raise _damage_error(file, "'folds' holds other codes than 0, 1, 2 and 3")
    faces = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)
    return faces, torch.from_numpy(expressions.astype(np.int64)), torch.from_numpy(codes.astype(np.int64))


def _damage_error(file: Path, difference: str) -> DataError:
    return DataError(
        f"TFD: {file} is damaged, or another file: {difference}\n"
        "Put a good copy of TFD_48x48.mat in its place, or set dataset.path=FILE"
    )
