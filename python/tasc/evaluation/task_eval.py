"""Task quality of a fine-tuned model on held-out rows, and comparison of two models.

Quality and speed are measured separately: all rows are decoded once in large batches, and `tasc.evaluation.latency`
times a few. Predictions hold ids and text, so `assess` computes the figures again without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasc.data import TaskTokenizer
from tasc.data.chat import output_texts
from tasc.errors import InputError
from tasc.evaluation import task_metrics as metrics
from tasc.evaluation.bootstrap import RESAMPLES, Measure, estimate
from tasc.evaluation.decoder import Decoder
from tasc.evaluation.tokenization_stats import tokenization, tokenization_measures
from tasc.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """Options of an evaluation.

    Attributes:
        max_tokens: Maximum number of decoding steps per output.
        batch_size: Rows decoded together for quality.
        batch_sizes: Rows decoded together for latency, one measurement each.
        latency_rows: Number of rows timed, the first ones; 0 for no timing.
        rounds: Number of times each row is timed; the median counts.
        resamples: Number of resamples of an interval.
        confidence: Confidence of an interval.
        seed: Seed of the resamples.
    """

    max_tokens: int = 512
    batch_size: int = 16
    batch_sizes: tuple[int, ...] = (1, 8)
    latency_rows: int = 20
    rounds: int = 3
    resamples: int = RESAMPLES
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"max_tokens": 1, "batch_size": 1, "latency_rows": 0, "rounds": 1, "resamples": 1}
        for name, value in [(n, getattr(self, n)) for n in least] + [("batch_sizes", b) for b in self.batch_sizes]:
            if value < least.get(name, 1):
                raise InputError(f"{name} is {value}; it must be at least {least.get(name, 1)}")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence is {self.confidence}; it must be between 0 and 1")

    def estimate(self, measure: Measure, against: Measure | None = None) -> dict[str, float | None]:
        """Return `value`, `low` and `high` of a figure, or of its difference from another model's figure."""
        return estimate(measure, against=against, resamples=self.resamples, confidence=self.confidence, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output of a model for a row: input and reference of the row, text, ids without the end token, and whether the end
    token followed within `max_tokens`.
    """

    input: str
    reference: str
    text: str
    ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model.

    Attributes:
        predictions: One per row.
        measures: By name: exact_match, slot_f1 (where outputs are JSON; also those of
            `tasc.evaluation.task_metrics.slot_f1_by_seen`, where the slots of training are known), rouge_l, bleu, and
            those of `tasc.evaluation.tokenization_stats.tokenization_measures`.
        counts: rows; unfinished outputs; round_trip, outputs whose ids and expanded ids decode to the same text;
            new_tokens in the vocabulary; unparsable outputs, which are not JSON although references are.
        options: Options of the intervals.
    """

    predictions: tuple[Prediction, ...]
    measures: dict[str, Measure]
    counts: dict[str, int]
    options: EvalOptions

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: `counts`, and value, low and high of each of the `measures`."""
        found = {name: self.options.estimate(measure) for name, measure in self.measures.items()}
        return {"counts": self.counts, "measures": found}


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    options: EvalOptions | None = None,
    system: str | None = None,
    task_tokenizer: TaskTokenizer | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Answers the rows' inputs greedily and measures the answers.

    Args:
        model: transformers model in evaluation mode, extended or not.
        tokenizer: Its Hugging Face tokenizer.
        rows: `{input, output}` each; `tasc.data.read_rows` reads them.
        options: How.
        system: System prompt of every request.
        task_tokenizer: The tokenizer as `tasc.data.load_tokenizer` gives it; None to have it loaded from `tokenizer`.
        progress: Called with (rows answered, rows in all).

    Raises:
        InputError: If there is no row, a row has no input or output, or it does not fit into the model's context.
        MissingExtraError: Without ``tasc-lm[eval]``.

    Examples:
        >>> found = evaluate(model, tokenizer, rows)  # doctest: +SKIP
        >>> found.measures["exact_match"].value  # doctest: +SKIP
        0.72
    """
    from tasc.data import load_tokenizer

    decoder = Decoder(model, tokenizer, task_tokenizer or load_tokenizer(tokenizer), system)
    return evaluate_decoder(decoder, rows, options=options, progress=progress)


def evaluate_decoder(
    decoder: Decoder,
    rows: Sequence[Mapping[str, Any]],
    *,
    options: EvalOptions | None = None,
    seen: Mapping[metrics.Slot, int] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a `Decoder`; see `evaluate` and, for `seen`, `assess`."""
    metrics.check_installed()  # before the time that decoding takes
    options = options or EvalOptions()
    return assess(answers(decoder, rows, options, progress), decoder.task_tokenizer, options=options, seen=seen)


def answers(
    decoder: Decoder,
    rows: Sequence[Mapping[str, Any]],
    options: EvalOptions,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Decode the input of each row, in the order of the rows.

    Raises:
        InputError: If there is no row, a row has no input or output, or it does not fit into the model's context.
    """
    inputs_of(rows)
    prompts = decoder.prompts(rows, options.max_tokens)
    references = output_texts(decoder.task_tokenizer, rows, decoder.system)
    order = sorted(range(len(rows)), key=lambda k: len(rows[k]["output"]))  # outputs of similar length form a batch
    decoded: dict[int, list[int]] = {}
    for start in range(0, len(order), options.batch_size):
        batch = order[start : start + options.batch_size]
        outputs = decoder.decode([prompts[k] for k in batch], options.max_tokens)
        decoded.update(zip(batch, outputs, strict=True))
        if progress is not None:
            progress(len(decoded), len(rows))
    return [
        Prediction(row["input"], reference, *decoder.read(decoded[k]))
        for k, (row, reference) in enumerate(zip(rows, references, strict=True))
    ]


def assess(
    predictions: Sequence[Prediction],
    tokenizer: TaskTokenizer,
    *,
    options: EvalOptions | None = None,
    seen: Mapping[metrics.Slot, int] | None = None,
) -> Evaluation:
    """Compute the figures of existing predictions.

    Args:
        predictions: At least one.
        tokenizer: Tokenizer of the model that made them.
        options: Options of the intervals.
        seen: Outputs of training by slot (`tasc.evaluation.task_metrics.seen_slots`): slot F1 is also split by them.

    Raises:
        InputError: If there is no prediction.
        MissingExtraError: Without ``tasc-lm[eval]``.
    """
    texts, references = [p.text for p in predictions], [p.reference for p in predictions]
    measures = {"exact_match": metrics.exact_match(texts, references)}
    counts = {"rows": len(texts), "unfinished": sum(not p.finished for p in predictions)}
    if any(metrics.slots(reference) is not None for reference in references):
        measures["slot_f1"] = metrics.slot_f1(texts, references)
        if seen is not None:
            measures |= metrics.slot_f1_by_seen(texts, references, seen)
        counts["unparsable"] = sum(metrics.slots(text) is None for text in texts)
    measures |= {"rouge_l": metrics.rouge_l(texts, references), "bleu": metrics.bleu(texts, references)}
    tokenizations = [tokenization(p.ids, p.text, finished=p.finished, tokenizer=tokenizer) for p in predictions]
    counts["round_trip"] = sum(t.round_trip for t in tokenizations)
    counts["new_tokens"] = len(tokenizer.plan or ())
    return Evaluation(
        tuple(predictions), measures | tokenization_measures(tokenizations), counts, options or EvalOptions()
    )


def compare(a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """Compare two evaluations in each figure that both have.

    Returns:
        JSON values by name: `difference` (`a` minus `b`), and `low` and `high` of its paired interval.

    Raises:
        InputError: If the evaluations are of different rows.
    """
    rows = [[(p.input, p.reference) for p in e.predictions] for e in (a, b)]
    if rows[0] != rows[1]:
        raise InputError(
            f"two evaluations of different rows ({len(rows[0])} and {len(rows[1])}) cannot be compared row by row"
        )
    found = {}
    for name in [n for n in a.measures if n in b.measures]:
        facts = a.options.estimate(a.measures[name], b.measures[name])
        found[name] = {"difference": facts.pop("value"), **facts}
    return found


def inputs_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the inputs of rows for an evaluation.

    Raises:
        InputError: If there is no row, or one without an input or output that is text.
    """
    if not rows:
        raise InputError("there is no row to evaluate: name a file or split that has some")
    for number, row in enumerate(rows, start=1):
        for field in ("input", "output"):
            if not isinstance(row.get(field), str):
                had = ", ".join(map(repr, row)) or "nothing"
                raise InputError(f"row {number} has no {field} that is text, it holds {had}; evaluation needs both")
    return [row["input"] for row in rows]
