"""The yardsticks of a data set, computed once and kept in the cache folder."""

import hashlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from genexp.config.components import Component
from genexp.config.schema import Device
from genexp.errors import GenexpError
from genexp.score import Score
from genexp.storage.derived import derived
from genexp.storage.files import cache_folder, read_json, write_json


def yardsticks(
    dataset: Component, metric: Component, digest: str | None, data_dir: str, device: Device
) -> dict[str, Score]:
    """Return the Parzen score of each yardstick on a data set, by the yardstick's name.

    With a `digest`, on images of that digest. Raises GenexpError if the data set is missing, or its images have another
    digest.
    """
    key = hashlib.sha256(json.dumps([dataset, metric], sort_keys=True).encode()).hexdigest()[:8]
    file = cache_folder("yardsticks") / f"{dataset['name']}-{metric['name']}-{key}.json"

    def read(file: Path) -> dict[str, Any]:
        content = read_json(file)
        if not content or digest not in (None, content["digest"]):
            raise FileNotFoundError(file)
        return content

    def compute() -> dict[str, Any]:
        from genexp.device import select  # loads torch
        from genexp.papers.yardsticks import score_yardsticks
        from genexp.training import build

        data = build.data_set(dataset, data_dir).to(select(device.kind, device.threads))
        if digest not in (None, data.digest()):
            raise GenexpError(f"the runs were trained on other images than those of dataset={dataset['name']} now")
        print(f"computing yardsticks on {dataset['name']}, once, which may take minutes; kept in {file}", flush=True)
        scores = {name: score.to_json() for name, score in score_yardsticks(data, metric).items()}
        return {"digest": data.digest(), "scores": scores}

    with redirect_stdout(sys.stderr):  # a table may be going to a file
        content = derived(file, read=read, make=compute, write=write_json, what=f"yardsticks on {dataset['name']}")
    return {name: Score.from_json(score) for name, score in content["scores"].items()}
