"""The weights that a run may start from: those of another run, as `from=RUN weights=true` takes them."""

import hashlib
import json

from genexp.config.schema import Start
from genexp.rundirs.directory import Run


def start_of(run: Run, step: int | None = None) -> Start | None:
    """Return the weights of a run after `step` steps, those of its newest checkpoint without it; None if it has none.

    The digest is that of the run's experiment and the step, from which the weights follow; of an export, that of its
    file. So the same weights elsewhere are the same start, and other weights in the same place are another one.
    """
    place = str(run.path.absolute())
    if run.is_export:
        return Start(run=place, step=None, digest=hashlib.sha256(run.weights_file.read_bytes()).hexdigest()[:16])
    if step is None:
        files = sorted(run.checkpoints.glob("step-*.pt"))
        if not files:
            return None
        step = int(files[-1].stem.removeprefix("step-"))
    follows_from = json.dumps([run.config.identity(), step], sort_keys=True)
    return Start(run=place, step=step, digest=hashlib.sha256(follows_from.encode()).hexdigest()[:16])
