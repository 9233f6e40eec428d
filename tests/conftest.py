import hashlib
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import torch
from tensorboard.summary.writer import event_file_writer
from torch import nn

from examples import UNRULY
from genexp import cli
from genexp.config import compose as composing
from genexp.config.command_line import parse
from genexp.config.commands import REOPENING
from genexp.config.compose import configuration
from genexp.config.schema import CONFIGS
from genexp.storage import files
from genexp.training import session

ROOT = Path(__file__).parent.parent
DATA = os.environ.get("GENEXP_DATA_DIR")
os.environ["GENEXP_REPORT"] = "false"  # pages of HTML take longer than the small trainings here
if DATA:
    DATA = os.environ["GENEXP_DATA_DIR"] = str((ROOT / DATA).resolve())

SMALL = [  # a GAN that trains in a second
    "dataset=digits",
    "batch_size=100",
    "model.generator_hidden=[32]",
    "model.discriminator_hidden=[16]",
    "model.latent_dim=8",
    "metrics.parzen.n_samples=200",
    "log.every_steps=4",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no worker is left alone with one of them at the end."""

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("slow")
        return 0 if mark is None else mark.args[0] if mark.args else 1

    items.sort(key=seconds, reverse=True)


@pytest.fixture
def mnist_dir() -> Path:
    if not DATA:
        pytest.skip("GENEXP_DATA_DIR is not set: no real MNIST here")
    return Path(DATA)


def shared_folder(tmp_path_factory, name: str) -> Path:
    """A folder of the session that all its workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory) -> Path:
    """The folder of trained classifiers, one for all tests of all workers: training one takes ten seconds."""
    return shared_folder(tmp_path_factory, "classifiers")


@pytest.fixture(autouse=True, scope="session")
def composed_once(tmp_path_factory):
    """Hydra composes the same words once for all tests: it takes a tenth of a second, and they ask thousands of times.

    What depends on a folder or a run, and what is refused, is composed each time.
    """
    folder = shared_folder(tmp_path_factory, "composed")
    compose = hydra.compose

    def once(command, words):
        depends = command in REOPENING or any(word.startswith(("hydra.", "from=")) for word in words)
        if depends or composing.CONFIGS != CONFIGS:
            return compose(command, words)
        file = folder / hashlib.sha256(json.dumps([command, words]).encode(errors="surrogateescape")).hexdigest()
        if not file.exists():
            with files.atomic(file) as stream:
                pickle.dump(compose(command, words), stream)
        return pickle.loads(file.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra, "compose", once)
        yield


@pytest.fixture(autouse=True, scope="session")
def unsynced():
    """Nothing waits for the disk: no test in this process cuts the power (`power.py` does, of processes of its own)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run directory that the last line names."""
        last = self.out.strip().splitlines()[-1]
        assert last.startswith("run: "), self.out + self.err
        return Path(last.removeprefix("run: "))


@pytest.fixture
def genexp(monkeypatch, tmp_path, tmp_path_factory, classifiers, capfd):
    """Run a command line in this process, in an empty folder, with an empty cache but for classifiers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    cache = tmp_path_factory.mktemp("cache")
    (cache / "classifiers").symlink_to(classifiers)
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(cache))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["genexp", *arguments])
        for name, module in list(sys.modules.items()):  # a user's own module may have changed, or be another test's
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path_factory.getbasetemp())):
                del sys.modules[name]
        capfd.readouterr()
        try:
            code = cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        root.handlers[:], root.level = handlers, level  # Hydra sets its own
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture(scope="session")
def trained_once() -> dict[tuple[str, ...], tuple[Answer, Path]]:
    return {}


@pytest.fixture
def finished(genexp, tmp_path_factory, trained_once):
    """Return what `genexp train` with these words answers, and leave its run here: trained once, copied for others."""

    def answer_of(*words: str) -> Answer:
        if words in trained_once:
            answer, kept = trained_once[words]
            shutil.copytree(kept, answer.run)
        else:
            answer, kept = genexp("train", *words), tmp_path_factory.mktemp("finished") / "run"
            assert answer.code == 0, answer.out + answer.err
            shutil.copytree(answer.run, kept)
            trained_once[words] = answer, kept
        return answer

    return answer_of


@pytest.fixture
def a_second_passes(monkeypatch):
    """Put TensorBoard's clock forward when called: it orders a run's files by the second in which they were begun."""
    ahead = 0

    def put_forward() -> None:
        nonlocal ahead
        ahead += 1
        clock = SimpleNamespace(time=lambda: time.time() + ahead)
        monkeypatch.setattr(event_file_writer, "time", clock)

    return put_forward


@pytest.fixture
def unruly(tmp_path):
    """A model that misbehaves as it is told, as a user would bring it."""
    (tmp_path / "unruly.py").write_text(UNRULY)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf/model/unruly.yaml").write_text("name: unruly\n_target_: unruly.Unruly\nmode: none\nat: 20\n")


class Fixed(nn.Module):
    """A model whose samples are what it is given."""

    sample_kind = "draw"
    conditional = False

    def __init__(self, samples):
        super().__init__()
        self.samples = samples

    def sample(self, n, generator, data):
        assert not self.training
        return self.samples[:n]


@contextmanager
def interrupted_at(step):
    """Within it, a training process gets SIGINT after so many steps."""
    original = session.Terminal.show

    def show(self, tick):
        original(self, tick)
        if tick.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Terminal, "show", show)
        yield


def config_of(*words: str, command: str = "train"):
    """The checked configuration of a command line."""
    return configuration(parse(command, words))


def read_metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in ("time", "images_per_second")} for line in lines]


def last_checkpoint(run: Path) -> dict:
    return torch.load(max((run / "checkpoints").glob("*.pt")), map_location="cpu", weights_only=True)


def assert_same_state(one, other, path="state") -> None:
    """Equal to the last bit, in every tensor and number but the seconds spent."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            if key != "seconds":
                assert_same_state(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_state(a, b, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path
