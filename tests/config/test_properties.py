"""What holds for any input: the schema and a run's identity, the command line, the Parzen score, the files."""

import functools
import json
import math
import os
import string
import typing
from pathlib import Path

import annotated_types
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from scipy.special import logsumexp

from genexp import ranges
from genexp.config.check import checked
from genexp.config.command_line import parse
from genexp.config.components import check_component, declared_settings, movable, settings_of
from genexp.config.compose import compose
from genexp.config.schema import CONFIGS, TrainConfig
from genexp.errors import UsageError
from genexp.metrics.parzen import log_likelihood, score_samples
from genexp.numbers import strict
from genexp.storage.files import atomic, read_json, read_json_lines, write_json

settings.register_profile(  # which allows for a machine that has other work
    "tests",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=20,
    database=None,
)
settings.load_profile("tests")


# --- components: drawn from the ranges that their arguments are annotated with ---------------------------------------

GROUPS = ("model", "dataset", "optimizer", "noise", "metric")
TEXTS = st.text(string.ascii_letters + string.digits + " /._-'\"äσ", max_size=8)


CHOICES = [f"{group}/{file.stem}" for group in GROUPS for file in sorted((CONFIGS / group).glob("*.yaml"))]


@functools.cache
def shipped(choice: str) -> dict:
    """The component that a YAML holds."""
    group, option = choice.split("/")
    if group == "metric":
        component = compose(parse("train", [f"+metric@metrics.it={option}"])).metrics.it
    else:
        component = compose(parse("train", [f"{group}={option}"]))[group]
    return OmegaConf.to_container(component, resolve=True)


LIMITS = {
    "gt": annotated_types.Gt,
    "ge": annotated_types.Ge,
    "lt": annotated_types.Lt,
    "le": annotated_types.Le,
    "min_length": annotated_types.MinLen,
    "max_length": annotated_types.MaxLen,
}


def bounds(metadata: typing.Iterable) -> dict:
    """What pydantic's Field says of a number or list, by the names in LIMITS."""
    said = [one for field in metadata for one in getattr(field, "metadata", [field])]
    return {name: getattr(one, name) for one in said for name, kind in LIMITS.items() if isinstance(one, kind)}


def validators(arguments: tuple) -> list[typing.Callable]:
    return [each.func for each in arguments if isinstance(each, PlainValidator)]


def refuses(validator: typing.Callable, value: typing.Any) -> bool:
    try:
        validator(value)
    except PydanticCustomError:
        return True
    return False


def inside(kind: typing.Any, limits: dict | None = None) -> st.SearchStrategy:
    """Values that an annotation allows."""
    limits = limits or {}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        values = inside(arguments[0], limits | bounds(arguments[1:]))
        for validator in validators(arguments):
            values = values.map(validator)
        return values
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is list:
        least = limits.get("min_length", 0)
        return st.lists(inside(arguments[0]), min_size=least, max_size=limits.get("max_length", least + 3))
    if arguments:  # X | None
        return st.one_of([inside(each) for each in arguments])
    if kind is int:
        return st.integers(limits.get("ge", limits.get("gt", -(10**6) - 1) + 1), limits.get("lt", 10**6) - 1)
    if kind is float:
        return st.floats(
            limits.get("gt", limits.get("ge", -1e9)),
            limits.get("lt", limits.get("le", 1e9)),
            exclude_min="gt" in limits,
            exclude_max="lt" in limits,
            allow_nan=False,
            allow_infinity=False,
        )
    return {bool: st.booleans(), str: TEXTS, type(None): st.none()}[kind]


