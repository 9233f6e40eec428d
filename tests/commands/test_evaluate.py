"""`genexp evaluate`, `sample`, `figure` and `runs`, through the command line, on small runs."""

import json
import math
import operator
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import torch
from conftest import SMALL, last_checkpoint
from forked import Forked
from images import unscaled
from PIL import Image

from genexp import text
from genexp.config.commands import EvaluateConfig
from genexp.device import select
from genexp.metrics import Subject
from genexp.rundirs import results
from genexp.rundirs.directory import Run
from genexp.rundirs.find import find
from genexp.score import Score
from genexp.storage import checkpoint
from genexp.text import with_error
from genexp.training import build, session
from genexp.training.reopen import reopen

DAE = ["model=dae", "dataset=digits", "model.latent_dim=16", "model.burn_in=3", "metrics.parzen.n_samples=200"]


@pytest.fixture
def trained(finished):
    return finished(*SMALL, "epochs=2", "log.scores_every_epochs=1").run


def kept(run):
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow
def test_a_score_is_kept_under_its_settings_and_never_overwritten(genexp, trained):
    before = kept(trained)
    (first,) = before["evaluations"].values()
    assert first["score"] == "parzen"  # each score stands there once
    assert (first["metric"], first["seed"], first["step"], first["epoch"]) == ("parzen", 0, before["steps"], 2)
    assert first["settings"]["n_samples"] == 200
    assert first["train_seconds"] == before["train_seconds"]

    again = genexp("evaluate", f"run={trained}")
    assert "scored before" in again.out
    assert kept(trained) == before

    other = genexp("evaluate", f"run={trained}", "metrics.parzen.n_samples=50", "metrics.parzen.split=valid")
    assert other.code == 0, other.err
    assert "on 300 valid images (50 samples" in other.out
    after = kept(trained)
    assert after["scores"] == before["scores"]
    assert len(after["evaluations"]) == 2
    assert before["evaluations"].items() <= after["evaluations"].items()

    seeded = genexp("evaluate", f"run={trained}", "seed=5")
    assert len(kept(trained)["evaluations"]) == 3
    assert seeded.out.splitlines()[-1] == f"run: {trained}"


def test_an_evaluation_is_what_the_end_of_training_scored(genexp, trained):
    wanted = kept(trained)["scores"]["parzen"]
    file = trained / "results.json"
    file.unlink()
    assert genexp("evaluate", f"run={trained}").code == 0
    (found,) = kept(trained)["evaluations"].values()
    assert found["score"] == wanted


@pytest.mark.slow
def test_going_on_training_keeps_the_evaluations(genexp, trained):
    genexp("evaluate", f"run={trained}", "metrics.parzen.n_samples=50")
    before = Run(trained).evaluations()
    assert genexp("train", *SMALL, "epochs=3").code == 0
    after = Run(trained).evaluations()
    assert before == {key: after[key] for key in before}
    assert [entry.epoch for entry in after.values()] == [2, 2, 3]
    assert genexp("train", *SMALL, "epochs=3").out.startswith("already finished")


def test_a_run_that_never_finished_is_scored_and_still_goes_on(genexp, trained):
    (trained / "results.json").unlink()
    status = json.loads((trained / "status.json").read_text()) | {"status": "interrupted"}
    (trained / "status.json").write_text(json.dumps(status))
    assert genexp("evaluate", f"run={trained}").code == 0
    answer = genexp("train", *SMALL, "epochs=3")
    assert "already finished" not in answer.out
    assert answer.code == 0
    assert len(kept(trained)["evaluations"]) == 2


