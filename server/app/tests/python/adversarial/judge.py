"""Holds a case against Python's ONNX Runtime: is its reference right, and does it mix rows as it says?"""

import numpy as np
import onnx
import onnxruntime

from .case import Case

REQUESTS = 40


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def fault(case: Case) -> str:
    """What is wrong with a case; empty where nothing is."""
    runtime = session(case.model())

    def run(inputs):
        return dict(zip(case.output_names, runtime.run(case.output_names, inputs)))

    generator = np.random.default_rng(1)
    mixed = ""
    for _ in range(REQUESTS):
        requests = [case.request(generator, rows) for rows in generator.integers(1, 4, 3)]
        answers = [case.answer(request) for request in requests]
        for request, answer in zip(requests, answers):
            if difference := case.difference(run(request), answer):
                return f"ONNX Runtime and the reference differ: {difference}"
        stacked = run({name: np.concatenate([request[name] for request in requests]) for name in case.values})
        mixed = mixed or unlike_alone(case, stacked, answers) or without_rows(requests, answers)
    if case.mixes and not mixed:
        return f"rows that are stacked answer as alone in all of {REQUESTS} batches"
    return "" if case.mixes else mixed


def unlike_alone(case: Case, stacked, answers) -> str:
    try:
        return case.difference(stacked, {n: np.concatenate([a[n] for a in answers]) for n in case.output_names})
    except ValueError as error:
        return f"the answers cannot be stacked: {error}"


def without_rows(requests, answers) -> str:
    """Answers that do not have a row for each of the request's cannot be told apart in those of a batch."""
    for request, answer in zip(requests, answers):
        rows = len(next(iter(request.values())))
        for name, value in answer.items():
            if len(value) != rows:
                return f"{name} has {len(value)} rows for {rows}"
    return ""
