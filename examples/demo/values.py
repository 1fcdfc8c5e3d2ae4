"""Values that requests mention: names, places, dates, amounts and free text, each as said and as written in JSON.

A pool is a tuple of words; every sixth of them is kept for held-out rows, so that these hold values never seen
among the training rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

Json: TypeAlias = str | int | list[str] | None
Value: TypeAlias = tuple[str, Json]  # as said in the request, as written in the output
Maker: TypeAlias = Callable[["Values"], Value]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


FIRST = _words(
    """
    Maria Tomas Aisha Liam Yuki Priya Omar Elena Noah Ingrid Kwame Sofia Hassan Chloe Diego Mei Anton Fatima Lucas
    Greta Rohan Amara Felix Leila Mateo Nadia Oscar Hana Victor Zainab Emil Rosa Samir Astrid Jonas Carmen Idris
    Freya Paolo Anika Bruno Salma Henrik Lucia Tariq Maeve Andre Sunita Kofi Irina Marcus Delia Arjun Petra Hugo
    Simone Rafael Olga Desmond Akiko Walter Bianca Yusuf Clara Stefan Naomi Gideon Marta Ravi Judith Leon Esther
    Malik Ottilie Nils Farah Ethan Renata Kenji Alba Dmitri Joyce Pascal Thandi Conrad Vera Ismail Louise Edgar Wen
    Magnus Talia Cedric Ines Abdul Monica Sven Gloria Reza Helga
    """
)
LAST = _words(
    """
    Okafor Lindqvist Moreau Tanaka Fernandez Novak Haddad Osei Kowalski Brandt Iyer Castillo Nakamura Petrov Adeyemi
    Sullivan Rossi Chaudhry Eriksen Dubois Mbeki Hartmann Silva Yamada Fitzgerald Benali Kaur Horvath Quinn Zhang
    Marchetti Olsen Abara Romero Keller Popescu Whitfield Sato Mensah Vargas Lehmann Nair Dimitrov Larsen Cohen
    Baptiste Winters Jimenez Farouk Schneider Ito Calloway Bergman Rahman Delgado Novotny Hughes Sandoval Aziz Vogel
    Murphy Tremblay Park Oyelaran Bauer Costa Mistry Hoang Pereira Ashworth Lund Salazar Demir Weiss Acheampong
    Blake Ferrari Solberg Mahmoud Ortega Fischer Bianchi Kimura Stone Ndlovu Harper Ivanova Reyes Steiner Gallagher
    """
)
CITIES = _phrases(
    """
    Lisbon, Oslo, Nairobi, Toronto, Kyoto, Lima, Vienna, Dublin, Accra, Boston, Prague, Cairo, Madrid, Helsinki,
    Austin, Mumbai, Geneva, Porto, Seattle, Warsaw, Tunis, Denver, Hamburg, Seoul, Bogota, Zurich, Athens, Lagos,
    Montreal, Milan, Brisbane, Chicago, Krakow, Dakar, Osaka, Santiago, Brussels, Amman, Phoenix, Riga, Marseille,
    Hanoi, Glasgow, Cape Town, New Orleans, San Diego, Buenos Aires, Kuala Lumpur, Gothenburg, Salzburg, Valencia,
    Leipzig, Ottawa, Auckland, Istanbul, Kampala, Nashville, Turin, Bergen, Antwerp, Portland, Bristol, Manila,
    Tallinn, Sofia, Quito, Houston, Lyon, Perth, Rotterdam, Cork, Malaga, Aarhus, Bordeaux, Casablanca, Medellin,
    Pittsburgh, Nagoya, Graz, Tbilisi, Utrecht, Split, Calgary, Adelaide, Leeds, Bilbao, Trieste, Chennai, Kigali,
    Winnipeg, Bremen, Savannah
    """
)
COMPANIES = tuple(
    f"{stem} {kind}"
    for stem in _words(
        """
        Halcyon Northwind Bluefern Corvus Meridian Tallgrass Ironbridge Solstice Kestrel Verdant Quarry Lumen
        Harborline Redwood Saltmarsh Cobalt Foxglove Granite Juniper Aurora
        """
    )
    for kind in _words("Logistics Foods Systems Partners Textiles Energy Labs Insurance Press")
)
TOPICS = _phrases(
    """
    pricing, hiring, security, onboarding, marketing, budget, roadmap, warehouse, customer feedback, data migration,
    website, supplier, packaging, travel policy, payroll, product launch, brand, translation, quality, inventory,
    mobile app, newsletter, legal, partnership, training, office move, fundraising, accessibility, energy, press,
    holiday party, factory, research, returns, billing, maintenance, recruiting, sales, audit, storage, fleet,
    catering, insurance, design, testing, delivery, contract, support, forecast, safety
    """
)
ACTIVITIES = _phrases(
    """
    review, sync, kickoff, workshop, retrospective, interview, check-in, planning session, standup, demo, briefing,
    handover, lunch, call, walkthrough, deep dive, presentation, brainstorm
    """
)
KINDS = ("", "", "", "weekly ", "quarterly ", "monthly ", "final ", "urgent ", "joint ", "regional ")
CHORES = _phrases(
    """
    water the plants, call the bank, renew my passport, send the slides, pick up the parcel, back up the laptop,
    book the dentist, sign the lease, update the timesheet, pay the electricity bill, order more toner,
    feed the cat, check the smoke alarm, print the badges, return the library books, buy a birthday card,
    charge the headset, submit the tax form, clean the coffee machine, collect the keys, defrost the freezer,
    review the contract, call the plumber, rotate the passwords, ship the samples, thank the volunteers,
    empty the bins, cancel the gym, read the safety manual, invite the new interns, change the air filter,
    confirm the caterer, post the job advert, test the projector, drop off the car, label the boxes
    """
)
NEWS = _phrases(
    """
    the meeting has moved upstairs, I am running ten minutes late, the parcel is at reception, lunch is on me today,
    the build is green again, the client has signed, please bring your badge, the lift is out of order,
    the numbers look good, dinner starts at eight, the train is delayed, we need one more chair,
    the printer is fixed, your visitor is here, the deadline is friday, the samples arrived broken,
    I will call back later, the doors close at nine, the contract is in your inbox, happy birthday,
    the server is down, see you at the gate, the keys are in the drawer, please approve my request,
    the heating is back on, we won the tender, the taxi is waiting outside, the slides need one more chart
    """
)
ITEMS = _phrases(
    """
    printer paper, whiteboard markers, standing desks, USB cables, coffee beans, notebooks, headsets, sticky notes,
    monitor arms, green tea, envelopes, desk lamps, keyboards, paper towels, ballpoint pens, webcams, hand soap,
    folders, power strips, water filters, staplers, hard hats, name badges, batteries, cardboard boxes,
    office chairs, toner cartridges, first aid kits, extension leads, oat milk
    """
)
GOODS = _phrases(
    """
    blue raincoat, desk fan, pair of boots, coffee grinder, wool blanket, phone case, yoga mat, table lamp,
    running jacket, water bottle, tent, bookshelf, frying pan, backpack, wireless mouse, suitcase, garden hose,
    picture frame, toaster, bike helmet, winter coat, chess set, rug, alarm clock, leather belt, kettle,
    sleeping bag, mirror
    """
)
DEVICES = _phrases(
    """
    printer, projector, coffee machine, lift, air conditioner, badge reader, scanner, dishwasher, door lock, router,
    video screen, water dispenser, radiator, vending machine, shredder, card terminal
    """
)
PLACES = _phrases(
    """
    kitchen, lobby, meeting room, warehouse, reception, canteen, server room, basement, library, workshop,
    parking garage, mail room, showroom, east wing, rooftop terrace, copy room, nursery, studio
    """
)
PROBLEMS = _phrases(
    """
    is leaking, will not turn on, makes a loud noise, keeps jamming, is stuck, smells of smoke, shows an error,
    is flickering, has no power, is overheating, does not respond, is out of paper, keeps restarting, is cracked
    """
)
REASONS = _phrases(
    """
    too small, damaged, the wrong colour, not what I ordered, too large, broken, missing a part, scratched,
    a duplicate, too noisy, no longer needed, faulty
    """
)
SUBJECTS = _phrases(
    """
    VPN drops every hour, cannot open shared folder, laptop battery drains fast, missing invoices in the portal,
    screen stays black, emails arrive late, no sound in video calls, calendar does not sync, licence has expired,
    two-factor code never arrives, keyboard types wrong letters, dashboard shows old figures, cannot print to PDF,
    file upload fails, wifi is slow on floor two, phone cannot join the network, password is rejected,
    export button is missing, backup did not run, mouse pointer freezes, attachments are blocked,
    tablet will not charge, search returns nothing, report loads forever
    """
)
RESTAURANTS = tuple(
    f"{first} {second}"
    for first in _words("Golden Olive Blue Copper Old Wild Silver Quiet Little Red")
    for second in _words("Lantern Table Garden Spoon Harbor Kitchen Fig Terrace")
)
SYSTEMS = _phrases("payroll, email, VPN, wiki, CRM, timesheet, booking, warehouse, expenses, intranet")
WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve")
CURRENCIES = (
    ("${}", "USD"), ("{} dollars", "USD"), ("{} euros", "EUR"), ("€{}", "EUR"), ("£{}", "GBP"),
    ("{} pounds", "GBP"), ("{} francs", "CHF"), ("{} USD", "USD"), ("{} EUR", "EUR"),
)  # fmt: skip


class Values:
    """Draws values with one generator of random numbers; `held_out` opens the words that training rows never use."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        """Draws from `rng`, which the caller seeds."""
        self.rng = rng
        self.held_out = held_out

    def pick(self, pool: Sequence[str]) -> str:
        """One of `pool`: a training word, or among held-out rows every other time a word kept for them."""
        reserved = [word for i, word in enumerate(pool) if i % 6 == 5]
        if self.held_out and self.rng.random() < 0.5:
            return self.rng.choice(reserved)
        return self.rng.choice([word for i, word in enumerate(pool) if i % 6 != 5])


def one_of(pool: Sequence[str]) -> Maker:
    """A word of an open pool, written as said."""

    def make(values: Values) -> Value:
        word = values.pick(pool)
        return word, word

    return make


def choice(**written: str) -> Maker:
    """One of a closed list: keys are what is written, values the ways to say it, separated by bars."""

    def make(values: Values) -> Value:
        key = values.rng.choice(list(written))
        return values.rng.choice(written[key].split("|")), key

    return make


def name(values: Values) -> Value:
    """A person, full name."""
    full = f"{values.pick(FIRST)} {values.pick(LAST)}"
    return full, full


def names(values: Values) -> Value:
    """One to three people."""
    people = [name(values)[0] for _ in range(values.rng.choice((1, 1, 2, 2, 3)))]
    said = people[0] if len(people) == 1 else f"{', '.join(people[:-1])} and {people[-1]}"
    return said, list(people)


def title(values: Values) -> Value:
    """The name of a meeting."""
    text = f"{values.rng.choice(KINDS)}{values.pick(TOPICS)} {values.pick(ACTIVITIES)}"
    return text, text


def project(values: Values) -> Value:
    """A project, named after what it is about."""
    text = f"{values.pick(TOPICS)} project"
    return text, text


def email(values: Values) -> Value:
    """An address made of a person and a company."""
    domain = values.pick(COMPANIES).replace(" ", "").lower()
    text = f"{values.pick(FIRST)}.{values.pick(LAST)}@{domain}.example".lower()
    return text, text


def date(values: Values) -> Value:
    """A day: today, a weekday, or month and day, written ``MM-DD``."""
    rng = values.rng
    kind = rng.random()
    if kind < 0.25:
        word = rng.choice(("today", "tomorrow"))
        return word, word
    if kind < 0.55:
        weekday = rng.choice(WEEKDAYS)
        ahead = rng.choice(("", "", "next "))
        return ahead + weekday, (ahead + weekday).lower()
    month, day = rng.randrange(12), rng.randint(1, 28)
    spoken, ordinal = MONTHS[month], _ordinal(day)
    said = rng.choice((f"{spoken} {day}", f"{spoken} {ordinal}", f"{day} {spoken}", f"the {ordinal} of {spoken}"))
    return said, f"{month + 1:02}-{day:02}"


def _ordinal(day: int) -> str:
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


def time(values: Values) -> Value:
    """A time of day, written ``HH:MM``."""
    rng = values.rng
    hour, minute = rng.randint(7, 21), rng.choice((0, 0, 0, 15, 30, 30, 45))
    twelve = (hour - 1) % 12 + 1
    half = "am" if hour < 12 else "pm"
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    minutes = f":{minute:02}" if minute else ""
    ways = [f"{twelve}{minutes} {half}", f"{twelve}{minutes}{half}", f"{hour}:{minute:02}", f"{twelve}{minutes} {part}"]
    if (hour, minute) == (12, 0):
        ways.append("noon")
    return rng.choice(ways), f"{hour:02}:{minute:02}"


def duration(values: Values) -> Value:
    """A length of time, written in minutes."""
    ways = (("an hour", 60), ("half an hour", 30), ("two hours", 120), ("an hour and a half", 90), ("1 hour", 60))
    ways += tuple((f"{n} minutes", n) for n in (15, 20, 25, 40, 45, 50, 75, 90))
    return values.rng.choice(ways)


def count(low: int, high: int) -> Maker:
    """A whole number, said as a word or in digits."""

    def make(values: Values) -> Value:
        number = values.rng.randint(low, high)
        spoken = values.rng.random() < 0.4 and number < len(NUMBERS)
        return (NUMBERS[number] if spoken else str(number)), number

    return make


def amount(values: Values) -> Value:
    """A sum of money, written with two decimals and the currency's code."""
    cents = values.rng.choice((0, 0, 0, 50, 90, 25, 99))
    whole = values.rng.choice((values.rng.randint(3, 99), values.rng.randint(100, 2500)))
    form, code = values.rng.choice(CURRENCIES)
    return form.format(f"{whole}.{cents:02}" if cents else whole), f"{whole}.{cents:02} {code}"


def code(shape: str) -> Maker:
    """An identifier of a shape, where ``A`` stands for a letter and ``0`` for a digit."""
    drawn = {"A": "ABCDEFGHJKLMNPQRSTUVWXYZ", "0": "0123456789"}

    def make(values: Values) -> Value:
        text = "".join(values.rng.choice(drawn[letter]) if letter in drawn else letter for letter in shape)
        return text, text

    return make
