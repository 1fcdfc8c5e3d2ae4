"""Check with a model as sentences and tables."""

from __future__ import annotations

from typing import Any

from tasc.evaluation.forecast import DRAFT_MODEL, DRAFTS, DRAFTS_AND_MODEL
from tasc.printable import counted

Rows = list[list[str]]
"""Rows of a table, as texts."""

_USES = {
    DRAFTS: "drafts from an index",
    DRAFT_MODEL: "a draft model",
    DRAFTS_AND_MODEL: "drafts from an index and a draft model behind them",
}


def model_sentences(found: dict[str, Any]) -> list[str]:
    """Return the sentences of a check with a model: what it says, what to use, what was measured.

    Args:
        found: Return value of `tasc.evaluation.check.with_model.check_with_model`.
    """
    says = found["says"]
    sentences = [f"{says['sentence'][0].upper()}{says['sentence'][1:]}"]
    if endless := says["rows"] - says["finished"]:
        sentences.append(
            f"{endless} of {says['rows']} outputs did not end within {says['max_tokens']} tokens: a prediction does "
            "not hold for those. If the rows' outputs are shorter, tune the model for longer"
        )
    if left_out := says["left_out"]:
        whose = "its" if left_out == 1 else "the first one's"
        sentences.append(
            f"{counted(left_out, 'held-out row')} {'is' if left_out == 1 else 'are'} left out here: {whose} prompt "
            f"{says['left_out_because']}"
        )
    sentences += [
        f"The costs of {one['engine']} on {one['device']} are those of {one['model']} with "
        f"{counted(one['parameters'], 'parameter')}; this model has {found['parameters']:,}, so its seconds are others"
        for one in found["predictions"]
        if not one["same_size"]
    ]
    for one in found["predictions"]:
        best, methods = one["recommended"], one["loads"][str(one["recommended"]["load"])]
        where = f"{one['engine']} on {one['device']}, {best['load']} at once"
        if best["is_worth_it"]:
            sentences.append(
                f"{where}: use {_USES[best['method']]}, {_times(methods[best['method']]['speedup'])} as fast"
                f"{_for_llama_cpp(one['engine'], best['settings'])}"
            )
        else:
            high = methods[DRAFTS]["speedup"]["high"]
            plain = "faster" if high is not None and high < 1.0 else "as fast within the interval"
            sentences.append(f"{where}: do not bother with an index, plain decoding is {plain}")
        if best["with_tuning"] is not None:
            gain = _times(methods[best["with_tuning"]]["speedup"])
            sentences.append(f"With a task vocabulary, once the model is tuned to it: {gain}")
    sentences += [*_few_outputs(found["predictions"]), *_draft_model_sentences(found)]
    if found["measured"] is not None:
        measured = found["measured"]
        same = "all outputs equal" if not measured["different"] else counted(measured["different"], "different output")
        few = ", no interval from one batch" if measured["speedup"]["low"] is None else ""
        sentences.append(f"{_measured_on(measured)}: {_times(measured['speedup'])}{few}, {same}")
        if not measured["as_predicted"]:
            sentences.append(
                f"The predictions are not of this model in tasc on {measured['here']}, so nothing is predicted of this "
                "measurement: leave --device and --engine out to compare"
            )
    return sentences


def _few_outputs(predictions: list[dict[str, Any]]) -> list[str]:
    """Return what loads stand for that are more than the outputs of a prediction."""
    number = min((one["requests"] for one in predictions), default=0)
    loads = sorted({int(load) for one in predictions for load in one["loads"] if int(load) > number})
    if not loads:
        return []
    said = f"{' and '.join(map(str, loads))} at once are those of {number} at once. Give more rows"
    return [
        f"There {'is' if number == 1 else 'are'} {counted(number, 'output')} to predict from: the figures of {said}"
    ]


