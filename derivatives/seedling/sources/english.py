"""Generated English: little stories and plain statements of fact from a small grammar."""

from random import Random

from .items import in_words
from .words import (
    ADJECTIVES,
    COLOURS,
    CONTAINERS,
    FEELINGS,
    LEGS,
    NAMES,
    NOUNS,
    PARTS,
    PLACES,
    SHOPS,
    THINGS,
    VERBS_PAST,
    counted,
    plural,
    words_of,
)

WEEK = words_of("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words_of("January February March April May June July August September October November December")


def sentence(rng: Random, hero: str, friend: str) -> str:
    thing, place, verb = rng.choice(THINGS), rng.choice(PLACES), rng.choice(VERBS_PAST)
    return rng.choice([
        f"{hero} {verb} a {rng.choice(ADJECTIVES)} {thing} near the {place}.",
        f"The {thing} was {rng.choice(COLOURS)}, and {friend} {verb} it too.",
        f"{friend} said that the {place} was too {rng.choice(ADJECTIVES)}.",
        f'"Where is my {thing}?" asked {hero}.',
        f'"It is in the {rng.choice(CONTAINERS)} by the {place}," said {friend}.',
        f"They walked to the {rng.choice(SHOPS)} because the {rng.choice(NOUNS)} was waiting there.",
        f"After that, {hero} felt {rng.choice(FEELINGS)} and went home.",
        f"On {rng.choice(WEEK)} it rained, so they stayed inside and {verb} the {plural(thing)}.",
        f"There were {in_words(rng.randint(2, 20))} {plural(thing)} on the table, "
            f"and {friend} {verb} all of them.",
        f"A {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} came by and {verb} {hero}'s {thing}.",
        f"{hero} wanted to know why the {rng.choice(NOUNS)} looked so {rng.choice(FEELINGS)}.",
        f"If the {thing} is not here, then it must be at the {place}.",
        f"{friend} had never seen such a {rng.choice(ADJECTIVES)} {rng.choice(sorted(LEGS))} before.",
    ])  # fmt: skip


def story(rng: Random) -> str:
    hero, friend = rng.sample(NAMES, 2)
    opening = rng.choice([
        f"Once there was a {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} called {hero} "
        f"who lived near the {rng.choice(PLACES)}.",
        f"One day {hero} and {friend} went to the {rng.choice(PLACES)}.",
        f"It was {rng.choice(WEEK)} in {rng.choice(MONTHS)}, and {hero} was {rng.choice(FEELINGS)}.",
    ])  # fmt: skip
    ending = rng.choice([f"In the end {hero} and {friend} were friends.", f"{hero} never forgot that day.", "The end."])
    lines = [opening, *(sentence(rng, hero, friend) for _ in range(rng.randint(3, 9))), ending]
    return rng.choice((" ", " ", "\n")).join(lines)


def fact(rng: Random) -> str:
    animal, (kind, part, each) = rng.choice(sorted(LEGS)), rng.choice(PARTS)
    legs, day, month = LEGS[animal], rng.randrange(7), rng.randrange(12)
    n = rng.randint(2, 15)
    same = rng.choice([other for other in LEGS if LEGS[other] == legs])
    return rng.choice([
        f"A {animal} has {counted(legs, 'leg')}.",
        f"A {animal} has {in_words(legs) if legs else 'no'} legs.",
        f"{plural(animal).capitalize()} have {legs} legs each, so {counted(n, animal)} have {n * legs} legs.",
        f"Every {animal} walks on {legs} legs." if legs else f"A {animal} has no legs: 0 legs.",
        f"A {animal} has as many legs as a {same}: {legs}.",
        f"A {kind} has {counted(each, part)}.",
        f"{counted(n, kind).capitalize()} have {n * each} {plural(part)}.",
        f"After {WEEK[day]} comes {WEEK[(day + 1) % 7]}, and before it {WEEK[day - 1]}.",
        f"{MONTHS[month]} is month number {month + 1} of the year.",
        f"The number {n} is written {in_words(n)}.",
        f"The word {animal} has {len(animal.replace(' ', ''))} letters and begins with {animal[0]}.",
    ])  # fmt: skip


def facts(rng: Random) -> str:
    return rng.choice((" ", "\n", "\n- ")).join(fact(rng) for _ in range(rng.randint(4, 14)))


def document(rng: Random) -> str:
    return story(rng) if rng.random() < 0.5 else facts(rng)
