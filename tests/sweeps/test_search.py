"""Optuna's search: what it asks for, what it is told, and what a second command still does."""

import csv
import json
import shlex
from dataclasses import replace

import optuna
import pytest
from conftest import ROOT, SMALL, config_of
from omegaconf import OmegaConf

from genexp.config.schema import Search
from genexp.errors import UsageError
from genexp.storage import checkpoint
from genexp.sweeps import search, slots
from genexp.sweeps.ranges import flat_ranges, suggest, typed_ranges

SEARCH = ["train", "search=optuna", *SMALL, "epochs=4", "log.scores_every_epochs=1", "device.threads=1", "sweep.jobs=2"]
DEFAULTS = ROOT / "configs/search/optuna.yaml"
RATES = "search.ranges.optimizer.lr={low: 1e-3, high: 1.0, log: true}"


def study(tmp_path) -> optuna.Study:
    (file,) = tmp_path.glob("outputs/searches/*/study.db")
    return optuna.load_study(study_name=None, storage=f"sqlite:///{file}")


def table(tmp_path) -> list[dict]:
    (file,) = tmp_path.glob("outputs/searches/*/table.csv")
    return list(csv.DictReader(file.open()))


def best_command(answer) -> list[str]:
    """The words of the command that a search prints for its best trial."""
    (line,) = (line for line in answer.out.splitlines() if line.startswith("  genexp train "))
    return shlex.split(line)[1:]


@pytest.mark.slow
def test_the_command_of_the_best_trial_trains_that(genexp, tmp_path):
    words = [*SEARCH, "search.ranges.model.latent_dim={choices: [4, 8]}", "search.trials=2", "search.prune=false"]
    answer = genexp(*words, "outputs_dir=my runs", "search.sampler=random", "search.seed=1")
    assert answer.code == 0, answer.out + answer.err
    best = max(json.loads(file.read_text())["scores"]["parzen"]["valid_mean"] for file in results(tmp_path))
    again = genexp(*best_command(answer))
    assert again.code == 0, again.err
    assert "already finished" in again.out
    assert json.loads((again.run / "results.json").read_text())["scores"]["parzen"]["valid_mean"] == best
    other = genexp(*best_command(answer), "seed=7")
    assert other.run.parent == again.run.parent
    assert other.run != again.run
    assert best_command(
        genexp(*words, "outputs_dir=my runs", "search.sampler=random", "search.seed=1")
    ) == best_command(answer)


def results(tmp_path):
    return list(tmp_path.glob("my runs/digits/*/results.json"))


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_the_command_of_the_best_trial_of_ones_own_model_trains_it(genexp):
    words = ["train", "search=optuna", "--config-dir", "conf", "model=unruly", "dataset=digits", "epochs=1"]
    words += ["metrics.parzen.n_samples=100", "search.ranges.seed={choices: [1]}", "search.trials=1"]
    answer = genexp(*words, "search.prune=false")
    assert answer.code == 0, answer.out + answer.err
    assert "trust=[unruly]" in best_command(answer)
    again = genexp(*best_command(answer))
    assert (again.code, "already finished" in again.out) == (0, True), again.err


BY_BOUND = ["search.metric=elbo", "metrics.elbo.split=valid", "~metrics.parzen"]


@pytest.mark.slow
def test_a_search_by_the_evidence_bound_on_validation_images(genexp, tmp_path):
    vae = ["train", "search=optuna", "dataset=digits", "model=vae", "model.hidden=[16]", "metrics.iwae.n_samples=2"]
    words = [*vae, "epochs=2", "device.threads=1", "+search.ranges.model.latent_dim={low: 2, high: 20}", *BY_BOUND]
    answer = genexp(*words, "log.scores_every_epochs=1", "search.trials=2", "search.prune=false")
    assert answer.code == 0, answer.out + answer.err
    for trial in study(tmp_path).trials:
        run = tmp_path / trial.user_attrs["run"]
        elbo = json.loads((run / "results.json").read_text())["scores"]["elbo"]
        assert elbo["split"] == "valid"
        assert trial.value == elbo["mean"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert {line["epoch"]: line["valid/elbo"] for line in lines if "valid/elbo" in line}[2] == trial.value
        best = checkpoint.load(run / "checkpoints" / "best.pt")
        assert best["valid_of"] == "elbo"
        assert best["valid_mean"] == max(line["valid/elbo"] for line in lines if "valid/elbo" in line)
    assert "ranked by elbo, its mean on validation images" in answer.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=vae", "search.metric=elbo"], "set metrics.elbo.split=valid"),
        (["model=vae", "search.metric=spread", "+metric@metrics.spread=ms_ssim"], "set metrics.spread.split=valid"),
        (
            ["model=dae", "search.metric=walk", "+metric@metrics.walk=chain", "metrics.walk.split=valid"],
            "search.metric=walk describes the samples and does not say what is better",
        ),
    ],
)
def test_what_is_not_taken_on_validation_images_is_not_sought(genexp, words, told):
    answer = genexp("train", "search=optuna", "dataset=digits", RATES, *words)
    assert answer.code == 2
    assert told in answer.err


