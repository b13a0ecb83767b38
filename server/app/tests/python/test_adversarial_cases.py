"""The adversarial models themselves: each reference is right, and each model mixes rows or not as it says."""

import pytest

from adversarial import CASES, KEEPERS, MIXERS
from adversarial.judge import fault


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case_is_what_it_says(case):
    assert fault(case) == ""


def test_there_are_enough_of_both_kinds():
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(MIXERS) >= 60
    assert len(KEEPERS) >= 60
