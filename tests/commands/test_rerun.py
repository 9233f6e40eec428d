"""`genexp rerun`: equal scores are said to be equal, others are not, and nothing is compared that cannot be."""

import json
import os
import re
import signal

import pytest
import yaml
from conftest import SMALL, assert_same_state, last_checkpoint

from genexp.config.commands import DeviceAgain
from genexp.config.schema import CONFIGS
from genexp.rundirs.find import find
from genexp.training import session as module


@pytest.fixture
def trained(finished):
    return finished(*SMALL, "epochs=2", "device.threads=1").run


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.slow
def test_a_rerun_is_equal_bit_for_bit_and_no_run_to_count(genexp, trained):
    before = {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()}
    answer = genexp("rerun", str(trained))
    assert answer.code == 0, answer.err
    assert answer.run == trained.with_name(f"{trained.name}.rerun")
    mean = json.loads((trained / "results.json").read_text())["scores"]["parzen"]["mean"]
    (line,) = [line for line in answer.out.splitlines() if line.startswith(" parzen  ")]
    assert line.split() == ["parzen", str(mean), str(mean), "yes"]
    assert "weights after step 22: equal, bit for bit" in answer.out
    assert "may be why" not in answer.out
    assert_same_state(last_checkpoint(trained), last_checkpoint(answer.run))
    assert {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()} == before

    (found,) = find(trained.parent)
    assert found.run.path == trained
    assert genexp("sample", f"run={trained.parent}/*", "n=4").out.count("run: ") == 1
    assert genexp("sample", str(trained), str(answer.run), "n=4").out.count("run: ") == 1  # as a shell expands a glob

    again = genexp("rerun", f"run={trained}")
    assert again.code == 0
    assert "moved the old run to" in again.out  # an earlier rerun says nothing of the code as it is now
    assert "started: " in again.out
    fresh = genexp("rerun", str(trained), "fresh=true")
    assert fresh.code == 0
    assert "moved the old run to" in fresh.out
    assert len(find(trained.parent)) == 1


@pytest.mark.slow
def test_it_computes_as_the_run_did_unless_told_otherwise(genexp, trained):
    def made_by(run):
        return json.loads((run / "results.json").read_text())["provenance"]

    again = genexp("rerun", str(trained))
    assert made_by(again.run)["threads"] == made_by(trained)["threads"] == 1
    assert made_by(again.run)["device"] == made_by(trained)["device"]
    other = genexp("rerun", str(trained), "device=cpu", "device.threads=2", "fresh=true")
    assert made_by(trained.with_name(f"{trained.name}.rerun"))["threads"] == 2
    if other.code:
        assert re.search(r"threads +1 +2", other.out)
    refused = genexp("rerun", str(trained), "device.precision=bfloat16")
    assert (refused.code, "another precision is another experiment" in refused.err) == (2, True)