def outside(kind: typing.Any, limits: dict | None = None) -> st.SearchStrategy:
    """Values that an annotation does not allow: beyond its limits, not finite, or of another type."""
    limits = limits or {}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        values = outside(arguments[0], limits | bounds(arguments[1:]))
        for validator in validators(arguments):
            values = values.filter(lambda value, validator=validator: refuses(validator, value))
        return values
    if origin is typing.Literal:
        return st.one_of(TEXTS, st.integers(-9, 9), st.none()).filter(lambda value: value not in arguments)
    if origin is list:
        wrong = [outside(arguments[0]).map(lambda value: [value]), TEXTS, st.integers()]
        if limits.get("min_length"):
            wrong.append(st.just([]))
        if "max_length" in limits:
            wrong.append(st.lists(inside(arguments[0]), min_size=limits["max_length"] + 1, max_size=5))
        return st.one_of(wrong)
    if arguments:
        return outside(next(each for each in arguments if each is not type(None))).filter(
            lambda value: value is not None
        )
    strangers = [TEXTS, st.lists(st.integers(), max_size=2), st.dictionaries(TEXTS, st.integers(), max_size=1)]
    if kind is int:
        beyond = [st.floats().filter(lambda value: not value.is_integer()), st.booleans(), st.none()]
        if "ge" in limits or "gt" in limits:
            beyond.append(st.integers(max_value=limits.get("ge", limits.get("gt", 0) + 1) - 1))
        return st.one_of(*strangers, *beyond)
    if kind is float:
        beyond = [st.booleans(), st.none(), st.just(math.nan)]
        if "gt" in limits or "ge" in limits:
            edge = limits.get("gt", limits.get("ge"))
            beyond.append(st.floats(max_value=edge, exclude_max="ge" in limits))
        if "lt" in limits or "le" in limits:
            edge = limits.get("lt", limits.get("le"))
            beyond.append(st.floats(min_value=edge, exclude_min="le" in limits))
        if kind is float and not {"lt", "le"} & limits.keys():
            beyond.append(st.just(math.inf))
        return st.one_of(*strangers, *beyond)
    if kind is bool:
        return st.one_of(*strangers, st.integers(), st.none())
    return st.one_of(st.lists(st.integers(), max_size=2), st.integers(), st.none())


def kinds(component: dict) -> dict[str, typing.Any]:
    return {name: kind for name, (kind, _) in declared_settings("it", component["_target_"]).items()}


def is_later(kind: typing.Any) -> bool:
    return any(isinstance(mark, ranges.AsBefore) for mark in getattr(kind, "__metadata__", ()))


def drawn(data: st.DataObject, component: dict) -> dict:
    """The component with settings drawn from their ranges."""
    values = {name: data.draw(inside(kind), label=name) for name, kind in kinds(component).items()}
    return {"name": component["name"], "_target_": component["_target_"], **values}