def test_a_score_of_which_less_is_better_is_minimised(tmp_path):
    seek = Search(**OmegaConf.to_container(OmegaConf.load(DEFAULTS))["search"])
    assert search._study(seek, tmp_path, minimize=True).direction.name == "MINIMIZE"


@pytest.mark.slow
def test_the_validation_curve_is_drawn_without_being_asked_for(genexp, tmp_path):
    words = ["train", "search=optuna", *SMALL, "epochs=10", "device.threads=1", RATES, "search.trials=1"]
    assert genexp(*words).code == 0
    (trial,) = study(tmp_path).trials
    assert (tmp_path / trial.user_attrs["run"] / "checkpoints/best.pt").exists()
    assert "log.scores_every_epochs=5" in trial.user_attrs["overrides"]
    lines = (tmp_path / trial.user_attrs["run"] / "metrics.jsonl").read_text().splitlines()
    assert [line["epoch"] for line in map(json.loads, lines) if "valid/parzen" in line] == [5, 10]


@pytest.mark.slow
def test_trials_are_runs_within_their_ranges_and_optuna_is_told_their_validation_scores(genexp, tmp_path):
    words = [*SEARCH, RATES, "+search.ranges.model.latent_dim={choices: [4, 8]}",
             "+search.ranges.batch_size={low: 50, high: 100, step: 25}", "search.prune=false"]  # fmt: skip
    answer = genexp(*words, "search.trials=4")
    assert answer.code == 0, answer.err
    trials = study(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for trial in trials:
        run = tmp_path / trial.user_attrs["run"]
        results = json.loads((run / "results.json").read_text())
        assert trial.value == results["scores"]["parzen"]["valid_mean"]
        assert 1e-3 <= trial.params["optimizer.lr"] <= 1
        assert trial.params["batch_size"] in (50, 75, 100)
        config = (run / "config.yaml").read_text()
        assert f"lr: {trial.params['optimizer.lr']}" in config
        assert f"latent_dim: {trial.params['model.latent_dim']}\n" in config
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        curve = {line["epoch"]: line["valid/parzen"] for line in lines if "valid/parzen" in line}
        assert set(curve) == {1, 2, 3, 4}
        assert trial.intermediate_values.items() <= curve.items()
    best = max(trials, key=lambda trial: trial.value)
    assert table(tmp_path)[0]["optimizer.lr"] == str(best.params["optimizer.lr"])
    assert [row["rank"] for row in table(tmp_path)] == ["1", "2", "3", "4"]

    again = genexp(*words, "search.trials=4")
    assert again.code == 0
    assert "4 trials have ended already" in again.out
    assert "running" not in again.out
    more = genexp(*words, "search.trials=5")
    assert more.code == 0
    assert "job 5/5 finished" in more.out
    assert len(study(tmp_path).trials) == len(table(tmp_path)) == 5


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned_and_not_begun_again(genexp, tmp_path):
    """One rate learns, the other does not learn at all, which the median of those before it shows."""
    rates = "+search.ranges.optimizer.lr={choices: [0.3, 1e-6]}"
    words = ["train", "search=optuna", "model=dae", "dataset=digits", "model.latent_dim=64", "model.chains=20",
             "model.burn_in=5", "metrics.parzen.n_samples=100", "epochs=60", "log.scores_every_epochs=1",
             "device.threads=1", "search.sampler=random", "search.seed=3", "search.startup_trials=1",
             "search.trials=6", rates]  # fmt: skip
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    states = {trial.state.name for trial in study(tmp_path).trials}
    assert "PRUNED" in states
    pruned = [row for row in table(tmp_path) if row["state"] == "pruned"]
    assert {row["optimizer.lr"] for row in pruned} == {"1e-06"}
    assert all("of 60" in row["cause"] for row in pruned)
    status = json.loads((tmp_path / pruned[0]["run"] / "status.json").read_text())
    assert status["status"] == "pruned"
    assert status["epoch"] < 60
    steps = {file: file.read_text() for file in tmp_path.glob("outputs/digits/*/status.json")}
    assert genexp(*words).code == 0
    assert {file: file.read_text() for file in steps} == steps


@pytest.mark.slow
def test_trials_of_the_same_settings_are_one_run_and_no_failure(genexp, tmp_path):
    answer = genexp(*SEARCH, "+search.ranges.model.latent_dim={choices: [8]}", "search.trials=3", "search.prune=false")
    assert answer.code == 0, answer.out + answer.err
    assert [trial.state.name for trial in study(tmp_path).trials] == ["COMPLETE"] * 3
    assert len({trial.value for trial in study(tmp_path).trials}) == 1
    (file,) = tmp_path.glob("outputs/digits/*/provenance.json")
    assert len(json.loads(file.read_text())["sessions"]) == 1


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_failed_trials_are_stored_as_failed_and_the_search_goes_on(genexp, tmp_path):
    words = ["train", "search=optuna", "--config-dir", "conf", "model=unruly", "dataset=digits", "epochs=3",
             "optimizer=adam", "metrics.parzen.n_samples=100", "search.prune=false", "search.sampler=random",
             "search.seed=1", "+search.ranges.model.mode={choices: [none, raise, kill]}",
             "+search.ranges.optimizer.lr={low: 1e-3, high: 1e-1}", "search.trials=8", "sweep.jobs=2"]  # fmt: skip
    answer = genexp(*words)
    assert answer.code == 0, answer.out + answer.err
    for trial in study(tmp_path).trials:
        mode = json.loads(trial.params["model.mode"])
        assert trial.state.name == ("COMPLETE" if mode == "none" else "FAIL")
        if mode == "kill":
            assert trial.user_attrs["cause"].startswith("killed by SIGKILL")
        if mode == "raise":
            assert trial.user_attrs["cause"] == "RuntimeError: a mistake in the model"
    assert {row["state"] for row in table(tmp_path)} == {"finished", "failed"}
    assert "Traceback" not in answer.out + answer.err


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_trial_that_is_killed_is_tried_again_also_when_failing_fast(genexp, tmp_path):
    dying = ["train", "search=optuna", "--config-dir", "conf", "model=unruly", "dataset=digits", "epochs=3"]
    words = [*dying, "optimizer=adam", "metrics.parzen.n_samples=100", "model.mode=once", "search.prune=false"]
    answer = genexp(*words, "+search.ranges.optimizer.lr={low: 1e-4, high: 1e-3}", "search.trials=1", "sweep.retries=1",
                    "sweep.fail_fast=true")  # fmt: skip
    assert answer.code == 0, answer.out + answer.err
    assert (tmp_path / "died").exists()
    assert [trial.state.name for trial in study(tmp_path).trials] == ["COMPLETE"]


@pytest.mark.slow
def test_a_trial_of_settings_that_do_not_go_together_fails_alone(genexp, tmp_path):
    answer = genexp(*SEARCH, "+search.ranges.batch_size={choices: [100, 2000]}", "search.sampler=random",
                    "search.trials=4", "search.prune=false")  # fmt: skip
    assert answer.code == 0, answer.err
    states = {trial.params["batch_size"]: trial.state.name for trial in study(tmp_path).trials}
    assert states == {"100": "COMPLETE", "2000": "FAIL"}
    assert "larger than the 1,197 training images" in answer.out


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_with_its_trials(genexp, tmp_path, monkeypatch):
    words = [*SEARCH, RATES, "search.trials=3", "search.prune=false"]
    wait = slots.Slots.wait

    def interrupted(self, seconds):
        if list(tmp_path.glob("outputs/digits/*/checkpoints/*.pt")):
            monkeypatch.setattr(slots.Slots, "wait", wait)
            raise KeyboardInterrupt
        return wait(self, seconds)

    monkeypatch.setattr(slots.Slots, "wait", interrupted)
    stopped = genexp(*words, "epochs=15")
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    open_trials = [trial for trial in study(tmp_path).trials if not trial.state.is_finished()]
    assert open_trials
    answer = genexp(*words, "epochs=15")
    assert answer.code == 0, answer.err
    assert f"{len(open_trials)} are gone on with" in answer.out
    after = study(tmp_path).trials
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 3
    assert [trial.params for trial in after[: len(open_trials)]] == [trial.params for trial in open_trials]
    sessions = [json.loads(file.read_text())["sessions"] for file in tmp_path.glob("outputs/digits/*/provenance.json")]
    assert max(len(each) for each in sessions) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "search.ranges is empty"),
        (["+search.ranges.optimizer.lr=3"], "write {low: .., high: ..}"),
        (["+search.ranges.optimizer.lr={low: 1, high: 0.1}"], "low is less than high"),
        (["+search.ranges.optimizer.lr={low: 0, high: 0.1, log: true}"], "above 0 with log"),
        (["+search.ranges.optimizer.lr={choices: []}"], "{choices: [..]}"),
        (["+search.ranges.optimizer.lr={low: a, high: b}"], "search.ranges.optimizer.lr"),
        (["+search.ranges.optimizer.rl={low: 1e-3, high: 0.1}"], "there is no setting 'optimizer.rl'"),
        (["+search.ranges.optimizer.lr={low: -3, high: 0.1}"], "optimizer.lr=-3"),
        ([RATES, "search.metric=fid"], "the runs are scored by parzen"),
        ([RATES, "log.scores_every_epochs=null"], "log.scores_every_epochs=N"),
        ([RATES, "run_dir=here"], "run_dir="),
        ([RATES, "fresh=true"], "move its folder in outputs/searches away"),
        ([RATES, "sweep.rank_by=fid"], "a search ranks by what it seeks, search.metric=parzen"),
        ([RATES, "-m", "seed=0,1"], "leave out -m"),
        ([RATES, "search.trials=0"], "search.trials=0"),
        ([RATES, "search=grid"], "optuna"),
    ],
)
@pytest.mark.slow
def test_wrong_searches_are_refused_before_anything_runs(genexp, tmp_path, words, said):
    answer = genexp("train", "search=optuna", *SMALL, *words)
    assert answer.code == 2, answer.out + answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.glob("outputs/digits/*"))


