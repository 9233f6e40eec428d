"""scikit-learn's handwritten digits: 1,797 real images of 8×8, installed with the library."""

from pathlib import Path

import torch

from genexp.data import DataSet


def digits(data_dir: Path) -> DataSet:
    """1,197 training, 300 validation, 300 test images, values 0 to 16; `data_dir` is not used.

    scikit-learn keeps them in the order of their writers, so the splits are drawn by one fixed permutation.
    Source: Alpaydin and Kaynak 1998, UCI test set.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    images = torch.as_tensor(bunch.images).to(torch.uint8).unsqueeze(1)
    labels = torch.as_tensor(bunch.target).to(torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, valid, test = order[:1197], order[1197:1497], order[1497:]
    return DataSet(
        images[train],
        images[valid],
        images[test],
        labels={"train": labels[train], "valid": labels[valid], "test": labels[test]},
        white=16,
    )
