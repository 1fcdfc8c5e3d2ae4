"""Generated tasks of very different kinds, on which the general mixture weights are fitted.

Each is a function of (random, kit) that gives one row {input, output}; the kit holds what is drawn once per task
(names, tables, phrases, forms of the answer), so that two seeds make two different tasks of the same kind.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Row = dict[str, str]
Kit = dict[str, Any]
_words = str.split  # lists of words are easier to read in a row

_SYLLABLES = _words(
    "ka lo mi ren tor vas del pin gra sho ul ter bon fi nex qua ri sta von zel har mon dy pre sil ta cor ble"
)
_VERBS = _words(
    "book move cancel list send open close pay check find update share print track refund order show play stop call "
    "compare rename delete copy repair review"
)
_NOUNS = _words(
    "flight room invoice ticket parcel meeting report account table car lamp song note server refund seat city price "
    "student teacher project device printer battery contract garden kitchen window coffee market museum river engine "
    "doctor patient school author book movie team player game station airport"
)
_GLUE = _words(
    "the of and to in a is that for on with as by at from it an be this which or are was not but have will can has "
    "there their one all more about when who he she they we you its than other some any into only no if because "
    "after before so very then also while between under over through each many most every"
)
_PLAIN = _words(
    "time year people way day man thing woman life child world hand part place case week company system program "
    "question work government number night point home water area money story fact month lot right study business "
    "issue side kind head house service friend father power hour line end member law health person art war history "
    "party result change morning reason research early moment air force offer enough across although remember foot "
    "second able maybe toward policy level everything process love human wait serve die send expect build stay fall "
    "cut reach kill remain suggest raise pass sell require decide pull return explain carry develop hope drive break "
    "receive agree support hold produce eat cover catch draw choose cause listen realize place close involve good "
    "new first last long great little own old big high different small large next young important public bad same"
)
_ASKING = ["please", "can you", "i want to", "i would like to", "could you please", "hi,", "", "", "help me", "now"]
_LEVELS = ["INFO", "INFO", "INFO", "WARN", "ERROR"]


def _word(r: random.Random, parts: int = 2) -> str:
    return "".join(r.choice(_SYLLABLES) for _ in range(r.randint(1, parts)))


def _zipf(r: random.Random, items: list[Any]) -> Any:
    return items[min(int(len(items) ** r.random()) - 1 + (r.random() < 0.1), len(items) - 1)]


def _text(r: random.Random, kit: Kit, least: int, most: int) -> str:
    """Words in which some follow others: half glue, the rest by Zipf."""
    words = [r.choice(_GLUE)]
    for _ in range(r.randint(least, most) - 1):
        after = kit["after"].get(words[-1])
        follows = r.random() < 0.45 and after
        words.append(r.choice(after) if follows else r.choice(_GLUE) if r.random() < 0.4 else _zipf(r, kit["words"]))
    return " ".join(words)


def _kit(r: random.Random) -> Kit:
    made = [_word(r, 3) for _ in range(1500)]
    words = r.sample(_PLAIN + _NOUNS + _VERBS, 150) + made[:500]
    r.shuffle(words)
    slots = [".".join(r.sample(_NOUNS, 2)) if r.random() < 0.3 else "_".join(r.sample(_NOUNS, 2)) for _ in range(24)]
    kit: Kit = {
        "names": [f"{_word(r, 3)} {_word(r, 3)}".title() for _ in range(400)],
        "cities": [(_word(r, 3) + (f" {_word(r)}" if r.random() < 0.25 else "")).title() for _ in range(90)],
        "slots": slots,
        "kind_of": {s: r.randrange(6) for s in slots},
        "before": {s: r.choice(_GLUE[:40]) + r.choice(["", f" {s.split('_')[-1]}"]) for s in slots},
        "words": words,
        "after": {w: [r.choice(words) for _ in range(3)] for w in _GLUE + words[:300]},
        "vocabulary": r.sample(_PLAIN, 40) + made,
        "components": [f"{_word(r)}.{_word(r)}" for _ in range(30)],
        "labels": [f"{_word(r)}_{n}" for n in r.sample(_NOUNS, 7)],
        "form": r.randrange(4),
        "seed": r.random(),
    }
    kit["intents"] = {
        f"{r.choice(_VERBS)}_{n}": r.sample(slots, r.randint(1, 6)) for n in r.sample(_NOUNS, r.randint(8, 20))
    }
    kit["phrases"] = [_text(r, kit, 3, 11) for _ in range(60)]
    kit["tables"] = {t: [f"{_word(r)}_{r.choice(_NOUNS)}" for _ in range(7)] for t in r.sample(_NOUNS, 8)}
    kit["fixed"] = random.Random(kit["seed"])  # of what is drawn once per task by the kind itself
    return kit


def _once(kit: Kit, name: str, draw: Callable[[random.Random], Any]) -> Any:
    """Values that a kind draws once per task."""
    if name not in kit:
        kit[name] = draw(kit["fixed"])
    return kit[name]


def _value(r: random.Random, kit: Kit, slot: str) -> str:
    kind = kit["kind_of"].get(slot, sum(map(ord, slot)) % 6)
    if kind == 0:
        return str(r.randint(1, 2000))
    if kind == 1:
        return f"{r.randint(1, 12)}:{r.choice(['00', '15', '30', '45'])} {r.choice(['am', 'pm'])}"
    if kind == 2:
        return str(r.choice(kit["labels"]).split("_")[1])
    return str(_zipf(r, kit["cities"] if kind < 5 else kit["names"])) + (f" {_word(r)}" if r.random() < 0.1 else "")


def slots(r: random.Random, kit: Kit) -> Row:
    """Slot filling: utterance → JSON."""
    intent = _zipf(r, sorted(kit["intents"]))
    found = [(s, _value(r, kit, s)) for s in kit["intents"][intent] if r.random() < 0.6]
    request = f"{r.choice(_ASKING)} {intent.replace('_', ' a ')}"
    for slot, value in found:
        request += f" {kit['before'][slot] if r.random() < 0.8 else r.choice(_GLUE)} {value}"
    if r.random() < 0.2:
        request += " " + _text(r, kit, 2, 5)
    lists = kit["form"] % 2 == 0
    values: Any = [{"name": s, "value": v} for s, v in found] if lists else dict(found)
    answer = json.dumps({"intent": intent, "slots": values})
    return {"input": request.strip().lower(), "output": answer.lower() if kit["form"] < 3 else answer}


def _query(r: random.Random, kit: Kit) -> dict[str, Any]:
    """Contents of a question: tables that are joined in some order, and what is demanded of their columns."""
    tables = r.choices(sorted(kit["tables"]), k=min(int(r.expovariate(0.6)), 4) + 1)
    aliases = [f"{t}alias{tables[:k].count(t)}" for k, t in enumerate(tables)]
    joins = []
    for k in range(1, len(tables)):
        left = r.randrange(k)
        joins.append((left, r.choice(kit["tables"][tables[left]]), k, r.choice(kit["tables"][tables[k]])))
    asked = [(k, r.choice(kit["tables"][t])) for k, t in enumerate(tables) if r.random() < 0.7] or [(0, "name")]
    shown = r.choice(kit["tables"][tables[0]])
    return {
        "tables": tables,
        "aliases": aliases,
        "joins": joins,
        "asked": asked,
        "shown": shown,
        "in": r.random() < 0.2,
    }


def sql(r: random.Random, kit: Kit) -> Row:
    """Question → SQL."""
    queries = _once(kit, "queries", lambda r: [_query(r, kit) for _ in range(60)])
    q = _zipf(r, queries) if r.random() < 0.7 else _query(r, kit)
    upper = str.upper if kit["form"] % 2 else str
    names = [f"{a[:-6].upper()}{a[-6:]}" if upper is str.upper else a for a in q["aliases"]]
    request, terms = f"{r.choice(['which', 'show all', 'what is the', 'list the'])} {q['tables'][0]}", []
    for k, column in r.sample(q["asked"], len(q["asked"])):
        value, more = upper(_value(r, kit, column)), r.random() < 0.15
        request += (
            f" {r.choice(['with', 'of', 'whose', 'in'])} {column.split('_')[-1]} {'over ' if more else ''}{value}"
        )
        terms.append(f"{names[k]}.{upper(column)} {'>' if more else '='} " + (value if more else f'"{value}"'))
    terms += [f"{names[k]}.{upper(d)} = {names[a]}.{upper(c)}" for a, c, k, d in q["joins"]]
    if r.random() < 0.5:
        terms.sort()
    text = " AND ".join(terms)
    if q["in"]:
        table = q["tables"][-1]
        text += f" AND {names[0]}.{upper(q['shown'])} IN ( SELECT {upper(table)}.{upper(kit['tables'][table][0])}"
        text += f" FROM {upper(table)} )"
    source = " , ".join(f"{upper(t)} AS {n}" for t, n in sorted(zip(q["tables"], names, strict=True)))
    order = ""
    if r.random() < 0.2:
        order = f" ORDER BY {names[0]}.{upper(q['shown'])} LIMIT {(n := r.randint(1, 9))}"
        request += f", top {n}"
    select = f"SELECT DISTINCT {names[0]}.{upper(q['shown'])} FROM {source}"
    return {"input": request, "output": f"{select} WHERE {text}{order} ;"}


def record(r: random.Random, kit: Kit) -> Row:
    """A wish → a long form, much of it the same in all, with choices in between that the wish hints at or not."""

    def form(r: random.Random) -> list[tuple[str, list[str], bool]]:
        def options() -> list[str]:
            return [_text(r, kit, 1, 6).replace(" ", "-") for _ in range(r.choice([1, 1, 2, 3, 6]))]

        return [(r.choice(kit["slots"]), options(), r.random() < 0.5) for _ in range(r.randint(6, 16))]

    request, lines = [], []
    for key, options, hinted in _zipf(r, _once(kit, "forms", lambda r: [form(r) for _ in range(5)])):
        if r.random() < 0.15:
            continue
        chosen = _zipf(r, options) if r.random() < 0.9 else _value(r, kit, key)
        if hinted and len(options) > 1:
            request.append(f"{key.split('_')[-1]} {chosen.split('-')[0]}")
        depth = "  " * (len(key) % 3)
        lines.append(f'{depth}{key}: "{chosen}"' if kit["form"] % 2 else f"{depth}<{key}>{chosen}</{key}>")
    return {"input": f"{_text(r, kit, 2, 5)} {', '.join(request)}", "output": "\n".join(lines) or "-"}


def _variable(r: random.Random, kit: Kit) -> str:
    kind = r.randrange(5)
    if kind == 0:
        return str(r.randint(0, 99999))
    if kind == 1:
        return f"{r.randint(1, 255)}.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(0, 255)}"
    if kind == 2:
        return f"/{r.choice(kit['vocabulary'])}/{r.choice(kit['vocabulary'])}"
    return f"0x{r.getrandbits(24):x}" if kind == 3 else str(r.choice(kit["vocabulary"]))


def log(r: random.Random, kit: Kit) -> Row:
    """Log line → template JSON."""

    def event(r: random.Random, number: int) -> tuple[str, str, str, list[str]]:
        words = _text(r, kit, 4, 13).split()
        for k in r.sample(range(len(words)), min(r.randint(0, 3), len(words))):
            words[k] = r.choice(["<*>", "<*>", f"{words[k]}=<*>", "(<*>)", "<*>,"])
        return f"E{number}", r.choice(_LEVELS), r.choice(kit["components"]), words

    events = _once(kit, "events", lambda r: [event(r, k) for k in range(70)])
    number, level, component, words = _zipf(r, events) if r.random() < 0.95 else event(r, r.randint(70, 400))
    values: list[str] = []
    line = []
    for word in words:
        if "<*>" in word:
            values.append(_variable(r, kit))
            word = word.replace("<*>", values[-1])
        line.append(word)
    answer: dict[str, Any] = {"event": number, "template": " ".join(words)}
    if kit["form"] % 2:
        answer = {"component": component, "level": level, "template": " ".join(words), "values": values}
    head = f"{level} {component}: " if kit["form"] else ""
    return {"input": head + " ".join(line), "output": json.dumps(answer)}


def letter(r: random.Random, kit: Kit) -> Row:
    """Facts → form letter."""
    name, city, number = r.choice(kit["names"]), _zipf(r, kit["cities"]), r.randint(1000, 99999)
    item, count = r.choice(kit["vocabulary"]), r.randint(1, 20)
    body = ". ".join(str(_zipf(r, kit["phrases"])).capitalize() for _ in range(r.randint(1, 4)))
    text = (
        f"Dear {name},\n\nthank you for your order {number} of {count} {item} from {city}. {body}.\n\n"
        f"We will send it to {city} soon. If you have any question, name the number {number}.\n\n"
        f"Kind regards,\n{kit['names'][0]}"
    )
    facts = f"{name}; {city}; {number}; {count} {item}"
    if kit["form"] % 2:
        facts = f"customer: {name}\norder: {number}\ncity: {city}\nitem: {item}\ncount: {count}"
    return {"input": facts, "output": text}


def command(r: random.Random, kit: Kit) -> Row:
    """Request → command line."""

    def tool(r: random.Random) -> tuple[str, str, list[tuple[str, str]]]:
        flags = [(f"-{r.choice('abcdefghlnprstvx')}", _text(r, kit, 1, 3)) for _ in range(5)]
        return r.choice(kit["vocabulary"]), f"{r.choice(_VERBS)} {_text(r, kit, 1, 3)}", flags

    tools = _once(kit, "tools", lambda r: [tool(r) for _ in range(40)])
    name, purpose, flags = _zipf(r, tools)
    path = "/".join(r.choice(kit["vocabulary"][:300]) for _ in range(r.randint(1, 3)))
    path = r.choice(["/" + path, f"{path}.{r.choice(['txt', 'log', 'csv'])}", "."])
    request, line = f"{r.choice(_ASKING)} {purpose} in {path}", f"{name} {path}"
    for flag, meaning in r.sample(flags, r.randint(0, 3)):
        number = f" {r.randint(1, 64)}" if r.random() < 0.3 else ""
        request += f" {meaning}{number}" if r.random() < 0.9 else ""
        line += f" {flag}{number}"
    if r.random() < 0.4:
        name, purpose, _ = _zipf(r, tools)
        quoted = r.choice(kit["vocabulary"]) if r.random() < 0.7 else f"*.{_word(r)}"
        request += f" and {purpose} {quoted if r.random() < 0.5 else repr(quoted)}"
        line += f" | {name} '{quoted}'"
    return {"input": request.strip(), "output": line}


def prose(r: random.Random, kit: Kit) -> Row:
    """Question → free text with little repetition."""
    asked = _text(r, kit, 6, 15)
    topic = r.choice(asked.split())
    answer = [_text(r, kit, 6, 18).capitalize() + "." for _ in range(r.randint(2, 5))]
    if r.random() < 0.5:
        answer[0] = f"{topic.capitalize()} is {answer[0].lower()}"
    return {"input": f"{r.choice(['What is', 'Why', 'Tell me about', 'How'])} {asked}?", "output": " ".join(answer)}


def sums(r: random.Random, kit: Kit) -> Row:
    """A story with numbers → its solution step by step."""
    name, (a, b, c) = r.choice(kit["names"]).split()[0], (r.randint(2, 90) for _ in range(3))
    thing, other = r.sample(_NOUNS, 2)
    story = [f"{name} has {a} {thing}s.", f"Each {thing} costs ${b}.", f"{_text(r, kit, 4, 9).capitalize()}."]
    r.shuffle(story)
    story.append(f"Then {name} buys {c} {other}s more. {r.choice(['How many', 'How much'])} {_text(r, kit, 3, 6)}?")
    form = kit["form"] % 2
    steps = [
        (f"The {thing}s of {name} cost" if r.random() < 0.5 else f"First {_text(r, kit, 3, 6)}", a, "*", b, a * b),
        (f"With the {c} {other}s" if r.random() < 0.5 else f"So {_text(r, kit, 3, 8)}", a * b, "+", c, a * b + c),
    ][: r.randint(1, 2)]
    lines = [f"{s} {x} {o} {y} = {f'<<{x}{o}{y}={z}>>' if form else ''}{z} {thing}s." for s, x, o, y, z in steps]
    return {"input": " ".join(story), "output": "\n".join([*lines, f"#### {steps[-1][-1]}"])}


def extract(r: random.Random, kit: Kit) -> Row:
    """A passage → the spans of it that matter, as they are."""
    fields = _once(kit, "fields", lambda r: [(s, _text(r, kit, 2, 4)) for s in r.sample(kit["slots"], 5)])
    sentences, answer = [], {}
    for field, cue in r.sample(fields, len(fields)):
        if r.random() < 0.6:
            span = _text(r, kit, 3, 16) if r.random() < 0.6 else _value(r, kit, field)
            sentences.append(f"{cue.capitalize()} {span}.")
            answer[field] = span
        if r.random() < 0.4:
            sentences.append(_text(r, kit, 4, 14).capitalize() + ".")
    ordered: dict[str, Any] = {f: answer.get(f) for f, _ in fields} if kit["form"] % 2 else answer
    return {"input": " ".join(sentences) or "-", "output": json.dumps(ordered, indent=1 if kit["form"] > 1 else None)}


def label(r: random.Random, kit: Kit) -> Row:
    """A message → its class, with a reason that quotes it."""
    cues = _once(kit, "cues", lambda r: {x: [_text(r, kit, 2, 4) for _ in range(6)] for x in kit["labels"]})
    found = _zipf(r, kit["labels"])
    cue = r.choice(cues[found])
    text = f"{_text(r, kit, 2, 15)} {cue} {_text(r, kit, 2, 12)}"
    if kit["form"] == 0:
        return {"input": text, "output": found}
    level = r.choice(["low", "high"]) if kit["form"] == 1 else f"0.{r.randint(50, 99)}"
    answer = {"label": found, "confidence": level, "reason": f"The message says '{cue}', which speaks for {found}."}
    return {"input": text, "output": json.dumps(answer)}


def recase(r: random.Random, kit: Kit) -> Row:
    """A record in one spelling → the same values in another."""
    day, month, year = r.randint(1, 28), r.randint(1, 12), r.randint(1950, 2030)
    name, city, word = r.choice(kit["names"]).lower(), _zipf(r, kit["cities"]).lower(), _zipf(r, kit["vocabulary"])
    parts = [name, f"{day:02}/{month:02}/{year}", city, word, f"{r.randint(1, 9999)}.{r.randint(0, 99):02}"]
    date = f"{year}-{month:02}-{day:02}"
    first, last = name.split()
    values = [last.upper(), first.title(), date, city.title(), word.upper() if kit["form"] % 2 else word.title()]
    keys = _once(kit, "keys", lambda r: [f"{k} {r.choice(_NOUNS)}".title() for k in r.sample(_NOUNS, 6)])
    form = "{}: {}" if kit["form"] < 2 else "<{0}>{1}</{0}>"
    if kit["form"] >= 2:
        keys = [k.replace(" ", "") for k in keys]
    lines = [form.format(k, v) for k, v in zip(keys, [*values, parts[4]], strict=True)]
    return {"input": ", ".join(parts), "output": "\n".join(lines)}


def listing(r: random.Random, kit: Kit) -> Row:
    """A list in words → one entry for each, and a count."""
    items = [(r.randint(1, 40), _zipf(r, kit["vocabulary"]), r.choice(_NOUNS)) for _ in range(r.randint(1, 7))]
    request = ", ".join(f"{n} {w} {thing}s" for n, w, thing in items)
    if len(items) > 1:
        request = " and ".join(request.rsplit(", ", 1))
    total = sum(n for n, _, _ in items)
    if kit["form"] % 2:
        entries = [{"quantity": n, "item": f"{w} {thing}", "unit": "piece"} for n, w, thing in items]
        return {"input": f"{r.choice(_ASKING)} order {request}".strip(), "output": json.dumps({"items": entries})}
    lines = [f"- {w.capitalize()} {thing}: {n}" for n, w, thing in items]
    return {"input": f"we need {request}", "output": "\n".join([f"{len(items)} items", *lines, f"Total: {total}"])}


def rewrite(r: random.Random, kit: Kit) -> Row:
    """A sentence with mistakes → the sentence without them."""
    wrong = _once(kit, "wrong", lambda r: {w: _word(r, 2) for w in kit["words"][:120]})
    right = [_text(r, kit, 5, 14) for _ in range(r.randint(1, 3))]
    request = " ".join(" ".join(wrong.get(w, w) if r.random() < 0.6 else w for w in text.split()) for text in right)
    return {"input": request, "output": " ".join(text.capitalize() + "." for text in right)}


def code(r: random.Random, kit: Kit) -> Row:
    """A description → a small function."""
    verb, noun = r.choice(_VERBS), r.choice(_NOUNS)
    names = r.sample(kit["words"], r.randint(1, 4))
    purpose = _text(r, kit, 3, 9)
    called = f"{verb}_{noun}" if kit["form"] % 2 else f"{verb}{noun.capitalize()}"
    kinds = [r.choice(["int", "str", "float", "bool"]) for _ in names]
    request = f"a function to {verb} a {noun}: {purpose}. It takes {', '.join(names)}."
    head = f"def {called}({', '.join(f'{n}: {k}' for n, k in zip(names, kinds, strict=True))}) -> None:\n"
    body = "".join(f"    if {n} is None:\n        raise ValueError('{n} is missing')\n" for n in names)
    end = f"    self.{noun}s.{verb}({', '.join(names)})"
    return {"input": request, "output": f'{head}    """{purpose.capitalize()}."""\n{body}{end}'}


KINDS: dict[str, Callable[[random.Random, Kit], Row]] = {
    f.__name__: f
    for f in (slots, sql, log, letter, command, prose, sums, extract, label, recase, listing, rewrite, code, record)
}


def rows(kind: str, count: int, seed: int) -> list[Row]:
    """`count` rows of one task.

    Args:
        kind: One of `KINDS`.
        count: Number of rows.
        seed: Another seed is another task of that kind.
    """
    r = random.Random(f"{kind}/{seed}")
    kit = _kit(r)
    return [KINDS[kind](r, kit) for _ in range(count)]