def test_the_best_checkpoint_is_the_one_with_the_best_validation_score(genexp, trained):
    def scored(metrics):
        return [line["score/parzen"] for line in metrics if "score/parzen" in line]

    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(scored(lines)) == 2
    best = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)
    config = Run(trained).config
    device = select("auto", None)
    data = build.data_set(config.dataset, "").to(device)
    found = {}
    for path in (trained / "checkpoints").glob("step-*.pt"):
        state = torch.load(path, weights_only=True)
        model = build.model(config.model, config.noise, data.spec(), 0, device)
        model.load_state_dict(state["model"])
        found[state["step"]] = build.scores(config.metrics, Subject(model, data, 0))["parzen"].valid_mean
    assert len(found) == 2
    assert best["step"] == max(found, key=found.get)
    assert best["valid_mean"] == max(found.values())
    answer = genexp("evaluate", f"run={trained}", "checkpoint=best", "metrics.parzen.n_samples=60")
    assert f"(step {best['step']}), best checkpoint" in answer.out


def test_the_best_is_by_the_first_score_on_validation_images_and_knows_which_way_is_better(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(session, "write", lambda file, state: kept.append(state["valid_mean"]))
    monkeypatch.setattr(session, "save", lambda *_: None)
    nothing = lambda: None  # noqa: E731
    training = SimpleNamespace(state_dict=dict, check_finite=nothing, step=1, model=SimpleNamespace(device=None))
    logs = SimpleNamespace(flush=nothing)

    def saving() -> session.Session:
        config = SimpleNamespace(checkpoint=SimpleNamespace(keep_best=None))
        return session.Session(Run(tmp_path), config, training, None, None)

    lower = saving()
    for value in (math.nan, 3.0, 5.0, math.nan, 4.0):
        far = Score(value, None, "", split="valid", lower_is_better=True)
        lower._save(logs, {"far": far, "parzen": Score(0.0, None, "", valid_mean=value)})
    assert kept == [3.0]
    kept.clear()
    higher = saving()
    for value in (3.0, 5.0, math.nan, 4.0):
        other = Score(value, None, "", split="test")
        higher._save(logs, {"other": other, "parzen": Score(0.0, None, "", valid_mean=value)})
    assert kept == [3.0, 5.0]


def retrained(genexp):
    """Another process begins the run anew."""
    assert Forked(Path.cwd(), "train", *SMALL, "epochs=1", "fresh=true").wait() == 0


@pytest.mark.parametrize(
    ("words", "hooked"),
    [
        (["evaluate", "metrics.parzen.n_samples=70"], "genexp.metrics.parzen.log_likelihood"),
        (["sample", "n=9"], "genexp.commands.sample.draw"),
        (["figure", "kind=samples"], "genexp.commands.figure._picture"),
        (["export"], "genexp.commands.export.card.text"),
    ],
)
@pytest.mark.slow
def test_what_is_made_of_a_run_is_not_put_into_another_that_took_its_place(genexp, trained, monkeypatch, words, hooked):
    module, _, name = hooked.rpartition(".")
    original = operator.attrgetter(name)(pkgutil.resolve_name(module))

    def meanwhile(*arguments):
        monkeypatch.setattr(hooked, original)
        retrained(genexp)
        return original(*arguments)

    monkeypatch.setattr(hooked, meanwhile)
    before = {file.name for file in trained.iterdir()} - {"checkpoints"}
    answer = genexp(words[0], f"run={trained}", *words[1:])
    assert answer.code == 1, answer.out + answer.err
    assert "was moved aside meanwhile" in answer.err
    names = {"events" if file.name.startswith("events.") else file.name for file in trained.iterdir()}
    assert names - {"checkpoints"} <= before | {
        "events",
        ".results.lock",
        "samples",
        "filters",
    }
    assert len(Run(trained).evaluations()) == 1


def test_training_on_leaves_alone_what_others_are_writing(genexp, trained):
    ours, theirs, old = (trained / name for name in (".config.yaml.x.partial", ".export.x.partial", ".y.npz.x.partial"))
    theirs.mkdir()
    scores = trained / ".results.json.x.partial"  # no other process writes there, for it would hold the lock
    for file in (ours, theirs / "model.safetensors", old, scores):
        file.touch()
    os.utime(old, (0, 0))
    assert genexp("train", *SMALL, "epochs=3", "log.scores_every_epochs=1").code == 0
    assert (theirs / "model.safetensors").exists()
    assert not ours.exists()
    assert not old.exists()
    assert not scores.exists()


def test_runs_are_found_through_links_to_folders(genexp, trained, tmp_path):
    (tmp_path / "outputs/digits").rename(tmp_path / "elsewhere")
    (tmp_path / "outputs/digits").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "outputs")
    answer = genexp("runs")
    assert answer.out.count("finished") == 1


