"""What people ask the assistant for: each intent's slots, and the ways to say it in the grammar of `grammar.py`."""

from __future__ import annotations

from dataclasses import dataclass

import values as v


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that can be asked for: its slots in the order of the output, and how people say it."""

    domain: str
    name: str
    slots: dict[str, v.Maker]
    phrases: tuple[str, ...]


INTENTS = (
    Intent(
        "calendar",
        "create_event",
        {"title": v.title, "date": v.date, "time": v.time, "minutes": v.duration, "attendees": v.names},
        (
            "(schedule|set up|book|put) a {title} (with {attendees} |)(on|for) {date} at {time}( for {minutes}|)",
            "(add|create) (a meeting called|an event named) {title} on {date}( at {time}|)( and invite {attendees}|)",
            "(schedule|arrange|plan) {minutes} with {attendees} on {date} for the {title}",
            "invite {attendees} to a {title} at {time}( on {date}|)(, it takes {minutes}|)",
        ),
    ),
    Intent(
        "calendar",
        "move_event",
        {"title": v.title, "old_date": v.date, "new_date": v.date, "new_time": v.time},
        (
            "(move|push|shift|reschedule) (the|my) {title} (from {old_date} |)to {new_date}( at {new_time}|)",
            "(change|move) the time of the {title} to {new_time}( on {new_date}|)",
            "I cannot make the {title} on {old_date}, (move|push) it to {new_date}( at {new_time}|)",
        ),
    ),
    Intent(
        "calendar",
        "cancel_event",
        {"title": v.title, "date": v.date, "notify": v.names},
        (
            "(cancel|call off|drop|delete) (the|my) {title}( on {date}|)( and (tell {notify}|let {notify} know)|)",
            "(remove|take) the {title} (off|from) my calendar( for {date}|)",
            "the {title} on {date} is not happening, (tell|inform) {notify}",
        ),
    ),
    Intent(
        "calendar",
        "find_free_time",
        {"attendees": v.names, "date": v.date, "minutes": v.duration},
        (
            "(find|look for) {minutes} (when I can meet|with) {attendees}( on {date}|)",
            "when (is|are) {attendees} free( on {date}|)( for {minutes}|)",
            "(find|suggest) a free slot( of {minutes}|) on {date} (with|for) {attendees}",
        ),
    ),
    Intent(
        "office",
        "book_room",
        {
            "people": v.count(2, 24),
            "date": v.date,
            "time": v.time,
            "minutes": v.duration,
            "equipment": v.choice(projector="a projector|the projector", whiteboard="a whiteboard", phone="a phone"),
        },
        (
            "(book|reserve|get me) a (room|meeting room) for {people} (people |)(on|for) {date} at {time}"
            "( for {minutes}|)( with {equipment}|)",
            "(I need|we need|find) a room (with {equipment} |)for {people} (people |)(on {date}|at {time})",
            "is there a room free {date} at {time} for {people} (people|of us)(, we need {equipment}|)",
        ),
    ),
    Intent(
        "office",
        "report_fault",
        {"device": v.one_of(v.DEVICES), "place": v.one_of(v.PLACES), "problem": v.one_of(v.PROBLEMS)},
        (
            "(report that |tell facilities that |)the {device} (in|near|by) the {place} {problem}",
            "(send someone to|take a look at) the {place}, the {device} {problem}",
            "(log|raise|file) a fault: {device} {problem}(, {place}|)",
        ),
    ),
    Intent(
        "office",
        "order_supplies",
        {"item": v.one_of(v.ITEMS), "quantity": v.count(2, 60), "place": v.one_of(v.PLACES), "needed_by": v.date},
        (
            "(order|buy|get) {quantity} (packs of|boxes of|more) {item}( for the {place}|)( by {needed_by}|)",
            "we (have run out of|are low on|need more) {item}( in the {place}|), (order|get) {quantity}",
            "the {place} needs {quantity} {item}( by {needed_by}|)",
        ),
    ),
    Intent(
        "office",
        "register_visitor",
        {"visitor": v.name, "company": v.one_of(v.COMPANIES), "host": v.name, "date": v.date, "time": v.time},
        (
            "(register|sign in|announce) {visitor} (from|of) {company}( for {date}|)( at {time}|)(, host {host}|)",
            "{visitor} from {company} (visits|is coming to see) {host} (on {date}|{date})( at {time}|)",
            "(expect|prepare a badge for) {visitor}( of {company}|) {date} at {time}",
        ),
    ),
    Intent(
        "building",
        "set_temperature",
        {"place": v.one_of(v.PLACES), "celsius": v.count(15, 26), "from_time": v.time, "to_time": v.time},
        (
            "(set|turn|change) the (temperature|heating) in the {place} to {celsius} degrees( from {from_time}|)",
            "(make|keep) the {place} at {celsius} degrees( from {from_time} (to|until) {to_time}|)",
            "it is too (cold|warm) in the {place}, (make it|set it to) {celsius}( until {to_time}|)",
        ),
    ),
    Intent(
        "building",
        "set_lights",
        {
            "place": v.one_of(v.PLACES),
            "state": v.choice(on="on", off="off"),
            "percent": v.count(5, 100),
            "at_time": v.time,
        },
        (
            "(turn|switch) {state} the lights in the {place}( at {at_time}|)",
            "(turn|switch) the {place} lights {state}( at {at_time}|)",
            "(dim|set) the lights in the {place} to {percent} (percent|%)( at {at_time}|)",
        ),
    ),
    Intent(
        "travel",
        "book_flight",
        {
            "from_city": v.one_of(v.CITIES),
            "to_city": v.one_of(v.CITIES),
            "date": v.date,
            "cabin": v.choice(economy="economy|economy class", business="business|business class", first="first class"),
            "passengers": v.count(2, 6),
        },
        (
            "(book|find|get) (me |)(a flight|flights) from {from_city} to {to_city} (on|for) {date}"
            "( in {cabin}|)( for {passengers}|)",
            "(I need to|I have to|I want to) fly (from {from_city} |)to {to_city} (on {date}|{date})( in {cabin}|)",
            "fly {passengers} (people|of us) to {to_city} from {from_city}( {date}|)(, {cabin}|)",
        ),
    ),
    Intent(
        "travel",
        "book_hotel",
        {"city": v.one_of(v.CITIES), "check_in": v.date, "nights": v.count(1, 12), "guests": v.count(2, 5)},
        (
            "(book|find|reserve) (me |)a hotel in {city} (from|starting) {check_in} for {nights} nights"
            "( for {guests} (guests|people)|)",
            "(I need|we need) a (room|place to stay) in {city} for {nights} nights( from {check_in}|)",
            "{nights} nights in {city} (from|starting) {check_in}(, {guests} guests|)",
        ),
    ),
    Intent(
        "travel",
        "book_train",
        {"from_city": v.one_of(v.CITIES), "to_city": v.one_of(v.CITIES), "date": v.date, "depart_after": v.time},
        (
            "(book|get|reserve) (me |)a (train|train ticket|seat on the train) from {from_city} to {to_city} on {date}"
            "( after {depart_after}|)",
            "(which train goes|take the train) to {to_city} (from {from_city} |)(on {date}|{date})(, not before "
            "{depart_after}|)",
            "a train (ticket |)to {to_city} from {from_city} after {depart_after}( {date}|)",
        ),
    ),
    Intent(
        "travel",
        "book_taxi",
        {
            "pickup": v.one_of(
                tuple(
                    f"{n} {s}"
                    for s in ("Mill Lane", "Station Road", "Harbor Street", "King Square")
                    for n in range(2, 60)
                )
            ),
            "destination": v.choice(
                airport="the airport",
                station="the station|the train station",
                office="the office",
                hotel="the hotel|my hotel",
                harbor="the harbor",
            ),
            "date": v.date,
            "time": v.time,
            "passengers": v.count(2, 6),
        },
        (
            "(book|order|call|get) a (taxi|cab) (from {pickup} |)to {destination} (at {time}|for {time})( on {date}|)"
            "( for {passengers} people|)",
            "(pick me up|send a taxi) at {pickup} (at|by) {time}( {date}|), (I am going|going) to {destination}",
            "we are {passengers} and need a (cab|taxi) to {destination} from {pickup}( at {time}|)",
        ),
    ),
    Intent(
        "money",
        "submit_expense",
        {
            "amount": v.amount,
            "category": v.choice(
                meals="lunch|dinner|a meal",
                travel="a train ticket|a taxi|the flight",
                lodging="the hotel|a hotel room",
                software="software|a licence",
                training="a course|training",
                equipment="equipment|a monitor",
            ),
            "date": v.date,
            "project": v.project,
        },
        (
            "(expense|claim|submit) {amount} for {category}( on {date}|)( for the {project}|)",
            "I (spent|paid) {amount} (on|for) {category}( {date}|)(, charge it to the {project}|)",
            "(file|add) an expense of {amount} (to|for) the {project}, it was for {category}( on {date}|)",
        ),
    ),
    Intent(
        "money",
        "pay_invoice",
        {"invoice": v.code("INV-00000"), "supplier": v.one_of(v.COMPANIES), "amount": v.amount, "due": v.date},
        (
            "(pay|settle) (invoice |){invoice} (from|of) {supplier}( by {due}|)( over {amount}|)",
            "(transfer|send) {amount} to {supplier} for (invoice |){invoice}(, due {due}|)",
            "{supplier} (sent|billed) us {amount}, (pay it|settle it) by {due}",
        ),
    ),
    Intent(
        "money",
        "transfer_money",
        {
            "to": v.name,
            "amount": v.amount,
            "account": v.choice(
                checking="checking|my checking account",
                savings="savings|my savings account",
                business="the business account",
            ),
            "date": v.date,
            "note": v.one_of(tuple(f"{topic} costs" for topic in v.TOPICS)),
        },
        (
            "(send|transfer|wire) {amount} to {to}( from {account}|)( {date}|)( with the note {note}|)",
            "(pay|give) {to} {amount} (from|out of) {account}( on {date}|)",
            "I owe {to} {amount} for the {note}, (pay|send) it( {date}|)( from {account}|)",
        ),
    ),
    Intent(
        "orders",
        "track_order",
        {"order": v.code("A0-00000"), "item": v.one_of(v.GOODS), "expected": v.date},
        (
            "where is (my order|order) {order}( with the {item}|)(, it was due {expected}|)",
            "(track|check|look up) (order |){order}( for me|)",
            "my {item} (has not arrived|did not come)(, order {order}|)(, you promised it for {expected}|)",
        ),
    ),
    Intent(
        "orders",
        "return_item",
        {
            "order": v.code("A0-00000"),
            "item": v.one_of(v.GOODS),
            "reason": v.one_of(v.REASONS),
            "wants": v.choice(refund="a refund|my money back", exchange="an exchange|another one|a new one"),
        },
        (
            "(I want to return|return|send back) the {item} from order {order}(, it is {reason}|)( and get {wants}|)",
            "the {item} (I bought |)is {reason}, I want {wants}( for order {order}|)",
            "order {order}: the {item} came and is {reason}(, I would like {wants}|)",
        ),
    ),
    Intent(
        "support",
        "reset_password",
        {"system": v.one_of(v.SYSTEMS), "email": v.email},
        (
            "(reset|change) (the|my) {system} password( for {email}|)",
            "{email} (is locked out of|cannot log in to|lost access to) the {system} system",
            "I forgot my password for the {system} system(, my address is {email}|)",
        ),
    ),
    Intent(
        "support",
        "open_ticket",
        {
            "subject": v.one_of(v.SUBJECTS),
            "priority": v.choice(low="low|minor", normal="normal|medium", high="high|urgent"),
            "contact": v.email,
        },
        (
            "(open|create|file) a (ticket|{priority} priority ticket): {subject}( and (write|reply) to {contact}|)",
            "(log|raise) an issue for {contact}: {subject}(, {priority} priority|)",
            "{subject}, (open a ticket|tell IT)(, this is {priority}|)(, contact {contact}|)",
        ),
    ),
    Intent(
        "messages",
        "send_message",
        {
            "to": v.names,
            "channel": v.choice(email="an email|a mail", sms="a text|an SMS", chat="a chat message|a message"),
            "text": v.one_of(v.NEWS),
        },
        (
            "(send|write) {channel} to {to} (saying|that says) {text}",
            "(tell {to}|let {to} know) that {text}",
            "(message|ping|notify) {to}: {text}",
        ),
    ),
    Intent(
        "messages",
        "set_reminder",
        {"text": v.one_of(v.CHORES), "date": v.date, "time": v.time},
        (
            "remind me to {text} (on {date}|{date})( at {time}|)",
            "(set|create|add) a reminder (for {time} |)to {text}( {date}|)",
            "(do not let me|I must not) forget to {text}( at {time}|)( {date}|)",
        ),
    ),
    Intent(
        "people",
        "request_leave",
        {
            "kind": v.choice(vacation="vacation|holiday|time off", sick="sick leave", parental="parental leave"),
            "first_day": v.date,
            "last_day": v.date,
            "cover": v.name,
        },
        (
            "(request|book|enter) {kind} (from|starting) {first_day} (to|until|through) {last_day}"
            "(, {cover} (covers for me|will cover)|)",
            "I (take|need) {kind} (on|from) {first_day}(, {cover} covers for me|)",
            "(put me down for|apply for) {kind} until {last_day}( from {first_day}|)",
        ),
    ),
    Intent(
        "dining",
        "reserve_table",
        {
            "restaurant": v.one_of(v.RESTAURANTS),
            "people": v.count(2, 12),
            "date": v.date,
            "time": v.time,
            "name": v.name,
        },
        (
            "(book|reserve|get) a table (for {people} |)at {restaurant} (on|for) {date}( at {time}|)( under {name}|)",
            "(dinner|lunch|a table) for {people} at {restaurant}( {date}|) at {time}(, name {name}|)",
            "(see if|ask whether) {restaurant} has a table for {people} {date}( at {time}|)",
        ),
    ),
)
