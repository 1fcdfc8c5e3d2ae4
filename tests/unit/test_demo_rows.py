"""The demo's rows: the same from the same seed, well-formed, and held-out ones that cannot be looked up."""

import json
import random
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))


def test_seed_decides_everything() -> None:
    import assistant

    assert assistant.rows(50, 1) == assistant.rows(50, 1)
    assert assistant.rows(50, 1) != assistant.rows(50, 2)


def test_rows_do_not_change_from_release_to_release() -> None:
    """The shipped adapter was trained on these rows."""
    import hashlib

    import assistant

    digest = hashlib.sha256(json.dumps(assistant.rows(7000, 0)).encode()).hexdigest()
    assert digest[:16] == "b6270e899c641d21"


def test_outputs_follow_the_intents_schema() -> None:
    import assistant
    import intents

    schemas = {(i.domain, i.name): list(i.slots) for i in intents.INTENTS}
    assert len(schemas) == len(intents.INTENTS)
    seen = set()
    for row in assistant.rows(3000, 0):
        output = json.loads(row["output"])
        key = (output["domain"], output["intent"])
        seen.add(key)
        assert list(output["slots"]) == schemas[key]
        assert any(value is not None for value in output["slots"].values())
        assert "{" not in row["input"] and "|" not in row["input"] and "  " not in row["input"]
    assert seen == set(schemas)


def test_every_alternative_of_every_phrase_has_its_slots() -> None:
    import intents
    from grammar import expand, slots_of

    rng = random.Random(0)
    for intent in intents.INTENTS:
        for phrase in intent.phrases:
            for _ in range(200):
                core = expand(phrase, rng)
                assert slots_of(core), core
                assert set(slots_of(core)) <= set(intent.slots), core
                assert not set("()|") & set(core), core


def test_held_out_requests_hold_new_requests_and_new_values() -> None:
    import assistant

    rows = assistant.rows(4000, 0)
    train = [r for r in rows if r["split"] == "train"]
    test = [r for r in rows if r["split"] == "test"]
    assert len(test) == 400
    assert not {r["input"] for r in train} & {r["input"] for r in test}
    known = {word for r in train for word in r["output"].split('"')}
    fresh = sum(any(word not in known for word in r["output"].split('"')) for r in test)
    assert fresh > 0.6 * len(test)
    looked_up = {r["output"] for r in train}
    assert sum(r["output"] in looked_up for r in test) < 0.1 * len(test)


def test_times_days_and_sums_are_put_into_normal_form() -> None:
    import values as v

    drawn = v.Values(random.Random(3))
    for _ in range(500):
        said, written = v.time(drawn)
        hour, minute = map(int, str(written).split(":"))
        assert 7 <= hour <= 21
        if said == "noon":
            assert (hour, minute) == (12, 0)
        else:
            assert int(said.split(":")[0].split()[0].rstrip("apm")) % 12 == hour % 12
        assert ("pm" in said or "afternoon" in said or "evening" in said) <= (hour >= 12)
        said, written = v.amount(drawn)
        number, code = str(written).split()
        assert float("".join(c for c in said if c.isdigit() or c == ".").strip(".")) == float(number)
        assert code in {"USD", "EUR", "GBP", "CHF"}