def same(one: typing.Any, other: typing.Any) -> bool:
    """Equal, and of the same types throughout: 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("choice", CHOICES)
@given(data=st.data())
@pytest.mark.slow
def test_any_settings_in_their_ranges_are_kept_and_checked_again_are_the_same(choice, data):
    component = drawn(data, shipped(choice))
    valid = check_component("it", component)
    assert valid == component
    assert same(valid, check_component("it", valid))
    assert same(valid, check_component("it", {key: component[key] for key in reversed(component)}))


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "noise/none"])  # which has no settings
@given(data=st.data())
def test_any_value_out_of_its_range_is_refused_by_name(choice, data):
    component = check_component("it", shipped(choice))
    name = data.draw(st.sampled_from(sorted(kinds(component))))
    value = data.draw(outside(kinds(component)[name]))
    with pytest.raises(UsageError) as error:
        check_component("it", component | {name: value})
    assert f"it.{name}" in str(error.value)


@pytest.mark.parametrize("choice", CHOICES)
@given(data=st.data())
@settings(max_examples=5)
def test_a_setting_too_many_or_too_few_is_refused_by_name(choice, data):
    component = check_component("it", shipped(choice))
    more = data.draw(st.text(string.ascii_lowercase, min_size=1, max_size=9).filter(lambda name: name not in component))
    with pytest.raises(UsageError, match=f"it.{more}"):
        check_component("it", component | {more: 1})
    later = {name for name, kind in kinds(component).items() if is_later(kind)}
    for name in settings_of(component).keys() - later:  # those that came later have their value as before
        with pytest.raises(UsageError, match=f"it.{name} is missing"):
            check_component("it", {key: value for key, value in component.items() if key != name})


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> TrainConfig:
    return checked("train", compose(parse("train", [])))


IDENTIFIED = ("model", "dataset", "optimizer", "noise")


def config_of(data: st.DataObject, base: TrainConfig) -> TrainConfig:
    """A configuration of any choices, with any settings in their ranges."""
    chosen = {}
    for group in IDENTIFIED:
        options = [choice for choice in CHOICES if choice.startswith(f"{group}/")]
        chosen[group] = drawn(data, shipped(data.draw(st.sampled_from(options))))
    optimizer = chosen["optimizer"]
    optimizer["lr_min"] = min(optimizer["lr_min"], optimizer["lr"])
    return base.model_copy(update=chosen | {"seed": data.draw(st.integers(0, 2**63 - 1))})


@given(data=st.data())
@settings(max_examples=150)
@pytest.mark.slow
def test_identity_survives_yaml(base, data):
    config = config_of(data, base)
    again = checked("train", OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))))
    assert same(again.identity(), config.identity())
    assert again.directory() == config.directory()


@given(data=st.data())
@settings(max_examples=100)
@pytest.mark.slow
def test_identity_follows_from_what_the_experiment_is_alone(base, data):
    config = config_of(data, base)
    elsewhere = {
        "epochs": data.draw(st.integers(1, 10**6)),
        "metrics": {},
        "data_dir": data.draw(TEXTS),
        "fresh": data.draw(st.booleans()),
        "device": config.device.model_copy(update={"threads": data.draw(st.integers(1, 64)), "kind": "cpu"}),
        "log": config.log.model_copy(update={"every_steps": data.draw(st.integers(1, 999)), "projector": True}),
    }
    elsewhere |= {group: dict(reversed(getattr(config, group).items())) for group in IDENTIFIED}
    assert config.model_copy(update=elsewhere).directory() == config.directory()


@given(data=st.data())
@settings(max_examples=150)
@pytest.mark.slow
def test_identity_changes_with_every_setting_of_a_component(base, data):
    config = config_of(data, base)
    group = data.draw(
        st.sampled_from([group for group in IDENTIFIED if settings_of(getattr(config, group))] or ["seed"])
    )
    if group == "seed":
        other = {"seed": (config.seed + 1) % 2**63}
    else:
        component = getattr(config, group)
        names = sorted(set(settings_of(component)) - set(movable(component)))  # where data lie is no other experiment
        name = data.draw(st.sampled_from(names))
        value = data.draw(inside(kinds(component)[name]).filter(lambda value: value != component[name]))
        other = {group: check_component(group, component | {name: value})}
    assert config.model_copy(update=other).directory() != config.directory()


@pytest.mark.parametrize("choice", CHOICES)
@given(data=st.data())
@settings(max_examples=5)
def test_a_whole_number_for_a_fraction_is_the_same_experiment(choice, data):
    component = drawn(data, shipped(choice))
    for name, value in settings_of(component).items():
        if isinstance(value, float):
            for whole in (1, 2, 0):
                try:
                    as_fraction = check_component("it", component | {name: float(whole)})
                except UsageError:
                    continue
                assert same(check_component("it", component | {name: whole}), as_fraction)


# --- the command line ------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.text(max_size=12),
    st.text("=[]{}()'\"$~+-@,.:/\\ \n\t0129abmodelseedpch", max_size=14),
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "+", "~", "++"]),
        st.sampled_from(["seed", "model", "name", "epochs", "model.latent_dim", "optimizer.lr", "log", "x", ""]),
        st.one_of(
            st.sampled_from(
                ["null", "true", "3", "1e9", "[1,2]", "{a:1}", "a,b", "${x}", "'${x}'", "${seed}", "~", "???"]
            ),
            st.text("[]{}()'\"$,.:/ \\0129-abgan_∞", max_size=8),
        ),
    ),
).filter(lambda word: "\0" not in word)  # no program can be given one


@pytest.mark.slow
def test_any_word_is_answered_by_a_code_and_a_message(genexp):
    """Nothing is trained: the batch is larger than the data, which is known last of all."""

    @given(words=st.lists(WORDS, min_size=1, max_size=2))
    @settings(max_examples=120)
    def answered(words):
        before = sorted(Path.cwd().iterdir())
        answer = genexp("train", *words, "dataset=digits", "batch_size=9999999")
        assert answer.code in (0, 1, 2), answer
        assert (answer.out if answer.code == 0 else answer.err).strip(), answer
        assert "Traceback" not in answer.err + answer.out
        assert "GENEXP_DEBUG" not in answer.err, answer
        assert sorted(Path.cwd().iterdir()) == before

    answered()


# --- the Parzen score ------------------------------------------------------------------------------------------------


def formula(points: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
    """Return log p(x) = logsumexp_j(−‖x − μ_j‖² / 2σ²) − log N − d·log(σ√(2π)), in float64."""
    points, centres = points.astype(np.float64), centres.astype(np.float64)
    distances = ((points[:, None] - centres[None]) ** 2).sum(2)
    n, dim = centres.shape
    return logsumexp(-distances / (2 * sigma**2), 1) - math.log(n) - dim * math.log(sigma * math.sqrt(2 * math.pi))


@st.composite
def clouds(draw) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Draw points and centres in [0, 1], some of them equal, and several σ."""
    dim, n, m = draw(st.integers(1, 40)), draw(st.integers(1, 30)), draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    points, centres = (torch.rand(rows, dim, generator=generator) for rows in (m, n))
    for row in range(draw(st.integers(0, min(n, m)))):  # a point at a centre
        points[row] = centres[row]
    return points, centres, draw(st.lists(st.floats(0.05, 3), min_size=1, max_size=3))


