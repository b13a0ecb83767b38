"""Writes the models as files, and holds each reference against Python's ONNX Runtime.

    python -m adversarial DIRECTORY

Also shows that each case is what it says: rows that are stacked give other answers where the model mixes them, and the
same where it does not.
"""

import argparse
import pathlib
import sys

import onnx

from . import CASES
from .judge import fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    faults = 0
    for case in CASES:
        folder = directory / case.name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            onnx.save(case.model(), folder / "model.onnx")
            found = fault(case)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        if found:
            faults += 1
            print(f"{case.name}: {found}")
    mixers = sum(case.mixes for case in CASES)
    print(f"{mixers} that mix rows, {len(CASES) - mixers} that do not, {faults} faulty")
    return 1 if faults else 0


sys.exit(main())
