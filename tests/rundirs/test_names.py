"""The beginning of a hash names a run, wherever a run is named."""

import json
import shutil

import pytest
from conftest import ROOT

from genexp.errors import UsageError
from genexp.rundirs.find import matching
from genexp.rundirs.names import short_name, short_names

KEPT = ROOT / "tests/kept/vae-adam-seed0-88c605f2"


@pytest.fixture
def run(tmp_path):
    """The kept run where runs are kept, another whose hash begins alike, and one that was moved aside."""
    place = tmp_path / "outputs/digits"
    shutil.copytree(KEPT, place / KEPT.name)
    shutil.copytree(KEPT, place / "vae-adam-seed1-88c6ffff")
    shutil.copytree(KEPT, place / "vae-adam-seed0-88c605f2.old-1")
    return f"outputs/digits/{KEPT.name}"


@pytest.mark.parametrize("words", [["run=88c605"], ["88c605f2"], ["run=outputs/88c605"]])
def test_a_hash_opens_the_run(genexp, run, words):
    answer = genexp("evaluate", *words, "~metrics.fid", "~metrics.iwae", "~metrics.elbo", "metrics.parzen.n_samples=90")
    assert answer.code == 0, answer.err
    assert str(answer.run) == run


@pytest.mark.slow
def test_a_hash_names_a_run_for_every_command(genexp, run, tmp_path):
    for command in ("sample", "export", "figure", "rerun"):
        answer = genexp(command, "88c605f2", "--cfg", "job")
        assert answer.code == 0, answer.err
        assert f"run: {run}" in answer.out
    trained = genexp("train", "from=88c605f2", "--cfg", "job")
    assert trained.code == 0, trained.err
    assert "latent_dim: 2" in trained.out
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    assert genexp("train", "from=88c605f2", "--cfg", "job").code == 2
    assert genexp("train", "from=88c605f2", "outputs_dir=elsewhere", "--cfg", "job").code == 0
    assert genexp("sample", "elsewhere/88c605f2", "--cfg", "job").code == 0
    assert "88c605f2" in genexp("runs", "outputs_dir=elsewhere", "88c605f2").out


@pytest.mark.parametrize("words", [["evaluate", "88c6"], ["train", "from=88c6"], ["rerun", "run=88c6"]])
def test_the_beginning_of_several_hashes_names_them(genexp, run, words):
    answer = genexp(*words)
    assert answer.code == 2
    assert "2 runs' hashes begin so" in answer.err
    assert run in answer.err
    assert "outputs/digits/vae-adam-seed1-88c6ffff" in answer.err
    assert ".old-1" not in answer.err


def test_a_hash_of_no_run_and_what_is_no_hash_are_refused(genexp, run):
    for name in ("99", "vae", "88c605f2a"):
        answer = genexp("evaluate", name)
        assert answer.code == 2
        assert f"run={name}: there is no run's directory" in answer.err


def test_a_path_comes_before_a_hash(genexp, run, tmp_path):
    shutil.copytree(KEPT, tmp_path / "88c605f2")
    (named,) = matching("88c605f2")
    assert str(named.path) == "88c605f2"


def test_short_names_are_taken_by_run(run, genexp, tmp_path):
    shutil.copytree(KEPT, tmp_path / "other/named-by-hand")
    shutil.copytree(KEPT, tmp_path / "other/digits/vae-adam-seed2-0123abcd")
    for path in (tmp_path / "outputs/digits", tmp_path / "other", tmp_path / "other/digits"):
        for each in path.relative_to(tmp_path).iterdir():
            if (each / "config.yaml").is_file() and ".old-" not in each.name:
                (named,) = matching(short_name(each))
                assert named.path.resolve() == each.resolve()
                (named,) = matching(short_name(each.resolve()))
                assert named.path == each.resolve()


def test_copies_have_their_paths_for_names(run, genexp, tmp_path):
    shutil.copytree(KEPT, tmp_path / f"outputs/copies/{KEPT.name}")
    paths = [each.relative_to(tmp_path) for each in sorted(tmp_path.glob(f"outputs/*/{KEPT.name}"))]
    assert short_names(paths) == {path: str(path) for path in paths}
    with pytest.raises(UsageError, match="2 runs' hashes begin so"):
        matching("88c605f2")


@pytest.mark.slow
def test_bare_words_filter_the_runs(genexp, run, tmp_path):
    other = tmp_path / "outputs/digits/dae-adam-seed3-abcdabcd"
    shutil.copytree(KEPT, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("seed: 0", "seed: 3", 1))

    def listed(*words):
        return [row["run"] for row in json.loads(genexp("runs", *words, "format=json").out)["tables"][0]["rows"]]

    assert len(listed()) == 3
    assert listed("dae") == listed("filter=dae") == ["outputs/digits/dae-adam-seed3-abcdabcd"]
    assert len(listed("vae", "status:finished")) == 3
    assert listed("dae", "seed:0") == []
    assert listed("88c605f2") == [run]
    assert listed('no "such$ {word}\\') == []
    answer = genexp("runs", "vae", "filter=dae")
    assert answer.code == 2
    assert "not both" in answer.err


def test_runs_are_exported_as_numbers(genexp, run):
    (row,) = json.loads(genexp("runs", "88c605f2", "format=json").out)["tables"][0]["rows"]
    score = json.loads((KEPT / "results.json").read_text())["scores"]["parzen"]
    assert (row["status"], row["epoch"], row["epochs"], row["seed"], row["model"]) == ("finished", 2, 2, 0, "vae")
    assert (row["score"], row["mean"], row["stderr"]) == ("parzen", score["mean"], score["stderr"])
    lines = genexp("runs", "88c605f2", "format=csv").out.splitlines()
    assert lines[0].startswith("status,epoch,epochs,")
    assert len(lines) == 2
    assert lines[1].startswith("finished,2,2,")
    assert genexp("runs", "format=html").code == 2
