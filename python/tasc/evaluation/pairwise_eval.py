"""Evaluation of quality and speed, of one model or of two models in comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tasc.evaluation.decoder import Decoder
from tasc.evaluation.latency import measure
from tasc.evaluation.machine import machine
from tasc.evaluation.task_eval import EvalOptions, Evaluation, Prediction, assess, compare, evaluate_decoder
from tasc.evaluation.task_metrics import Slot
from tasc.progress import ProgressBars, no_bars

MODEL, AGAINST = "model", "against"
"""Names of the two sides in results."""


def results(
    sides: Mapping[str, Decoder],
    rows: Sequence[Mapping[str, Any]],
    *,
    options: EvalOptions | None = None,
    predictions: Mapping[str, Sequence[Prediction]] | None = None,
    seen: Mapping[Slot, int] | None = None,
    progress: ProgressBars | None = None,
) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    """Evaluate one model or two, as `tasc eval` does.

    Args:
        sides: The model under `MODEL`; optionally a model to compare with under `AGAINST`.
        rows: `{input, output}` each.
        options: Options of the evaluation.
        predictions: Existing outputs of a lossless loop, by side; None: `generate` of transformers makes them.
        seen: Outputs of training by slot, to split slot F1 by them (see `assess`).
        progress: Called with the title of a job; returns its progress callback.

    Returns:
        A JSON-ready dictionary: `settings`, `machine`, `models` (by side, `Evaluation.to_dict`), `comparison` (of
        `compare`, where there are two), `latency` (of `tasc.evaluation.latency.measure`, one per batch size) and
        `outputs` (of each row: input, reference and by side the text); and the evaluations by side.

    Raises:
        InputError: See `evaluate`.
        MissingExtraError: Without ``tasc-lm[eval]``.
    """
    options = options or EvalOptions()
    bar = progress or no_bars
    evaluations = {
        name: assess(predictions[name], decoder.task_tokenizer, options=options, seen=seen)
        if predictions is not None
        else evaluate_decoder(decoder, rows, options=options, seen=seen, progress=bar(f"answering ({name})"))
        for name, decoder in sides.items()
    }
    found: dict[str, Any] = {
        "settings": asdict(options),
        "machine": machine(),
        "models": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
    }
    if len(sides) == 2:
        found["comparison"] = compare(evaluations[MODEL], evaluations[AGAINST])
    found["latency"] = measure(sides, rows, options=options, progress=bar("timing"))
    texts = {name: [p.text for p in evaluation.predictions] for name, evaluation in evaluations.items()}
    found["outputs"] = [
        {"input": r["input"], "reference": r["output"], "texts": {name: texts[name][k] for name in sides}}
        for k, r in enumerate(rows)
    ]
    return found, evaluations
