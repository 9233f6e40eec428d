"""The charts of a search, which Optuna draws: its history, what mattered, and the settings of all trials."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genexp.report.page import svg

LEAST = 3  # trials that ended; fewer show nothing


def study_charts(file: Path) -> list[tuple[str, str]]:
    """Return the charts of the study in a SQLite file, each with a text in its place; none of fewer trials than LEAST.

    The importance of settings is by functional analysis of variance (Hutter et al. 2014), as Optuna computes it.
    """
    import optuna
    from matplotlib import pyplot, rc_context
    from optuna.visualization import matplotlib as drawn

    charts = []
    with warnings.catch_warnings(), rc_context():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.load_study(study_name=file.parent.name, storage=f"sqlite:///{file}")
        if len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])) < LEAST:
            return []
        settings = {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
        draw: dict[str, Callable[[Any], Any]] = {"history": drawn.plot_optimization_history}
        if len(settings) > 1:
            draw |= {"importance of settings": drawn.plot_param_importances}
            draw |= {"settings of all trials": drawn.plot_parallel_coordinate}
        for name, plot in draw.items():
            figure: Any = plot(study).figure
            figure.set_size_inches(9, 4)
            figure.patch.set_alpha(0)
            charts.append((name, svg(figure, cropped=True)))
            pyplot.close(figure)
    return charts
