"""A check with a model: what it says beside the rows, the predicted time per output, and the measured one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasc.data.endings import required_eos, required_eos_ids
from tasc.errors import InputError, PromptError
from tasc.evaluation.check.draft_model import SHORTEST, TrainDraft, draft_plans, measured_draft
from tasc.evaluation.check.verdict import INDEX, UNKNOWN_DRAFT_MODEL
from tasc.evaluation.check.vocabulary import ADOPTION, adopted_rows
from tasc.evaluation.cost_profile import CostProfile, chosen_profiles, measure_profile, num_parameters
from tasc.evaluation.forecast import (
    DRAFT_MODEL,
    DRAFTS,
    DRAFTS_AND_MODEL,
    LOADS,
    PLAIN,
    Plan,
    agreement,
    compare,
    evenly_by_length,
    forecast,
    method_plans,
    own_outputs,
    usual_request,
)
from tasc.evaluation.forecast import recommended as recommend
from tasc.evaluation.machine import device_name
from tasc.evaluation.replay import ReplayRow
from tasc.evaluation.simulate import KnownRequest
from tasc.models import checkpoint
from tasc.progress import ProgressBars

if TYPE_CHECKING:
    from tasc._core import MergePlan, TaskIndex
    from tasc.data import Row, TaskTokenizer
    from tasc.decoding.generator import Generator
    from tasc.evaluation.check.verdict import Verdict

ANSWERED = 64
"""Most held-out rows that the model answers for a prediction; at most half of those with an input."""

_WITHOUT_SYSTEM = "It was asked without a system prompt: if it was tuned with one, name it with --system"
_LONGEST = 512  # tokens of an output
_SIZE = 1.25  # factor up to which two models are of one size
_PER_ROW = 2  # tokens of an output by tokens of the longest row: room for a model that says more


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """Model of a check, and how it is checked.

    Attributes:
        model: A `PreTrainedModel` in evaluation mode.
        tokenizer: Its Hugging Face tokenizer.
        name: Name of the model.
        adapter: Adapter that is merged into it.
        system: System prompt of every request.
        eos: Text or id of the token that ends the rows' outputs; None: the tokenizer's.
        devices: Names or files of cost profiles to predict for; none: the costs are measured here.
        engine: Engine of the profiles; see `chosen_profiles`.
        save_profile: File for the costs that are measured here.
        measure: Seconds to measure the recommended method and plain decoding for; None: nothing is measured.
        load: Requests at once that are measured and recommended for.
        budget: Seconds for the costs, and as many for the model's answers.
        train_draft: Trains a draft model on the indexed rows; None: what one would bring stays unknown.
    """

    model: Any
    tokenizer: Any
    name: str
    adapter: Path | None = None
    system: str | None = None
    eos: str | None = None
    devices: Sequence[str] = ()
    engine: str | None = None
    save_profile: Path | None = None
    measure: float | None = None
    load: int = 1
    budget: float = 15.0
    train_draft: TrainDraft | None = None

    def profiles(self) -> list[CostProfile]:
        """Read the cost profiles that are named.

        Raises:
            InputError: One cannot be read; or costs are to be saved, or a draft model to be trained, and none are
                measured.
        """
        if self.save_profile is not None and (self.devices or self.engine not in (None, "tasc")):
            raise InputError("--save-profile saves the costs of tasc's loop here: leave --device out, or --engine")
        if self.train_draft is not None and (self.devices or self.engine not in (None, "tasc")):
            raise InputError(
                "--distill-minutes measures a draft model in tasc's loop here; its cost on other devices and in other "
                "engines is not known: leave --device out, or --engine"
            )
        return chosen_profiles(self.devices, self.engine)


def check_with_model(
    check: ModelCheck,
    task_tokenizer: TaskTokenizer,
    index: TaskIndex,
    vocabulary: MergePlan | None,
    train: Sequence[Row],
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
        train: The training rows.
        held_out: Rows that are not in the index.
        progress: Called with the title of a job; returns its progress callback.

    Returns:
        JSON values. `says`: see `agreement`; `max_tokens` is the limit of its outputs, and `left_out` the number of
        held-out rows that the model cannot be prompted with, `left_out_because` the reason of the first. `system`: the
        system message. `parameters`: of the model, their number. `adoption`: share of the new tokens that a tuned model
        is taken to use. `predictions`: by profile, a `forecast` with `recommended` and `same_size` (see `same_size`);
        none for a model that does not say what the rows say. `measured`: see `compare`; `other_rows`, whether these
        rows are others than those of the prediction, which a single row cannot be; `here`, the device; and
        `as_predicted`, whether the first prediction is of tasc on this device and of a model of this size. None if not
        asked for, and for such a model. `draft_model`: facts of its training, with `acceptance` and `cost` (see
        `measured_draft`); "unknown" if none is trained: not asked for, such a model, or outputs too short to draft.
        `failed`: the error or Ctrl-C that ended the measurement; missing without one.

    Raises:
        InputError: No held-out row has an input that the model can be prompted with, or a profile cannot be read.
    """
    from tasc.decoding.generator import Generator

    profiles = check.profiles()
    rows = evenly_by_length([row for row in held_out if row.get("input")])
    if not rows:
        raise InputError("no held-out row has an input, so there is nothing to prompt the model with")
    generator = partial(Generator, check.model, check.tokenizer, index=index)
    answering = generator(batch_size=8)
    rows, left_out, reason = usable_rows(answering, rows, check.system)
    if not rows:
        raise InputError(f"the model can be prompted with no held-out row; the first prompt {reason}")
    ask = max(1, min(ANSWERED, len(rows) // 2))
    eos, eos_ids = required_eos(task_tokenizer), required_eos_ids(check.model, check.tokenizer)
    lengths = [len(ids) + 1 for ids in task_tokenizer.encode_outputs([row["output"] for row in rows[:ask]])]
    max_tokens = min(_LONGEST, _PER_ROW * max(lengths))
    answers = own_outputs(
        answering, check.tokenizer, task_tokenizer, rows[:ask],
        eos=eos, system=check.system, max_tokens=max_tokens, budget=check.budget, progress=progress("answering"),
    )  # fmt: skip
    says = {**agreement(answers), "max_tokens": max_tokens, "left_out": left_out, "left_out_because": reason}
    system = answering.system if check.system is None else check.system
    found: dict[str, Any] = {
        "says": says, "system": system, "parameters": num_parameters(check.model), "adoption": ADOPTION,
        "draft_model": "unknown",
    }  # fmt: skip
    if not profiles and (says["agrees"] or check.save_profile is not None):
        measuring = progress("measuring costs")
        usual = usual_request(answers.requests)
        profiles = [
            measure_profile(
                check.model, check.tokenizer, usual.prompt, usual.output, name=check.name, budget=check.budget
            )
        ]
        measuring(1, 1)
        if check.save_profile is not None:
            profiles[0].save(check.save_profile)
    if not says["agrees"]:  # it is to be tuned first, and then says other things
        return {**found, "predictions": [], "measured": None}
    draft = None
    if check.train_draft is not None and max(len(r.output) for r in answers.requests) >= SHORTEST:
        task = replace(task_tokenizer, eos_id=eos)
        draft, found["draft_model"] = check.train_draft(check.model, check.tokenizer, train, task, system, progress)
    plans = method_plans(answers.requests, index, task_tokenizer, vocabulary)
    plans |= adopted_plans(plans, answers.requests, vocabulary)
    loads = sorted({*LOADS, check.load})
    if draft is not None:
        found["draft_model"] |= measured_draft(
            draft,
            profiles[0],
            answers.requests,
            eos=eos_ids,
            loads=loads,
            progress=progress("measuring the draft model"),
        )
        plans |= draft_plans(draft, plans[DRAFTS], found["draft_model"]["cost"])
    predictions = []
    for profile in profiles:
        predicted = forecast(
            profile, plans, eos=eos_ids, loads=loads,
            progress=progress(f"predicting {profile.engine}"),
        )  # fmt: skip
        predicted["same_size"] = same_size(profile, found["parameters"])
        predictions.append({**predicted, "recommended": recommend(predicted, check.load)})
    found["predictions"], measured = predictions, None
    if check.measure is not None:
        best = predictions[0]["recommended"]["method"]
        method = DRAFTS if best == PLAIN else best
        fresh = plans[method].drafter
        assert fresh is not None
        others = rows[ask:]
        try:
            measured = compare(
                generator(batch_size=check.load), others or rows, fresh(check.load), method=method, load=check.load,
                system=check.system, max_tokens=max_tokens, budget=check.measure,
                progress=progress("measuring"),
            )  # fmt: skip
        except (Exception, KeyboardInterrupt) as error:  # the predictions are not lost with it
            return {**found, "measured": None, "failed": error}
        measured["other_rows"] = bool(others)
        measured["here"] = here = device_name(check.model.device)
        is_here = (profiles[0].engine, profiles[0].device) == ("tasc", here)
        measured["as_predicted"] = is_here and predictions[0]["same_size"]
    return {**found, "measured": measured}


def same_size(profile: CostProfile, parameters: int) -> bool:
    """Return whether a profile may be of a model with so many parameters; new tokens add some."""
    return not profile.parameters or 1 / _SIZE <= parameters / profile.parameters <= _SIZE


def usable_rows(
    generator: Generator, rows: Sequence[Mapping[str, Any]], system: str | None
) -> tuple[list[Mapping[str, Any]], int, str | None]:
    """Return the rows that a model can be prompted with, the number of the others, and why the first of them cannot."""
    usable: list[Mapping[str, Any]] = []
    reason = None
    for row in rows:
        try:
            generator.check([row], system=system)
        except PromptError as error:
            reason = reason or error.reason
        else:
            usable.append(row)
    return usable, len(rows) - len(usable), reason


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
    sentences = [f"{first[0].upper()}{first[1:]}", *([] if found["system"] else [_WITHOUT_SYSTEM])]
    sentences += [f"Once it is tuned: {one}" for one in verdict.sentences[:1]]
    return replace(
        verdict, level="do not bother", sentences=[*sentences, *verdict.sentences[1:]], next_commands=commands
    )


def served_verdict(verdict: Verdict, check: ModelCheck, found: dict[str, Any], *, index: str) -> Verdict:
    """Return the verdict with the command that serves the model in vLLM, where drafts pay there.

    There is none for a model with an adapter, which vLLM would take as a module of its own. The command names the
    folder of `smollm2`, a name that vLLM does not know. A sentence says the system prompt, which requests must hold.

    Args:
        verdict: Verdict so far.
        check: The model and its options.
        found: Return value of `check_with_model`.
        index: Command that builds the index.
    """
    chosen = [one["recommended"] for one in found["predictions"] if one["engine"] == "vllm"]
    settings = next((json.dumps(one["settings"]) for one in chosen if one["is_worth_it"]), None)
    if settings is None or check.adapter is not None:
        return verdict
    first = [] if index in verdict.next_commands else [index]
    command = f"TASC_INDEX={INDEX} vllm serve {shlex.quote(checkpoint(check.name))} --speculative-config '{settings}'"
    system = found["system"]
    said = [] if not system else [f"vLLM adds no system prompt: begin the messages of each request with it, {system!r}"]
    return replace(
        verdict, sentences=[*verdict.sentences, *said], next_commands=[*first, *verdict.next_commands, command]
    )


def draft_verdict(verdict: Verdict, check: ModelCheck, found: dict[str, Any], *, data: str, index: str) -> Verdict:
    """Return the verdict with what a trained draft model says: the commands that make and use one, if it is to be used.

    Args:
        verdict: Verdict so far.
        check: The model and its options.
        found: Return value of `check_with_model`.
        data: Options of `tasc distill` that name the rows, quoted for a shell.
        index: Command that builds the index.
    """
    if found["draft_model"] == "unknown":
        return verdict
    sentences = [one for one in verdict.sentences if one != UNKNOWN_DRAFT_MODEL]
    method = found["predictions"][0]["recommended"]["method"]
    if method not in (DRAFT_MODEL, DRAFTS_AND_MODEL):
        return replace(verdict, sentences=sentences)
    name = shlex.quote(check.name)
    adapter = "" if check.adapter is None else f" --adapter {shlex.quote(str(check.adapter))}"
    options = {"adapter": check.adapter, "eos": check.eos}
    lines = [f"{key} = {json.dumps(str(value))}" for key, value in options.items() if value is not None]
    config = " --config distill.toml" if lines else ""
    commands = list(verdict.next_commands)
    commands += [f"echo {shlex.quote(one)} {'>>' if k else '>'} distill.toml" for k, one in enumerate(lines)]
    layers = found["draft_model"]["layers"]
    commands.append(f"tasc distill --target {name} --layers {layers} {data}{config} -o draft")
    behind = ""
    if method == DRAFTS_AND_MODEL:
        behind = f" --index {INDEX}"
        if index not in commands:
            commands.insert(0, index)
    commands.append(f"tasc generate prompts.jsonl --model {name}{adapter} --draft draft{behind} -o outputs.jsonl")
    return replace(verdict, sentences=sentences, next_commands=commands)
