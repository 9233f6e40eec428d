"""Starting from the weights of another run, on other data or under other settings."""

from pathlib import Path

import torch
from torch import Tensor

from genexp.config.schema import Start
from genexp.errors import UsageError
from genexp.models import Model
from genexp.rundirs.directory import Run
from genexp.rundirs.start import start_of
from genexp.storage import weights
from genexp.storage.checkpoint import load

LISTED = 10  # differences that a message names


def weights_of(start: Start) -> dict[str, Tensor]:
    """Return the weights to start from, by name, on the CPU; the averaged ones of a run that averages.

    Raises UsageError if the run has other ones by now, or is gone; GenexpError if they cannot be read.
    """
    run = Run(Path(start.run))
    if run.is_export or run.config_file.exists():
        file = run.weights_file if run.is_export else run.checkpoints / f"step-{start.step or 0:09d}.pt"
        if file.exists() and start_of(run, start.step) == start:
            if run.is_export:
                return weights.read(file)[0]
            state = load(file)
            return dict(state["model"] | state.get("average", {}))
    at = "" if start.step is None else f" after step {start.step:,}"
    raise UsageError(
        f"weights=true: {start.run} does not have the weights{at} any more that this run starts from\n"
        "from=RUN weights=true with a run that is there starts another run, from the weights that it has now"
    )


def take_over(model: Model, tensors: dict[str, Tensor], start: Start) -> None:
    """Set the model's parameters to `tensors`, and its buffers where they have the same shape there.

    Raises UsageError that names the parameters of another shape, and those that only one of the two has.
    """
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    ours = model.state_dict()
    buffers = ours.keys() - names
    lines = []
    for name in [*ours, *(name for name in tensors if name not in ours)]:
        there, here = (_shape(side.get(name)) for side in (tensors, ours))
        if there != here and name not in buffers:
            lines.append(f"  {name}: {there} there, {here} here")
    if lines:
        more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        shown = "\n".join(lines[:LISTED])
        raise UsageError(
            f"weights=true: the weights of {start.run} are not of this model's shapes\n{shown}{more}\n"
            "Leave the settings that make the shapes as they are there, or leave out weights=true"
        )
    fitting = {name: tensor for name, tensor in tensors.items() if name in ours and tensor.shape == ours[name].shape}
    with torch.no_grad():
        model.load_state_dict(ours | fitting)


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else "×".join(map(str, tensor.shape)) or "a number"