@pytest.mark.slow
def test_the_best_checkpoint_outlives_a_resume(genexp, trained):
    path = trained / "checkpoints" / "best.pt"
    state = torch.load(path, weights_only=True)
    checkpoint.write(path, state | {"valid_mean": 1e9})
    genexp("train", *SMALL, "epochs=3", "log.scores_every_epochs=1")
    assert torch.load(path, weights_only=True)["valid_mean"] == 1e9
    path.write_bytes(b"damaged")
    answer = genexp("train", *SMALL, "epochs=4", "log.scores_every_epochs=1")
    assert "best.pt is damaged" in answer.out
    assert torch.load(path, weights_only=True)["step"] == last_checkpoint(trained)["step"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=nowhere"], "there is no run's directory"),
        (["checkpoint=best"], "keeps no best checkpoint"),
        (["model.latent_dim=3"], "was trained with 16"),
        (["model.burn=3"], "did you mean 'model.burn_in'?"),
        (["metrics.parzen.n_samples=0"], "greater than or equal to 1"),
        (["dataset.name=mnist"], "was trained with digits"),
        (["metric@metrics.elbo=elbo"], "bounds need a model with a posterior"),
        (["model=gan"], "model"),
        (["seed=-1"], "seed=-1"),
    ],
)
@pytest.mark.slow
def test_mistakes_are_answered_with_exit_code_2_and_change_nothing(genexp, words, said):
    run = genexp("train", *DAE, "epochs=1").run
    before = kept(run)
    given = words if words[0].startswith("run=") else [f"run={run}", *words]
    answer = genexp("evaluate", *given)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert kept(run) == before


@pytest.mark.slow
def test_a_command_without_a_run_says_so(genexp):
    for command in ("evaluate", "sample", "figure"):
        answer = genexp(command)
        assert answer.code == 2
        assert f"which run? genexp {command} run=PATH" in answer.err
        assert genexp(command, "--help").code == 0


@pytest.mark.slow
def test_the_sampler_may_be_changed_and_the_change_is_kept(genexp):
    run = genexp("train", *DAE, "epochs=1").run
    answer = genexp("evaluate", f"run={run}", "model.burn_in=9", "model.chains=7", "noise.probability=0.3")
    assert answer.code == 0, answer.err
    taken = [each for each in Run(run).evaluations().values() if each.metric == "parzen"]
    plain, changed = taken
    assert plain.sampling == {}
    assert changed.sampling == {"model.burn_in": 9, "model.chains": 7, "noise.probability": 0.3}
    assert plain.score.mean != changed.score.mean


@pytest.mark.slow
def test_several_runs_by_a_glob_end_in_a_table(genexp, trained):
    other = genexp("train", *DAE, "epochs=1").run
    answer = genexp("evaluate", f"run={trained.parent}/*", "metrics.parzen.n_samples=40")
    assert answer.code == 0, answer.err
    assert answer.out.count("(40 samples") == 2
    assert [len(kept(run)["evaluations"]) for run in (trained, other)] == [2, 3], (
        "the other one has its chains' score, too"
    )
    failing = genexp("evaluate", f"run={trained.parent}/*", "model.burn_in=5")  # the GAN has none
    assert failing.code == 1
    assert "there is no setting 'model.burn_in'" in failing.out + failing.err
    assert len(kept(other)["evaluations"]) == 5


