"""scikit-learn's handwritten digits: 1,797 real images of 8×8, installed with the library."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from genexp.data import DataSet, split_by_rows
from genexp.ranges import AsBefore, Binarization


def digits(data_dir: Path, *, binarize: Annotated[Binarization, AsBefore("none")] = "none") -> DataSet:
    """Return 1,197 training, 300 validation and 300 test images, values 0 to 16; `data_dir` is not used.

    scikit-learn stores them in the order of their writers, so one fixed permutation draws the splits.
    Source: Alpaydin and Kaynak 1998, UCI test set.
    """
    # scikit-learn's own reader takes a second to import.
    (package,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
    file = Path(package, "datasets", "data", "digits.csv.gz")
    rows_of_file = torch.from_numpy(np.loadtxt(file, dtype=np.uint8, delimiter=","))
    images, labels = rows_of_file[:, :-1].reshape(-1, 1, 8, 8), rows_of_file[:, -1].to(torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    rows = {"train": order[:1197], "valid": order[1197:1497], "test": order[1497:]}
    return split_by_rows(images, labels, rows, white=16).binarized(binarize)