def tolerance(sigma: float) -> float:
    """Return the error that rounding leaves in float32 distances of values near 1, over 2σ²."""
    return 2e-5 / (2 * sigma**2) + 1e-5


def assert_close(actual: torch.Tensor, expected: torch.Tensor | np.ndarray, sigmas: list[float]) -> None:
    assert actual.dtype == torch.float64
    expected = torch.as_tensor(expected, dtype=torch.float64)
    for row, sigma in enumerate(sigmas):
        assert (actual[row] - expected[row]).abs().max() < tolerance(sigma)


@given(cloud=clouds(), tile=st.integers(1, 2000))
@settings(max_examples=100)
def test_parzen_is_its_formula_whatever_the_tiles(cloud, tile):
    points, centres, sigmas = cloud
    expected = np.stack([formula(points.numpy(), centres.numpy(), sigma) for sigma in sigmas])
    assert_close(log_likelihood(points, centres, sigmas, tile), expected, sigmas)
    assert_close(log_likelihood(points, centres, sigmas), expected, sigmas)


@given(cloud=clouds(), at_a_time=st.integers(1, 30))
@settings(max_examples=40)
def test_parzen_is_the_same_however_many_centres_are_taken_at_a_time(cloud, at_a_time):
    points, centres, sigmas = cloud
    expected = log_likelihood(points, centres, sigmas)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genexp.metrics.parzen.CENTRES", at_a_time)
        assert_close(log_likelihood(points, centres, sigmas), expected, sigmas)