def test_code_from_outside_is_not_run_unless_trusted(genexp, trained, tmp_path):
    (tmp_path / "stranger.py").write_text("raise SystemExit('executed')\n\nclass GAN:\n    pass\n")
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("genexp.models.gan.GAN", "stranger.GAN"))
    answer = genexp("evaluate", f"run={trained}")
    assert answer.code == 2
    assert "stranger.GAN, which would be executed" in answer.err
    assert "trust=[stranger]" in answer.err


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("genexp.training.logs.SummaryWriter", None),  # in genexp, but no component
        ("genexp.models.vae.math", None),  # imported there
        ("genexp.models.gan.UsageError", None),  # imported there
        (
            "annotated.GAN",
            "class GAN:\n    def __init__(self, data, noise, *, a: print('executed'), b: exec('1/0')):\n",
        ),
    ],
)
def test_nothing_that_a_run_names_is_executed(genexp, trained, tmp_path, target, source):
    if source:
        (tmp_path / "annotated.py").write_text(f"{source}        pass\n")
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("genexp.models.gan.GAN", target))
    answer = genexp("evaluate", f"run={trained}")
    assert answer.code == 2
    assert f"{target}, which would be executed" in answer.err
    assert "executed\n" not in answer.out
    trusting = genexp("evaluate", f"run={trained}", "trust=[annotated]")  # its annotations are read, not evaluated
    assert "executed\n" not in trusting.out
    assert "ZeroDivision" not in trusting.err


def test_a_damaged_results_file_is_moved_aside_and_not_replaced(genexp, trained):
    file = trained / "results.json"
    torn = file.read_text()[:-30]
    file.write_text(torn)
    answer = genexp("evaluate", f"run={trained}")
    assert answer.code == 0
    assert "is damaged; it was moved to" in answer.out
    assert (trained / "results.damaged-1.json").read_text() == torn
    assert len(kept(trained)["evaluations"]) == 1


@pytest.mark.slow
def test_a_score_by_another_extractor_is_another_score(genexp, trained, monkeypatch, tmp_path):
    from genexp.metrics import classifier

    words = ["metric@metrics.fid=fid", "metrics.fid.n_samples=100"]
    for steps in (2, 3):
        monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / f"cache{steps}"))
        monkeypatch.setattr(classifier, "STEPS", steps)
        for expected in ("s", "scored before"):
            (line,) = [
                line for line in genexp("evaluate", f"run={trained}", *words).out.splitlines() if line.startswith("fid")
            ]
            assert line.endswith(expected)
    found = [entry["score"]["extractor"] for entry in kept(trained)["evaluations"].values() if entry["metric"] == "fid"]
    assert len(set(found)) == 2


def test_settings_that_would_be_ignored_are_refused(genexp, trained):
    answer = genexp("evaluate", f"run={trained}", "device.precision=bfloat16")
    assert (answer.code, "always computed in float32" in answer.err) == (2, True)
    answer = genexp("sample", "-m", f"run={trained}", "seed=0,1", "out=s.npz")
    assert (answer.code, "out= names one file for all jobs" in answer.err) == (2, True)
    answer = genexp("evaluate", f"run={trained}", f"run={trained}")
    assert (answer.code, "give one run=" in answer.err) == (2, True)


@pytest.mark.parametrize("name", ["a[1]", "x${y}", "back\\slash", "it's, a = folder"])
def test_a_run_may_be_called_anything(genexp, trained, name):
    place = trained.with_name(name)
    trained.rename(place)
    answer = genexp("evaluate", f"run={place}")
    assert answer.code == 0, answer.err
    assert answer.run == place


def test_a_folder_of_runs_is_no_run(genexp, trained):
    answer = genexp("evaluate", "run=outputs")
    assert "run='outputs/*/*' takes those in it" in answer.err
    assert "metric@metrics.fid=fid" in genexp("evaluate", f"run={trained}", "metrics.fid=fid").err
    assert "genexp evaluate takes no model" in genexp("evaluate", f"run={trained}", "model=vae").err