def test_ranges_may_be_nested_or_dotted():
    found = flat_ranges({"optimizer": {"lr": {"low": 1e-3, "high": 1}}, "model.latent_dim": {"choices": [4]}})
    assert found == {
        "optimizer.lr": {"low": 1e-3, "high": 1, "log": False, "step": None},
        "model.latent_dim": {"choices": [4]},
    }
    with pytest.raises(UsageError, match=r"search\.ranges\.seed"):
        flat_ranges({"seed": {"low": True, "high": 3}})


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("model.beta", {"low": 0, "high": 4}, float),
        ("optimizer.lr_min", {"low": 0, "high": 1, "step": 1}, float),
        ("ema_power", {"low": 1, "high": 9}, float),
        ("checkpoint.every_minutes", {"low": 1, "high": 9}, float),
        ("optimizer.max_col_norm", {"low": 1, "high": 3}, float),  # it may be null, too
        ("metrics.parzen.n_samples", {"low": 10.0, "high": 30.0}, int),
        ("batch_size", {"low": 10.0, "high": 30}, int),
        ("model.latent_dim", {"low": 2, "high": 8}, int),
        ("seed", {"low": 0, "high": 9}, int),
        ("optimizer.lr", {"low": 1e-3, "high": 1, "log": True}, float),
        ("optimizer.lr", {"low": 1, "high": 10, "log": True}, float),
    ],
)
def test_the_declared_type_of_a_setting_decides_which_numbers_are_tried(name, given, kind):
    config = config_of("model=vae", "dataset=digits")
    (found,) = typed_ranges(config, {name: given}).values()
    numbers = [found[key] for key in ("low", "high") if found[key] is not None]
    assert numbers == [given["low"], given["high"]]
    trial = optuna.create_study().ask()
    assert type(suggest(trial, name, found)) is kind


