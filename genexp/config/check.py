"""Checks of a command's configuration as Hydra composed it: against its schema, and each component against its source.

It does not import torch.
"""

import json
from typing import Any

import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genexp.config import components
from genexp.config.commands import SCHEMAS, EvaluateConfig, ReopenedConfig
from genexp.config.components import COLLECTIONS, GROUPS, Component, check_component, is_diagnosis, refuse_strangers
from genexp.config.mistyped import usage_error
from genexp.config.schema import Schema, TrainConfig
from genexp.config.suited import missing_file, refuse_unsuited
from genexp.errors import UsageError


def checked(command: str, composed: DictConfig) -> Any:
    """Return the configuration of a command that Hydra composed, checked, as its class in SCHEMAS.

    Raises UsageError that names each mistake and the remedy.
    """
    if "hydra" in composed:
        composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _unresolved(error, composed, SCHEMAS[command]) from error
    return checked_content(command, content)


def checked_content(command: str, content: Any, known: dict[str, Component] | None = None) -> Any:
    """Return the same of a composed configuration in plain values; `known` are components that were checked before."""
    schema = SCHEMAS[command]
    try:
        config = schema.model_validate(content)
    except pydantic.ValidationError as error:
        raise usage_error(error, "", list(schema.model_fields)) from error
    if isinstance(config, ReopenedConfig):
        refuse_strangers(config, config.trust)
    config = with_checked_components(config, known)
    if isinstance(config, TrainConfig | EvaluateConfig):
        refuse_unsuited(config.metrics, config.model)
    if isinstance(config, TrainConfig):
        _check_keep_best(config)
        _check_average(config)
        config = _with_start(config)
    if isinstance(config, TrainConfig | EvaluateConfig):
        _check_new_run(config)
    return config


def _check_keep_best(config: TrainConfig) -> None:
    """Raise UsageError if no checkpoint could be chosen by the score that `checkpoint.keep_best` names."""
    name = config.checkpoint.keep_best
    if name is None:
        return
    setting = f"checkpoint.keep_best={name}"
    if name not in config.metrics:
        raise UsageError(f"{setting}: the run is scored by {', '.join(config.metrics) or 'nothing'}")
    reason = why_not_to_choose(name, config.metrics[name])
    if reason is not None:
        raise UsageError(f"checkpoint.keep_best={reason}")
    if config.log.scores_every_epochs is None:
        raise UsageError(f"{setting} needs scores on the way: set log.scores_every_epochs=N")


def why_not_to_choose(name: str, metric: Component) -> str | None:
    """Return why settings and checkpoints are not chosen by a metric, and what to do; None if they may be.

    It has to say what is better, and to be taken on validation images; one from outside may do so as it likes.
    """
    if is_diagnosis(metric):
        return f"{name} describes the samples and does not say what is better; name a score of quality, such as parzen"
    is_own = metric["_target_"].startswith("genexp.")
    if not is_own or metric["name"] in ("parzen", "parzen_folds") or metric.get("split") == "valid":
        return None
    return f"{name} is not taken on validation images, so set metrics.{name}.split=valid"


def _check_new_run(config: TrainConfig | EvaluateConfig) -> None:
    """Raise UsageError for what a run that has begun goes on with, since an earlier version or another day allowed it.

    Training refuses a file that is missing before its first step, unless no score is to be taken.
    """
    mistake = missing_file(config.metrics)
    if isinstance(config, TrainConfig):
        mistake = mistake or low_learning_rate(config)
    if mistake is not None and (isinstance(config, EvaluateConfig) or config.begins()):
        raise mistake


def low_learning_rate(config: TrainConfig) -> UsageError | None:
    """Return the error for a learning rate below its own least value, which is taken in its place; None without one."""
    of_players = {f"optimizers.{player}": optimizer for player, optimizer in config.optimizers.items()}
    for key, optimizer in {"optimizer": config.optimizer, **of_players}.items():
        lr, least = optimizer.get("lr"), optimizer.get("lr_min")
        if isinstance(lr, float) and isinstance(least, float) and lr < least:
            return UsageError(
                f"{key}.lr={lr:g} is less than {key}.lr_min={least:g}, the least that the learning rate falls to\n"
                f"Set {key}.lr_min to at most {lr:g}"
            )
    return None


def _check_average(config: TrainConfig) -> None:
    if config.ema is not None and config.ema_power is not None:
        raise UsageError(f"ema={config.ema:g} and ema_power={config.ema_power:g} are two averages; set one of them")


def _with_start(config: TrainConfig) -> TrainConfig:
    """Return the configuration without a start unless its weights are asked for. Raises UsageError if there is none."""
    if config.weights and config.start is None:
        raise UsageError("weights=true starts from the weights of another run, which has a checkpoint: add from=RUN")
    return config if config.weights else config.model_copy(update={"start": None})


def _unresolved(error: OmegaConfBaseException, composed: DictConfig, schema: type[Schema]) -> UsageError:
    for group in GROUPS:
        if group in schema.model_fields and not isinstance(composed.get(group), DictConfig):
            return UsageError(f"{group} is missing: give it, as in {group}=NAME")
    reason = str(error).splitlines()[0].replace("KeyError raised while resolving interpolation: ", "")
    if "'model.name'" in reason:
        return UsageError("model.name is missing: each choice has a `name` and a `_target_`, its class")
    where = f"{error.full_key}: " if error.full_key else ""
    return UsageError(f"{where}the configuration cannot be resolved: {reason}")


def with_checked_components(config: Any, known: dict[str, Component] | None = None) -> Any:
    """Return the configuration with each component checked against its own source. Raises UsageError.

    A component that is `known` is not checked again; those that are checked are added to it.
    """
    memory = {} if known is None else known

    def check(key: str, component: Component) -> Component:
        content = f"{key} {json.dumps(component)}"
        if content not in memory:
            memory[content] = check_component(key, component)
        return memory[content]

    groups: dict[str, Any] = {key: check(key, each) for key, each in components.groups(config).items()}
    for key in COLLECTIONS:
        if hasattr(config, key):
            by_name = getattr(config, key).items()
            groups[key] = {name: check(f"{key}.{name}", component) for name, component in by_name}
    return config.model_copy(update=groups)