@given(cloud=clouds(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_parzen_knows_no_order_and_no_repetition(cloud, seed):
    points, centres, sigmas = cloud
    generator = torch.Generator().manual_seed(seed)
    expected = log_likelihood(points, centres, sigmas)
    order = torch.randperm(len(centres), generator=generator)
    assert_close(log_likelihood(points, centres[order], sigmas), expected, sigmas)
    order = torch.randperm(len(points), generator=generator)
    assert_close(log_likelihood(points[order], centres, sigmas), expected[:, order], sigmas)
    assert_close(log_likelihood(points, centres.repeat(3, 1), sigmas), expected, sigmas)


@given(cloud=clouds(), by=st.floats(-4, 4), factor=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
@settings(max_examples=60)
def test_parzen_moves_and_scales_with_its_space(cloud, by, factor):
    """Under x → x + b nothing changes; under x → c·x and σ → c·σ the score falls by d·log c."""
    points, centres, sigmas = cloud
    expected = log_likelihood(points, centres, sigmas)
    assert_close(log_likelihood(points + by, centres + by, sigmas), expected, [sigma / 3 for sigma in sigmas])
    scaled = log_likelihood(factor * points, factor * centres, [factor * sigma for sigma in sigmas])
    assert_close(scaled, expected - points.shape[1] * math.log(factor), sigmas)


@given(cloud=clouds(), away=st.floats(10, 1e4))
@settings(max_examples=40)
def test_parzen_of_a_point_far_away_is_finite(cloud, away):
    points, centres, sigmas = cloud
    values = log_likelihood(torch.full_like(points[:1], away), centres, sigmas)
    expected = np.stack([formula(np.full((1, points.shape[1]), away), centres.numpy(), sigma) for sigma in sigmas])
    assert values.isfinite().all()
    assert torch.allclose(values, torch.as_tensor(expected), rtol=1e-5)


class Images:
    """The part of a data set that the score uses."""

    def __init__(self, **splits: torch.Tensor) -> None:
        self.__dict__ |= splits

    def images(self, split: str, rows: slice = slice(None)) -> torch.Tensor:
        return getattr(self, split)[rows]


@given(cloud=clouds(), n_valid=st.integers(1, 40))
@settings(max_examples=40)
def test_the_score_is_the_mean_at_the_best_sigma_with_its_standard_error(cloud, n_valid):
    points, centres, sigmas = cloud
    points = torch.cat([points, points.flip(0) * 0.5])
    half = (len(points) + 1) // 2
    valid, test = (part[:, None, None] for part in (points[:half], points[half:]))
    grid = sorted({round(sigma, 3) for sigma in sigmas})
    scored = score_samples(centres[:, None, None], Images(valid=valid, test=test), n_valid=n_valid, sigma_grid=grid,
                           split="test")  # fmt: skip
    means = [formula(points[:half][:n_valid].numpy(), centres.numpy(), sigma).mean() for sigma in grid]
    assert means[grid.index(scored.sigma)] > max(means) - tolerance(min(grid))
    expected = formula(points[half:].numpy(), centres.numpy(), scored.sigma)
    assert scored.mean == pytest.approx(expected.mean(), abs=tolerance(scored.sigma))
    stderr = expected.std() / math.sqrt(len(expected)) if len(expected) > 1 else None  # one image has none
    assert scored.stderr == pytest.approx(stderr, abs=tolerance(scored.sigma))
    assert scored.details["n_points"] == len(expected)
    assert scored.details["n_valid"] == min(n_valid, half)


# --- files -----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
DAMAGED = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda value, at: json.dumps(value).encode()[:at], OBJECTS, st.integers(0, 60)),
    st.builds(lambda deep, opening: opening * deep, st.integers(1, 200_000), st.sampled_from([b"[", b'{"a":'])),
    st.lists(st.one_of(st.binary(max_size=20), OBJECTS.map(lambda value: json.dumps(value).encode())), max_size=5).map(
        b"\n".join
    ),
)


@given(content=DAMAGED)
@settings(max_examples=200)
@pytest.mark.slow
def test_no_bytes_keep_json_from_being_read(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    assert isinstance(read_json(file), dict)
    lines = read_json_lines(file)
    assert isinstance(lines, list)
    assert all(isinstance(line, dict) for line in lines)


@given(before=st.lists(OBJECTS, max_size=3), after=st.lists(OBJECTS, max_size=3), between=st.binary(max_size=20))
@settings(max_examples=100)
@pytest.mark.slow
def test_a_damaged_line_costs_no_other_line(tmp_path_factory, before, after, between):
    """As a process leaves it that was killed while it wrote."""
    file = tmp_path_factory.getbasetemp() / "lines.jsonl"
    spoiled = b'{"step": \xff' + between.replace(b"\n", b"").replace(b"\r", b"")
    lines = [*(json.dumps(line).encode() for line in before), spoiled, *(json.dumps(line).encode() for line in after)]
    file.write_bytes(b"\n".join(lines))
    assert read_json_lines(file) == before + after


@given(content=OBJECTS)
@settings(max_examples=40)
@pytest.mark.slow
def test_what_is_written_is_read(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "written" / "some.json"
    write_json(file, content)
    assert read_json(file) == strict(content)  # without infinities, which are no JSON
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208 (a hidden rest would count, too)


@given(old=st.binary(max_size=50), new=st.binary(max_size=50), written=st.integers(0, 50))
@settings(max_examples=40)
def test_a_file_is_the_old_one_or_the_new_one(tmp_path_factory, old, new, written):
    file = tmp_path_factory.getbasetemp() / "replaced" / "some.bin"
    with atomic(file) as stream:
        stream.write(old)
    assert file.read_bytes() == old

    def cut_off() -> None:
        with atomic(file) as stream:
            stream.write(new[:written])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert file.read_bytes() == old
    with atomic(file) as stream:
        stream.write(new)
    assert file.read_bytes() == new
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208
