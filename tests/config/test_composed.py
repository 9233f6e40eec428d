"""Configurations that are kept as Hydra composed them: equal to those composed anew, and only as long as they are."""

import os
import shutil

import pytest
from conftest import config_of

from genexp.config import compose, composed
from genexp.config.command_line import parse
from genexp.config.schema import CONFIGS
from genexp.errors import UsageError

LINES = [
    ["model=vae", "dataset=mnist", "name=${model.name}-x"],
    ["experiment=goodfellow2014/gan_mnist", "metric@metrics.kid2=kid", "~metrics.parzen"],
    ["search=optuna", "optimizer=sgd", "log.scores_every_epochs=1"],
]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The command lines that Hydra composes."""
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))
    lines, original = [], compose.compose
    monkeypatch.setattr(compose, "compose", lambda line: (lines.append(line), original(line))[1])
    return lines


@pytest.mark.parametrize("words", LINES, ids=" ".join)
@pytest.mark.slow
def test_a_kept_configuration_is_the_composed_one_and_is_composed_once(calls, words, monkeypatch):
    for data_dir in ("here", "there"):
        monkeypatch.setenv("GENEXP_DATA_DIR", data_dir)
        config = composed.configuration(parse("train", words))
        assert len(calls) == 1
        assert config == config_of(*words)
        assert config.data_dir == data_dir
        del calls[1:]


def test_what_a_changed_configuration_says_is_composed_anew(calls, tmp_path, monkeypatch):
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    monkeypatch.setattr(compose, "CONFIGS", configs)
    monkeypatch.setattr(composed, "CONFIGS", configs)
    line = parse("train", ["model=vae"])
    before = composed.configuration(line)
    file = configs / "model/vae.yaml"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text(file.read_text().replace("latent_dim: 24", "latent_dim: 2"))
    os.utime(file, ns=times)
    assert composed.configuration(line).model == before.model | {"latent_dim": 2}
    assert len(calls) == 2


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"[\\"train\\", \\"model=vae\\"]": 3}'])
def test_a_damaged_or_forbidden_cache_is_of_no_consequence(calls, content, tmp_path):
    line = parse("train", ["model=vae"])
    config = composed.configuration(line)
    (tmp_path / "cache/recipes/composed.json").write_text(content)
    assert composed.configuration(line) == config
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    assert composed.configuration(line) == config


@pytest.mark.slow
def test_a_mistake_is_said_as_ever(calls):
    for words in (["sede=1"], ["model=vea"], ["seed=-1"]):
        with pytest.raises(UsageError) as alone:
            config_of(*words)
        for _ in range(2):
            with pytest.raises(UsageError) as kept:
                composed.configuration(parse("train", words))
            assert str(kept.value) == str(alone.value)
