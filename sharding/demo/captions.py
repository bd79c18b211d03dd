"""Captions of the demo corpus: what a person or a machine would write about a scene of known events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Rng = np.random.Generator
TIMES = ("", " once", " twice", " three times", " four times", " five times")


@dataclass(frozen=True)
class Event:
    """One sound in a clip, and how it sounds."""

    name: str  # a key of sharding.demo.sounds.SOUNDS
    onset_s: float
    offset_s: float
    shade: int  # 0 or 1: which of the two adjectives describes it
    count: int  # how often it occurs; 0 where this cannot be counted
    far: bool  # it comes from a distance


@dataclass(frozen=True)
class Words:
    """How a sound is described: two adjectives, clauses of a person with a gap for one, and the clause of a machine."""

    adjectives: tuple[str, str]
    clauses: tuple[str, ...]
    machine: str


WORDS: dict[str, Words] = {
    "alarm": Words(
        ("slow", "rapid"),
        ("a {} alarm beeps", "a {} electronic alarm is beeping", "an {} alarm goes off with {} beeps"),
        "an alarm is beeping",
    ),
    "bell": Words(
        ("small", "big"),
        ("a {} bell rings", "a {} bell is struck", "a {} bell tolls"),
        "a bell is ringing",
    ),
    "bird": Words(
        ("lone", "lively"),
        ("a {} bird chirps", "a {} bird is singing", "a {} bird tweets in a tree"),
        "a bird is chirping",
    ),
    "cat": Words(("young", "grown"), ("a {} cat meows", "a {} cat is meowing", "a {} cat mews"), "a cat is meowing"),
    "clock": Words(
        ("slow", "fast"),
        ("a {} clock ticks", "a {} clock is ticking", "the tick-tock of a {} clock is heard"),
        "a clock is ticking",
    ),
    "crickets": Words(
        ("steady", "pausing"),
        ("{} crickets chirp", "{} crickets are trilling", "{} crickets sing at night"),
        "crickets are chirping",
    ),
    "dog": Words(("small", "large"), ("a {} dog barks", "a {} dog is barking", "a {} dog yaps"), "a dog is barking"),
    "drops": Words(
        ("slow", "quick"),
        ("{} drops of water drip", "water drips in {} drops", "a tap drips with {} drops"),
        "water is dripping",
    ),
    "engine": Words(
        ("idling", "racing"),
        ("a {} engine runs", "a {} motor rumbles", "the {} engine of a car drones"),
        "an engine is running",
    ),
    "footsteps": Words(
        ("slow", "hurried"),
        ("a person walks with {} footsteps", "{} footsteps pass", "someone takes {} steps"),
        "someone is walking",
    ),
    "frog": Words(
        ("quick", "slow"),
        ("a {} frog croaks", "a {} frog is croaking", "a {} frog calls"),
        "a frog is croaking",
    ),
    "horn": Words(
        ("high", "deep"),
        ("a {} car horn honks", "a {} horn is blown", "a car honks its {} horn"),
        "a car horn is honking",
    ),
    "hum": Words(
        ("low", "higher"),
        ("a {} electric hum drones on", "a machine hums with a {} tone", "a {} mains hum is heard"),
        "a machine is humming",
    ),
    "knocking": Words(
        ("light", "heavy"),
        (
            "someone knocks with a {} hand",
            "a {} knock on a door is heard",
            "a person makes a {} knock on wood",
        ),
        "someone is knocking",
    ),
    "laughter": Words(
        ("young", "adult"),
        ("a {} person laughs", "a {} voice is laughing", "a {} person giggles"),
        "a person is laughing",
    ),
    "rain": Words(
        ("light", "heavy"),
        ("{} rain falls", "{} rain patters on the ground", "{} rain is pouring"),
        "rain is falling",
    ),
    "saw": Words(
        ("slow", "quick"),
        ("a {} saw cuts wood", "someone saws wood with {} strokes", "a {} handsaw rasps"),
        "wood is being sawed",
    ),
    "siren": Words(
        ("slow", "rapid"),
        ("a {} siren wails", "a {} siren is wailing", "an ambulance passes with a {} siren"),
        "a siren is wailing",
    ),
    "telephone": Words(
        ("trilling", "warbling"),
        ("a {} telephone rings", "a {} phone is ringing", "a {} phone rings on a desk"),
        "a telephone is ringing",
    ),
    "thunder": Words(
        ("rolling", "cracking"),
        ("{} thunder rumbles", "{} thunder is heard", "{} thunder roars in a storm"),
        "thunder is rumbling",
    ),
    "typing": Words(
        ("slow", "rapid"),
        ("a person types with {} strokes", "{} typing on a keyboard is heard", "someone does some {} typing"),
        "someone is typing",
    ),
    "waves": Words(
        ("long", "short"),
        ("{} waves roll onto a beach", "{} waves wash ashore", "{} waves of the sea break"),
        "waves are crashing",
    ),
    "whistle": Words(
        ("rising", "falling"),
        ("a person gives a {} whistle", "a {} whistle is heard", "someone whistles a {} note"),
        "a person is whistling",
    ),
    "wind": Words(("soft", "howling"), ("{} wind blows", "{} wind gusts", "a {} wind is blowing"), "wind is blowing"),
}

IN_TURN = (
    "{a}, then {b}",
    "{a} and then {b}",
    "{a}, and after that {b}",
    "{b} after {a}",
    "first {a}, and later {b}",
    "{a} before {b}",
    "after {a}, {b}",
)
TOGETHER = ("{a} while {b}", "{a} as {b}", "{b} and at the same time {a}")
MACHINE = ("{a} and {b}", "{a} while {b}", "{a}, {b}")


def clause(rng: Rng, event: Event, detail: float = 0.7) -> str:
    """One event in words; each of its attributes is mentioned with probability ``detail``."""
    words = WORDS[event.name]
    adjective = words.adjectives[event.shade] if rng.random() < detail else ""
    text = str(rng.choice(words.clauses)).replace("{}", adjective)
    if event.count and rng.random() < detail:
        text += TIMES[event.count]
    if rng.random() < detail:
        text += " in the distance" if event.far else str(rng.choice((" nearby", "", "", "")))
    text = re.sub(" +", " ", text).strip()
    return re.sub(r"\ba(?= [aeiou])", "an", re.sub(r"\ban(?= [^aeiou])", "a", text))


def overlaps(first: Event, second: Event) -> bool:
    """Whether the second event starts well before the first one ends."""
    return second.onset_s < first.offset_s - 0.5 * (second.offset_s - second.onset_s)


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + "."


def human_caption(rng: Rng, events: Sequence[Event]) -> str:
    """A caption as a person writes it, with every event and their order."""
    text = clause(rng, events[0])
    for before, event in pairwise(events):
        form = str(rng.choice(TOGETHER if overlaps(before, event) else IN_TURN[:5] if len(events) > 2 else IN_TURN))
        text = form.format(a=text, b=clause(rng, event))
    return sentence(text)


def machine_caption(rng: Rng, events: Sequence[Event]) -> str:
    """A caption as a language model writes it from tags, with every sound but not always in order."""
    parts = [WORDS[event.name].machine for event in events]
    if len(parts) > 1 and rng.random() < 0.3:
        rng.shuffle(parts)
    text = parts[0]
    for part in parts[1:]:
        text = str(rng.choice(MACHINE)).format(a=text, b=part)
    return sentence(text)


def distinct_captions(rng: Rng, events: Sequence[Event], count: int) -> list[str]:
    """``count`` captions of persons, all different if the events allow it."""
    texts: list[str] = []
    for _ in range(200):
        text = human_caption(rng, events)
        if text not in texts:
            texts.append(text)
        if len(texts) == count:
            return texts
    return (texts * count)[:count]