def _draft_model_sentences(found: dict[str, Any]) -> list[str]:
    """Return what is known of a draft model; it is trained for one prediction alone."""
    facts = found["draft_model"]
    if facts == "unknown":
        return ["A draft model: unknown until one is trained (--distill-minutes, or tasc distill)"]
    alpha, [prediction] = facts["acceptance"], found["predictions"]
    costs = " and ".join(f"{cost:.2g} plain steps at {load} at once" for load, cost in facts["cost"].items())
    sentences = [
        f"A draft model ({facts['layers']} of the model's layers, {facts['parameters'] / 1e6:,.1f} M parameters) was "
        f"trained for {facts['minutes']:g} minutes, {counted(facts['steps'], 'step')} of "
        f"{counted(facts['rows_per_step'], 'row')}: {_share(alpha)} of its tokens are accepted, and drafting one takes "
        f"{costs}"
    ]
    if prediction["recommended"]["method"] not in (DRAFT_MODEL, DRAFTS_AND_MODEL):
        sentences.append("A draft model brings nothing more here; one that is trained for longer may")
    return sentences


def prediction_table(found: dict[str, Any], prediction: dict[str, Any]) -> tuple[str, list[str], Rows]:
    """Return title, columns and rows of the table of one prediction."""
    where = f"{prediction['engine']}, {prediction['device']}, {prediction['model']} {prediction['dtype']}"
    rows = [
        [
            f"{name}, {load}",
            f"{facts['seconds_per_output']:.3g}",
            _speedup(facts["speedup"]),
            f"{facts['tau']:.1f}",
            f"{facts['accepted']:.2f}",
        ]
        for load, methods in prediction["loads"].items()
        for name, facts in methods.items()
    ]
    used = f"a tuned model uses {100 * found['adoption']:.0f} % of a vocabulary"
    title = f"Predicted from {counted(prediction['requests'], 'output')}: {where}; {used}"
    return title, ["method, at once", "s/output", "speed-up", "τ", "accepted"], rows


def _for_llama_cpp(engine: str, settings: dict[str, Any]) -> str:
    """Return the settings of llama.cpp in words; empty for other engines, which the next commands run."""
    if engine != "llama.cpp":
        return ""
    given = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f", with tasc.adapters.llama_cpp.TascDraft(…, {given}): docs/how-to/llama-cpp-python.md"


def measured_table(found: dict[str, Any]) -> tuple[str, list[str], Rows]:
    """Return title, columns and rows of the table of what was measured, beside the first prediction if it is of it."""
    measured = found["measured"]
    predicted = found["predictions"][0]["loads"][str(measured["load"])] if measured["as_predicted"] else {}
    rows = [
        [
            name,
            f"{predicted[name]['seconds_per_output']:.3g}" if predicted else "–",
            f"{seconds:.3g}",
            _speedup(predicted[name]["speedup"]) if predicted else "–",
            "1.00" if name == "plain" else _speedup(measured["speedup"]),
        ]
        for name, seconds in measured["seconds_per_output"].items()
    ]
    title = f"{_measured_on(measured)}, {measured['load']} at once"
    return title, ["method", "predicted s/output", "measured s/output", "predicted", "measured"], rows


def _measured_on(measured: dict[str, Any]) -> str:
    rows = counted(measured["rows"], "other row") if measured["other_rows"] else "the one row of the prediction"
    where = "" if measured["as_predicted"] else f", tasc on {measured['here']}"
    return f"Measured on {rows}{where}"


def _times(speedup: dict[str, float | None]) -> str:
    """Return a speed-up with its interval in words."""
    if speedup["low"] is None:
        return f"{speedup['value']:.1f} times"
    return f"{speedup['value']:.1f} times ({speedup['low']:.1f} to {speedup['high']:.1f})"


def _share(found: dict[str, float | None]) -> str:
    """Return a share with its interval in words."""
    if found["low"] is None:
        return f"{found['value']:.0%}"
    return f"{found['value']:.0%} ({found['low']:.0%} to {found['high']:.0%})"


def _speedup(found: dict[str, float | None]) -> str:
    if found["low"] is None or found["low"] == found["high"]:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"
