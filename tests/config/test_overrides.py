"""The settings of a command line: what needs no +, what a later one undoes, whole numbers written as 1e3."""

import re
import time

import pytest
from conftest import config_of
from omegaconf import OmegaConf

from genexp.config.command_line import parse
from genexp.config.compose import each_job, spelled
from genexp.config.many import configurations
from genexp.config.schema import CONFIGS
from genexp.errors import UsageError


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["metric@metrics.fid2=fid"], "metrics.fid2.name", "fid"),
        (["metric@metrics.fid2=fid", "metrics.fid2.n_samples=300"], "metrics.fid2.n_samples", 300),
        (["metric@metrics.a=kid", "metric@metrics.b=fid", "metrics.b.n_samples=9"], "metrics.b.n_samples", 9),
        (
            ["search=optuna", "search.ranges.model.latent_dim={low: 2, high: 9}"],
            "search.ranges.model.latent_dim.high",
            9,
        ),
        (["~metrics.kid", "metric@metrics.kid=kid", "metrics.kid.n_samples=1300"], "metrics.kid.n_samples", 1300),
        (["~metric@metrics.parzen", "metric@metrics.parzen=parzen"], "metrics.parzen.name", "parzen"),
        (["~optimizers.generator", "optimizer@optimizers.generator=adam"], "optimizers.generator.name", "adam"),
        (["epochs=1e3"], "epochs", 1000),
        (["model.generator_hidden=[1e2, 2.5e1]"], "model.generator_hidden", [100, 25]),
        (["device.threads=2e0"], "device.threads", 2),
        (["metrics.parzen.n_samples=1e4"], "metrics.parzen.n_samples", 10_000),
    ],
)
@pytest.mark.slow
def test_a_setting_is_taken_as_it_is_typed(words, key, value):
    found = config_of(*words).model_dump()
    for part in key.split("."):
        found = found[part]
    assert (found, str(found)) == (value, str(value))  # 1000 and not 1000.0


@pytest.mark.slow
def test_a_setting_that_a_yaml_leaves_out_is_taken_where_its_component_declares_it(tmp_path):
    (tmp_path / "optimizer").mkdir()
    adam = (CONFIGS / "optimizer/adam.yaml").read_text()
    (tmp_path / "optimizer/mine.yaml").write_text(re.sub("lr_stages.*", "", adam))
    words = ["--config-dir", str(tmp_path), "optimizer=mine", "optimizer.lr_stages=[[1, 2]]"]
    assert config_of(*words).optimizer["lr_stages"] == [[1.0, 2.0]]
    with pytest.raises(UsageError, match="there is no setting"):
        config_of(*words[:-1], "optimizer.lr_stagse=[[1, 2]]")


def test_an_optimizer_of_a_player_of_ones_own_model_needs_no_plus(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("name: mine\n_target_: collections.Counter\n")
    words = ["--config-dir", str(tmp_path), "model=mine", "optimizer@optimizers.critic=adam", "optimizers.critic.lr=1"]
    assert config_of(*words).optimizers["critic"]["lr"] == 1.0


def test_a_deletion_behind_a_choice_deletes_it():
    assert config_of("metric@metrics.kid=kid", "~metrics.kid").metrics.keys() == {"parzen"}


@pytest.mark.slow
def test_hydras_own_program_and_launchers_are_given_what_hydra_takes(genexp):
    words = ["metric@metrics.fid2=fid", "~metrics.kid", "metric@metrics.kid=kid", "seed=1"]
    assert spelled(parse("train", words)) == ["+metric@metrics.fid2=fid", "metric@metrics.kid=kid", "seed=1"]
    assert "fid2:" in genexp("train", *words, "--cfg", "job").out


SWEEPS = [
    ["seed=range(0,3)", "model=vae", "optimizer.lr=1e-3,1e-2"],
    ["model=vae,gan", "optimizer=sgd,adam", "seed=1"],
    ["model.generator_hidden=[3],[4,5]", "name='a b',c", "ema=null,0.9"],
    ["+metric@metrics.a=fid", "metrics.a.n_samples=3,4", "~metrics.parzen", "seed=3,4"],
    ["metric@metrics.a=fid,kid", "metrics.a.n_samples=3000,4000"],
    ["seed=1,2", "epochs=${seed}", "device={threads:1,precision:bfloat16}"],
    ["model=gan,vae", "name=${model.name}-x", "log.every_steps=3,5"],
    ["hydra.job.name=a", "++seed=5,6"],
    ["model=gsn", "metrics.parzen.n_samples=300,400", "metrics.chain.n_valid=${epochs}", "epochs=5,6"],
    ["seed=0,+5,1_000,9999999999999999", "data_dir='${oc.env:PWD}/x'"],
    ["data_dir='${oc.env:NO_SUCH,a}','${oc.env:PWD}'", "device={threads:1}", "name='n${seed}'", "seed=3,4"],
    ["name=a,b", "log={every_steps:3},{every_steps:${batch_size}}", "batch_size=50"],
]


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
@pytest.mark.slow
def test_configurations_of_many_are_those_of_each(words):
    lines = each_job(parse("train", ["-m", "dataset=digits", *(word.replace("'a b'", "a_b") for word in words)]))
    together = list(configurations(lines))
    assert len(together) == len(lines) > 1
    for line, config in zip(lines, together, strict=True):
        assert config == config_of(*line.overrides)


@pytest.mark.slow
def test_a_wrong_one_of_many_is_said_as_if_it_were_alone():
    lines = [parse("train", [word, "dataset=digits"]) for word in ("seed=1", "seed=-1", "sede=1")]
    for line in lines[1:]:
        with pytest.raises(UsageError) as alone:
            config_of(*line.overrides)
        with pytest.raises(UsageError) as together:
            list(configurations([lines[0], line]))
        assert str(together.value) == str(alone.value)


@pytest.mark.slow
def test_a_sweep_of_a_thousand_jobs_is_composed_in_seconds():
    """In processor time, beside that of composing each alone: 1,000 jobs took 127 s, and take 1.4 s."""
    lines = each_job(parse("train", ["-m", "dataset=digits", "model=vae", "seed=range(0,300)"]))
    config_of(*lines[0].overrides)  # what is read once
    times = [time.process_time()]
    assert len(list(configurations(lines))) == 300
    times.append(time.process_time())
    for line in lines[:10]:
        config_of(*line.overrides)
    times.append(time.process_time())
    together, alone = (times[1] - times[0]) / 300, (times[2] - times[1]) / 10
    assert together < alone / 30


def test_of_many_only_what_is_set_and_interpolated_is_resolved_again(monkeypatch):
    """To resolve the whole configuration takes most of the time."""
    resolved = []
    original = OmegaConf.to_container
    monkeypatch.setattr(
        OmegaConf, "to_container", lambda *args, **more: (resolved.append(0), original(*args, **more))[1]
    )
    lines = each_job(
        parse("train", ["-m", "dataset=digits", "model=vae", "seed=range(0,20)", "optimizer.lr=1e-3,1e-2"])
    )
    assert [config.seed for config in configurations(lines)][::2] == list(range(20))
    assert len(resolved) < len(lines) == 40
