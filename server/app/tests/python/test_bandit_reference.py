"""The regret that `cargo bench --bench bandit` is compared with is what numpy's Thompson sampling has."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

FIXTURES = pathlib.Path(__file__).parents[4] / "benches" / "fixtures"
specification = importlib.util.spec_from_file_location("thompson", FIXTURES / "thompson.py")
thompson = importlib.util.module_from_spec(specification)
specification.loader.exec_module(thompson)
COMMITTED = json.loads((FIXTURES / "thompson.json").read_text())
EVERY = thompson.REQUESTS // thompson.PARTS


@pytest.mark.parametrize("name", thompson.CASES)
def test_the_committed_regrets_are_those_of_the_script(name):
    parts = 4
    regret = thompson.play(name, thompson.SEEDS, parts * EVERY)
    curve = regret[:, EVERY - 1 :: EVERY].mean(axis=0)
    assert curve == pytest.approx(COMMITTED[name]["curve"][:parts], rel=0.02, abs=0.01)
    assert len(COMMITTED[name]["regrets"]) == thompson.SEEDS


def test_a_table_is_uniform():
    table = thompson.uniform(3, 1, np.arange(100_000))
    assert np.histogram(table, bins=10, range=(0, 1))[0] == pytest.approx([10_000] * 10, rel=0.05)
