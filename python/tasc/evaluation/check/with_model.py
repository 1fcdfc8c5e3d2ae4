"""A check with a model: what it says beside the rows, the predicted time per output, and the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasc.data.endings import required_eos, required_eos_ids
from tasc.errors import InputError
from tasc.evaluation.check.vocabulary import ADOPTION, adopted_rows
from tasc.evaluation.cost_profile import CostProfile, chosen_profiles, measure_profile
from tasc.evaluation.forecast import LOADS, Plan, agreement, compare, forecast, method_plans, own_outputs, usual_context
from tasc.evaluation.forecast import recommended as recommend
from tasc.evaluation.replay import ReplayRow
from tasc.evaluation.simulate import KnownRequest
from tasc.progress import ProgressBars

if TYPE_CHECKING:
    from tasc._core import MergePlan, TaskIndex
    from tasc.data import Row, TaskTokenizer
    from tasc.evaluation.check.verdict import Verdict

ANSWERED = 64
"""Most held-out rows that the model answers for a prediction; at most half of those with an input."""

_LONGEST = 512  # tokens of an output
_PER_ROW = 2  # tokens of an output by tokens of the longest row: room for a model that says more


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """Model of a check, and how it is checked.

    Attributes:
        model: A `PreTrainedModel` in evaluation mode.
        tokenizer: Its Hugging Face tokenizer.
        name: Name of the model.
        system: System prompt of every request.
        devices: Names or files of cost profiles to predict for; none: the costs are measured here.
        engine: Engine of the profiles; see `chosen_profiles`.
        save_profile: File for the costs that are measured here.
        measure: Seconds to measure the recommended method and plain decoding for; None: nothing is measured.
        load: Requests at once that are measured and recommended for.
        budget: Seconds for the costs, and as many for the model's answers.
    """

    model: Any
    tokenizer: Any
    name: str
    system: str | None = None
    devices: Sequence[str] = ()
    engine: str | None = None
    save_profile: Path | None = None
    measure: float | None = None
    load: int = 1
    budget: float = 15.0

    def profiles(self) -> list[CostProfile]:
        """Read the cost profiles that are named.

        Raises:
            InputError: One cannot be read, or costs are to be saved and none are measured.
        """
        if self.save_profile is not None and (self.devices or self.engine not in (None, "tasc")):
            raise InputError("--save-profile saves the costs of tasc's loop here: leave --device out, or --engine")
        return chosen_profiles(self.devices, self.engine)


def check_with_model(
    check: ModelCheck,
    task_tokenizer: TaskTokenizer,
    index: TaskIndex,
    vocabulary: MergePlan | None,
    held_out: Sequence[Row],
    *,
    progress: ProgressBars,
) -> dict[str, Any]:
    """Predict what tasc brings for a model, and measure it if asked.

    Args:
        check: The model and its options.
        task_tokenizer: Its tokenizer as `tasc.data.load_tokenizer` returns it.
        index: Index of the training rows.
        vocabulary: New tokens; None: none can be learned.
        held_out: Rows that are not in the index.
        progress: Called with the title of a job; returns its progress callback.

    Returns:
        JSON values. `says`: see `agreement`. `adoption`: share of the new tokens that a tuned model is taken to use.
        `predictions`: by profile, a `forecast` with `recommended`; none for a model that does not say what the rows
        say. `measured`: see `compare`; None if not asked for, and for such a model.
        `draft_model`: "unknown".

    Raises:
        InputError: No held-out row has an input, or a profile cannot be read.
    """
    from tasc.decoding.generator import Generator

    profiles = check.profiles()
    rows = [row for row in held_out if row.get("input")]
    if not rows:
        raise InputError("no held-out row has an input, so there is nothing to prompt the model with")
    ask = max(1, min(ANSWERED, len(rows) // 2))
    eos, eos_ids = required_eos(task_tokenizer), required_eos_ids(check.model, check.tokenizer)
    lengths = [len(ids) + 1 for ids in task_tokenizer.encode_outputs([row["output"] for row in rows[:ask]])]
    max_tokens = min(_LONGEST, _PER_ROW * max(lengths))
    generator = partial(Generator, check.model, check.tokenizer, index=index)
    answers = own_outputs(
        generator(batch_size=8), check.tokenizer, task_tokenizer, rows[:ask],
        eos=eos, system=check.system, max_tokens=max_tokens, budget=check.budget, progress=progress("answering"),
    )  # fmt: skip
    says = agreement(answers)
    found: dict[str, Any] = {"says": says, "adoption": ADOPTION, "draft_model": "unknown"}
    if not says["agrees"] and check.save_profile is None:  # it is to be tuned first, and then says other things
        return {**found, "predictions": [], "measured": None}
    if not profiles:
        progress("measuring costs")
        context = usual_context(answers.requests)
        profiles = [measure_profile(check.model, check.tokenizer, context, name=check.name, budget=check.budget)]
        if check.save_profile is not None:
            profiles[0].save(check.save_profile)
    plans = method_plans(answers.requests, index, task_tokenizer, vocabulary)
    plans |= adopted_plans(plans, answers.requests, vocabulary)
    predictions = []
    for profile in profiles:
        predicted = forecast(
            profile, plans, eos=eos_ids, loads=sorted({*LOADS, check.load}),
            progress=progress(f"predicting {profile.engine}"),
        )  # fmt: skip
        predictions.append({**predicted, "recommended": recommend(predicted, check.load)})
    measured = None
    if check.measure is not None:
        from tasc._core import NgramDrafter

        measured = compare(
            generator(batch_size=check.load), rows[ask:] or rows, NgramDrafter(index, tokenizer=task_tokenizer),
            load=check.load, system=check.system, max_tokens=max_tokens, budget=check.measure,
            progress=progress("measuring"),
        )  # fmt: skip
    return {**found, "predictions": predictions, "measured": measured}


def adopted_plans(
    plans: dict[str, Plan], requests: Sequence[KnownRequest], vocabulary: MergePlan | None
) -> dict[str, Plan]:
    """Return the methods with a task vocabulary as a tuned model would use it: not wherever it can be."""
    if vocabulary is None:
        return {}
    rows = [ReplayRow(np.asarray(r.prompt, np.uint32), np.asarray(r.output, np.uint32), r.input) for r in requests]
    adopted = [
        KnownRequest(request.prompt, row.output.tolist(), request.input)
        for request, row in zip(requests, adopted_rows(rows, vocabulary, ADOPTION), strict=True)
    ]
    return {name: Plan(adopted, plan.drafter) for name, plan in plans.items() if plan.requests is not requests}


def tuned_verdict(verdict: Verdict, found: dict[str, Any], *, data: str, model: str) -> Verdict:
    """Return the verdict on rows as it stands for a model: one that does not say what they say is tuned first.

    Args:
        verdict: Verdict on the rows alone.
        found: Return value of `check_with_model`.
        data: Options of `tasc tune` that name the rows, quoted for a shell.
        model: The model, quoted for a shell.
    """
    if found["says"]["agrees"]:
        return verdict
    first = found["says"]["sentence"]
    commands = [f"tasc tune --model {model} {data} -o tuned", *verdict.next_commands]
    sentences = [f"{first[0].upper()}{first[1:]}", *(f"Once it is tuned: {one}" for one in verdict.sentences[:1])]
    return replace(
        verdict, level="do not bother", sentences=[*sentences, *verdict.sentences[1:]], next_commands=commands
    )
