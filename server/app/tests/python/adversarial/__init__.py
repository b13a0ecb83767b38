"""Models that mix the rows of a batch, models that look as if they did, and what each answers to one request."""

from . import keepers_of_rows, keepers_of_sequences, mixers_by_operator, mixers_by_position
from .case import CASES, Case

__all__ = ["CASES", "Case", "MIXERS", "KEEPERS"]

MIXERS = [case for case in CASES if case.mixes]
KEEPERS = [case for case in CASES if not case.mixes]