def test_a_score_that_cannot_be_kept_is_still_said(genexp, trained, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_json", full)
    answer = genexp("evaluate", f"run={trained}", "seed=4")
    assert "parzen: " in answer.out
    assert answer.code == 1
    assert "No space left on device\nThe scores are not kept" in answer.err


@pytest.mark.slow
def test_an_older_score_is_listed_with_its_epoch(genexp, trained):
    status = json.loads((trained / "status.json").read_text())
    (trained / "status.json").write_text(json.dumps(status | {"status": "interrupted", "epoch": 7}))
    assert "(epoch 2)" in genexp("runs").out
    with (trained / "metrics.jsonl").open("a") as stream:
        stream.write('5\n{"step": 30, "epoch": 3, "score/parzen": 1.5}\n{"torn')
    assert "parzen 1.5 (epoch 3)" in genexp("runs").out
    assert genexp("figure", f"run={trained}", "kind=curves").code == 0


def test_other_images_are_refused(genexp, trained):
    (trained / "data.json").write_text('{"digest": "0123"}')
    answer = genexp("evaluate", f"run={trained}")
    assert answer.code == 2
    assert "not the images" in answer.err


def test_results_of_two_writers_are_both_kept(tmp_path):
    metric = {"name": "parzen", "_target_": "x", "n_samples": 1}
    keys = set()
    for seed in range(3):
        entry = results.evaluation(
            metric, Score(seed, None, ""), sampling={}, seed=seed, step=1, epoch=1, train_seconds=0, provenance={}
        )
        file = tmp_path / "results.json"
        results.record(file, {"status": "finished"} if seed else {}, entry, lambda: None)
        keys |= entry.keys()
    assert results.evaluations(file).keys() == keys
    assert len(keys) == 3


def test_the_model_comes_back_as_it_was(trained):
    run = Run(trained)
    kept_config = run.config
    config = EvaluateConfig(
        **{name: getattr(kept_config, name) for name in ("seed", "model", "dataset", "noise", "data_dir", "metrics")},
        run=str(trained),
        checkpoint="last",
        trust=[],
        device=kept_config.device,
    )
    found = reopen(run, config)
    for name, value in last_checkpoint(trained)["model"].items():
        assert torch.equal(found.model.state_dict()[name].cpu(), value), name
    assert (found.epoch, found.step) == (2, 22)


def test_samples_follow_from_the_seed(genexp, trained, tmp_path):
    def drawn(*words):
        answer = genexp("sample", f"run={trained}", "n=30", "out=s.npz", *words)
        assert answer.code == 0, answer.err
        return np.load(tmp_path / "s.npz")

    first = drawn()
    assert first["samples"].shape == (30, 1, 8, 8)
    assert first["samples"].dtype == np.float32
    assert 0 <= first["samples"].min() <= first["samples"].max() <= 1
    assert str(first["sample_kind"]) == "draw"
    bytes_before = (tmp_path / "s.npz").read_bytes()
    assert np.array_equal(first["samples"], drawn()["samples"])
    assert (tmp_path / "s.npz").read_bytes() == bytes_before
    assert not np.array_equal(first["samples"], drawn("seed=1")["samples"])
    assert unscaled(tmp_path / "s.png").size == (6 * 33 + 1, 5 * 33 + 1)  # 30 tiles of 8×8, enlarged four times
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width >= 600
        score = json.loads((trained / "results.json").read_text())["scores"]["parzen"]
        scored = with_error(score["mean"], score["stderr"])
        assert picture.info["Title"] == f"gan on digits, epoch 2 (step 22): samples; parzen {scored}"


def test_samples_have_a_place_in_the_run_and_may_be_a_picture_alone(genexp, trained, tmp_path):
    genexp("sample", f"run={trained}", "n=9")
    assert (trained / "samples-step22-n9-seed0.npz").exists()
    assert (trained / "samples-step22-n9-seed0.png").exists()
    assert genexp("sample", f"run={trained}", "n=9", "out=few.png").code == 0
    assert (tmp_path / "few.png").exists()
    assert not (tmp_path / "few.npz").exists()
    wrong = genexp("sample", f"run={trained}", "n=9", "out=few.txt")
    assert (wrong.code, "FILE.npz" in wrong.err) == (2, True)


@pytest.mark.slow
def test_every_kind_of_figure_of_an_autoencoder(genexp, tmp_path):
    run = genexp("train", "model=vae", "dataset=digits", "epochs=1", "model.hidden=[32]", "model.latent_dim=4").run
    for kind in ("samples", "neighbours", "interpolation", "reconstructions", "manifold"):
        answer = genexp("figure", f"run={run}", f"kind={kind}", "rows=3", "columns=4", "method=pca")
        assert answer.code == 0, answer.err
        with Image.open(run / "figures" / f"{kind}{'-pca' * (kind == 'manifold')}-3x4-step11-seed0.png") as picture:
            assert picture.width >= 600
    assert genexp("figure", f"run={run}", "kind=curves").code == 0
    assert (run / "figures" / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert (run / "figures" / "curves.png").exists()
    assert genexp("figure", f"run={run}", "kind=curves", "out=c.svg").code == 0
    assert (tmp_path / "c.svg").exists()


def test_figures_that_a_model_does_not_have_are_refused(genexp, trained):
    answer = genexp("figure", f"run={trained}", "kind=reconstructions")
    assert (answer.code, "reconstructs no images" in answer.err) == (2, True)
    answer = genexp("figure", f"run={trained}", "kind=nonsense")
    assert (answer.code, "'neighbours'" in answer.err) == (2, True)
    answer = genexp("figure", f"run={trained}", "out=x.svg")
    assert (answer.code, "FILE.png" in answer.err) == (2, True)


@pytest.mark.slow
def test_runs_are_listed_sorted_and_filtered(genexp, trained):
    other = genexp("train", *DAE, "epochs=1").run
    listed = genexp("runs").out
    assert str(trained) in listed
    assert str(other) in listed
    assert "2/2" in listed
    assert "finished" in listed
    assert str(other) not in genexp("runs", "filter=gan").out
    assert str(other) in genexp("runs", "filter=model:dae status:finished").out
    assert "no run" in genexp("runs", "filter=status:failed").out
    answer = genexp("runs", "filter=colour:red")
    assert (answer.code, "there is no column 'colour'" in answer.err) == (2, True)
    assert genexp("runs", "outputs_dir=nowhere").code == 2

    by_score = genexp("runs", "sort=score").out
    scores = {run: kept(run)["scores"]["parzen"]["mean"] for run in (trained, other)}
    order = sorted(scores, key=scores.get, reverse=True)
    assert by_score.index(str(order[0])) < by_score.index(str(order[1]))
    by_age = genexp("runs", "sort=age").out
    assert by_age.index(str(other)) < by_age.index(str(trained))


def test_a_run_whose_process_is_gone_was_killed(trained):
    """Its lock says so: the number of a process may be another's by now, and a machine may have been started anew."""
    status = json.loads((trained / "status.json").read_text())
    (trained / "status.json").write_text(json.dumps(status | {"status": "running", "pid": os.getpid()}))
    assert [found.status for found in find(trained.parent)] == ["killed"]
    with filelock.FileLock(trained / ".lock"):
        assert [found.status for found in find(trained.parent)] == ["running"]
    (trained / "config.yaml").write_text("nonsense")
    (found,) = find(trained.parent)
    assert found.config is None


def test_ages_are_said_in_words():
    assert [text.age(seconds) for seconds in (5, 300, 7200, 3 * 86400)] == ["now", "5 min", "2 h", "3 days"]


@pytest.mark.slow
def test_runs_are_listed_with_the_settings_in_which_they_differ(genexp, trained):
    genexp("train", *SMALL, "epochs=1", "optimizer.lr=0.07", "seed=5")
    genexp("train", *SMALL, "epochs=1", "optimizer=adam", "seed=5")
    genexp("train", "model=vae", "dataset=digits", "epochs=1", "model.hidden=[9]", "metrics.iwae.n_samples=2")
    lines = genexp("runs").out.splitlines()
    told = sorted(line.split("outputs/")[0].split("digits")[1].split() for line in lines if "outputs/" in line)
    assert told == [["0"], ["0", "optimizer=sgd", "lr=0.1"], ["5", "optimizer=adam"], ["5", "optimizer=sgd", "lr=0.07"]]


def test_listing_runs_does_not_load_torch(genexp, trained):
    program = """
import sys
from pathlib import Path
from genexp.rundirs.find import find
assert find(Path("outputs"))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