def test_fractions_between_whole_ends_are_tried():
    ranges = typed_ranges(config_of("model=vae"), {"model.beta": {"low": 0, "high": 4}})
    seen = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = [suggest(seen.ask(), "model.beta", ranges["model.beta"]) for _ in range(20)]
    assert any(value != round(value) for value in values)


def test_fractions_of_a_whole_setting_are_refused(genexp, tmp_path):
    answer = genexp(*SEARCH, "+search.ranges.model.latent_dim={low: 2, high: 8.5}")
    assert answer.code == 2
    assert "model.latent_dim takes whole numbers" in answer.err


def test_searches_begun_before_go_on_under_their_name():
    """Ranges whose numbers are of the declared type are as they were given, digit for digit."""
    config = config_of("model=vae")
    for given in ({"low": 1e-3, "high": 1}, {"low": 0.0, "high": 4.0}):
        assert repr(typed_ranges(config, {"optimizer.lr": given})) == repr(flat_ranges({"optimizer.lr": given}))
    given = {"model.latent_dim": {"low": 2, "high": 8}}
    assert repr(typed_ranges(config, given)) == repr(flat_ranges(given))


@pytest.mark.slow
def test_a_score_that_is_no_number_is_a_failure(genexp, tmp_path, monkeypatch):
    job_of = search.Job.of

    def without_number(line, config):
        job = job_of(line, config)
        if job.state == "finished":
            score = replace(job.results.scores["parzen"], valid_mean=float("nan"))
            job.results = replace(job.results, scores={"parzen": score})
        return job

    words = [*SEARCH, "+search.ranges.model.latent_dim={choices: [8]}", "search.prune=false"]
    assert genexp(*words, "search.trials=1").code == 0
    monkeypatch.setattr(search.Job, "of", without_number)
    assert genexp(*words, "search.trials=2").code == 0
    assert [trial.state.name for trial in study(tmp_path).trials] == ["COMPLETE", "FAIL"]
    assert table(tmp_path)[-1]["cause"] == "its parzen on validation images is no number"