@pytest.mark.parametrize("file", sorted((CONFIGS / "device").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_device_can_be_asked_for(file):
    assert DeviceAgain.model_validate(yaml.safe_load(file.read_text())).kind == file.stem


def test_scores_that_differ_are_named_with_what_may_be_why(genexp, trained):
    def change(content):
        content["scores"]["parzen"]["mean"] += 1e-12
        content["provenance"] |= {"commit": "0123abc", "patch": "uncommitted-01234567.patch"}
        content["provenance"]["versions"]["torch"] = "2.0.0"
        content["provenance"]["machine"]["processor"] = "another one"

    edit(trained / "results.json", change)
    answer = genexp("rerun", str(trained))
    assert answer.code == 1
    assert f"not equal: parzen of {trained}" in answer.err
    rows = {line.split()[0]: line.split()[-1] for line in answer.out.splitlines() if line.startswith(" parzen  ")}
    assert rows == {"parzen": "no"}
    for said in (
        "equal, bit for bit",  # the weights are
        "may be why",
        "versions.torch",
        "another one",
        "git checkout 0123abc",
        f"git apply {trained}/uncommitted-01234567.patch",
        f"genexp rerun {trained} fresh=true",
    ):
        assert said in answer.out
    assert "machine.host" not in answer.out


def test_a_score_that_one_of_them_lacks_is_not_equal(genexp, trained):
    edit(trained / "results.json", lambda content: content["scores"].update(fid={"mean": 1.0, "stderr": None}))
    answer = genexp("rerun", str(trained))
    assert (answer.code, "not equal: fid" in answer.err) == (1, True)
    assert "as far as is recorded" in answer.out


def test_an_interrupted_rerun_goes_on(genexp, trained, monkeypatch):
    original = module.Terminal.show

    def show(self, tick):
        original(self, tick)
        if tick.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(module.Terminal, "show", show)
        answer = genexp("rerun", str(trained))
    assert answer.code == 130
    assert "goes on from there" in answer.err
    assert len(find(trained.parent)) == 1
    answer = genexp("rerun", str(trained))
    assert answer.code == 0, answer.err
    sessions = json.loads((answer.run / "provenance.json").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, 7]
    assert "weights after step 22: equal, bit for bit" in answer.out


@pytest.mark.slow
def test_a_run_of_several_sessions_is_equal_and_so_it_says(genexp, trained):
    assert genexp("train", *SMALL, "epochs=3", "device.threads=1").code == 0
    answer = genexp("rerun", str(trained))
    assert answer.code == 0, answer.err
    assert "it was trained in 2 sessions" in answer.out
    assert "weights after step 33: equal, bit for bit" in answer.out


@pytest.mark.slow
def test_a_run_without_scores_is_compared_by_its_weights(genexp):
    trained = genexp("train", *SMALL, "epochs=1", "~metrics.parzen").run
    assert genexp("rerun", str(trained)).code == 0
    edit(trained / "results.json", lambda content: content.update(scores={}))
    newest = max((trained / "checkpoints").glob("*.pt"))
    from genexp.storage.checkpoint import load, write

    state = load(newest)
    next(iter(state["model"].values())).view(-1)[0] += 1
    write(newest, state)
    answer = genexp("rerun", str(trained))
    assert (answer.code, "not equal: the weights" in answer.err) == (1, True)
    newest.write_bytes(b"damaged")
    assert "weights: not compared" in genexp("rerun", str(trained)).out


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_refused(genexp, trained, status):
    edit(trained / "status.json", lambda content: content.update(status=status))
    answer = genexp("rerun", str(trained))
    assert answer.code == 2
    assert "is not finished, so there is nothing to compare with" in answer.err
    assert not trained.with_name(f"{trained.name}.rerun").exists()


def test_other_images_are_refused(genexp, trained):
    (trained / "data.json").write_text('{"digest": "0123"}')
    answer = genexp("rerun", str(trained))
    assert (answer.code, "not the images" in answer.err) == (2, True)
    assert not trained.with_name(f"{trained.name}.rerun").exists()


@pytest.mark.parametrize("target", ["genexp.models.gan.GAN", "genexp.optimizers.sgd", "genexp.metrics.parzen.parzen"])
def test_code_from_outside_is_not_run_unless_trusted(genexp, trained, tmp_path, target):
    home, _, name = target.rpartition(".")
    stranger = f"stranger_with_{name}"
    (tmp_path / f"{stranger}.py").write_text(f"print('executed')\nfrom {home} import {name}\n")
    config = trained / "config.yaml"
    assert target in config.read_text()
    config.write_text(config.read_text().replace(target, f"{stranger}.{name}"))
    answer = genexp("rerun", str(trained))
    assert answer.code == 2
    assert f"{stranger}.{name}, which would be executed" in answer.err
    assert "executed" not in answer.out
    assert genexp("rerun", str(trained), f"trust=[{stranger}]").code == 0


def test_a_rerun_from_within_the_directory(genexp, trained, monkeypatch):
    beside = trained.resolve().with_name(f"{trained.name}.rerun")
    monkeypatch.chdir(trained)
    answer = genexp("rerun", ".")
    assert answer.code == 0, answer.err
    assert answer.run == beside
