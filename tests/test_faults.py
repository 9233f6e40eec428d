"""Training processes of every model, killed at random instants, and disks that are full."""

import random
import time

import pytest
from faults import RUNS, Trial
from test_models import MODELS

KILLS = 3  # of each model: 21 in all


def test_every_model_is_killed_here():
    assert set(RUNS) == set(MODELS)


@pytest.mark.parametrize("model", RUNS)
def test_killed_at_random_instants_a_run_ends_as_if_nobody_had_touched_it(tmp_path, model):
    seed = time.time_ns() % 10**6  # another one each time: what holds holds at any instant
    print(f"seed {seed}")
    assert Trial(tmp_path).compare(model, KILLS, random.Random(seed)) >= KILLS
