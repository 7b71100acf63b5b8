"""Generated word problems of one to three steps, and retrieval from the text, all from our own templates."""

from collections.abc import Callable
from random import Random

from .items import Item, write_items
from .words import CONTAINERS, LEGS, NAMES, PARTS, SHOPS, THINGS, counted, plural

TIMES_SIGNS = "xxx**"
NAIVE_PLURAL = 0.4  # Share of animal lists with a bare -s, as careless writers (and programs) put it.


def small(rng: Random) -> int:
    return rng.randint(1, 15) if rng.random() < 0.7 else rng.randint(2, 60)


def weighted_total(rng: Random, kinds: list[tuple[int, str, int]], *, lookup: bool) -> tuple[str, ...]:
    """Steps of "so many of each, so much per one": products, then a running sum."""
    sign = rng.choice(TIMES_SIGNS)
    steps = [
        (f"{name}: " if lookup else "") + f"{count} {sign} {value} = {count * value}" for count, name, value in kinds
    ]
    total = kinds[0][0] * kinds[0][2]
    if rng.random() < 0.3 and len(kinds) > 1:
        values = [count * value for count, _, value in kinds]
        return (*steps, " + ".join(map(str, values)) + f" = {sum(values)}")
    for count, _, value in kinds[1:]:
        steps.append(f"{total} + {count * value} = {total + count * value}")
        total += count * value
    return tuple(steps)


def listed(rng: Random, parts: list[str]) -> str:
    if len(parts) == 1 or rng.random() < 0.5:
        return ", ".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def legs(rng: Random) -> Item:
    """Legs of several kinds of animals in one place."""
    names = rng.sample(sorted(LEGS), rng.choices((1, 2, 3, 4, 5), weights=(1, 4, 4, 1, 1))[0])
    kinds = [(rng.randint(1, 15), name, LEGS[name]) for name in names]
    naive = rng.random() < NAIVE_PLURAL
    parts = [f"{n} {name}{'s' if n > 1 else ''}" if naive else counted(n, name) for n, name, _ in kinds]
    animals = listed(rng, parts)
    ask = rng.choice(
        [
            "There are {} in a field. How many legs do they have altogether?",
            "{name} sees {}. How many legs does {name} see?",
            "Legs of {}:",
            "A drawing shows {}. Find the number of legs in it.",
            "How many legs have {}?",
            "In the {shop} we meet {}. What is the number of legs?",
            "Count every leg of these: {}.",
        ]
    )
    question = ask.format(animals, name=rng.choice(NAMES), shop=rng.choice(SHOPS))
    total = sum(count * value for count, _, value in kinds)
    return Item(question, weighted_total(rng, kinds, lookup=rng.random() < 0.6), str(total))


def legs_of_one(rng: Random) -> Item:
    animal = rng.choice(sorted(LEGS))
    ask = rng.choice(
        [
            "How many legs does a {} have?",
            "Legs of one {}:",
            "{} - number of legs?",
            "Number of legs on a {}?",
        ]
    )
    return Item(ask.format(animal), (), str(LEGS[animal]))


def parts_of(rng: Random) -> Item:
    kind, part, each = rng.choice(PARTS)
    n = rng.randint(1, 15)
    question = rng.choice(["How many {parts} are there in {}?", "{} have how many {parts}?", "Count the {parts}: {}."])
    question = question.format(counted(n, kind), parts=plural(part))
    return Item(question, (f"one {kind} has {counted(each, part)}", f"{n} x {each} = {n * each}"), str(n * each))


def gain_and_loss(rng: Random) -> Item:
    """Something is had, then given and taken a few times."""
    name, other = rng.sample(NAMES, 2)
    thing = plural(rng.choice(THINGS))
    total = number = rng.randint(3, 99)
    text, steps = [f"{name} has {number} {thing}."], []
    for _ in range(rng.choices((1, 2, 3), weights=(4, 4, 1))[0]):
        amount = small(rng)
        if rng.random() < 0.5 or amount > total:
            text.append(
                rng.choice(
                    [
                        f"{other} gives {name} {amount} more.",
                        f"{name} buys {amount} {thing}.",
                        f"Then {name} finds {amount}.",
                    ]
                )
            )
            steps.append(f"{total} + {amount} = {total + amount}")
            total += amount
        else:
            text.append(
                rng.choice(
                    [
                        f"{name} gives {amount} to {other}.",
                        f"{amount} of them get lost.",
                        f"{name} sells {amount} {thing}.",
                    ]
                )
            )
            steps.append(f"{total} - {amount} = {total - amount}")
            total -= amount
    ask = rng.choice(
        [
            f"How many {thing} does {name} have now?",
            f"How many {thing} are left with {name}?",
            f"Now how many {thing}?",
        ]
    )
    return Item(" ".join([*text, ask]), tuple(steps), str(total))


def containers(rng: Random) -> Item:
    """Equal groups, then something more or less."""
    name, thing, box = rng.choice(NAMES), plural(rng.choice(THINGS)), rng.choice(CONTAINERS)
    n, each = rng.randint(2, 15), rng.randint(2, 15)
    text = rng.choice(
        [
            f"{name} has {counted(n, box)} with {each} {thing} in each.",
            f"Each {box} holds {each} {thing} and there are {n}.",
            f"In the {rng.choice(SHOPS)} stand {counted(n, box)} of {each} {thing}.",
        ]
    )
    steps, total = [f"{n} {rng.choice(TIMES_SIGNS)} {each} = {n * each}"], n * each
    if rng.random() < 0.5:
        extra = small(rng)
        if extra > total or rng.random() < 0.5:
            text += f" There are {extra} more on the floor."
            steps.append(f"{total} + {extra} = {total + extra}")
            total += extra
        else:
            text += f" Then {extra} are taken away."
            steps.append(f"{total} - {extra} = {total - extra}")
            total -= extra
    return Item(f"{text} How many {thing} is that?", tuple(steps), str(total))


def shopping(rng: Random) -> Item:
    """A price list that must be looked up, and an order."""
    prices = {thing: rng.randint(1, 14) for thing in rng.sample(THINGS, rng.randint(2, 5))}
    order = rng.sample(sorted(prices), rng.randint(1, min(3, len(prices))))
    kinds = [(rng.randint(1, 15), thing, prices[thing]) for thing in order]
    text = "Prices: " + ", ".join(f"{thing} {price}" for thing, price in prices.items()) + "."
    text += (
        f" {rng.choice(NAMES)} buys "
        + listed(rng, [counted(n, thing) for n, thing, _ in kinds])
        + ". What is the cost?"
    )
    steps = weighted_total(rng, kinds, lookup=rng.random() < 0.5)
    return Item(text, steps, str(sum(n * price for n, _, price in kinds)))


def ages_and_more(rng: Random) -> Item:
    first, second = rng.sample(NAMES, 2)
    a, d, times = rng.randint(2, 60), rng.randint(1, 30), rng.randint(2, 6)
    return rng.choice(
        [
            Item(
                f"{first} is {a} years old. {second} is {d} years older. How old is {second}?",
                (f"{a} + {d} = {a + d}",),
                str(a + d),
            ),
            Item(
                f"{first} ran {a + d} metres, {second} {d} metres less. How far did {second} run?",
                (f"{a + d} - {d} = {a}",),
                str(a),
            ),
            Item(
                f"{first} has {a} points and {second} {times} times as many. How many have both?",
                (f"{times} x {a} = {times * a}", f"{a} + {times * a} = {a + times * a}"),
                str(a + times * a),
            ),
            Item(
                f"{times} friends share {times * a} sweets equally. How many does each get?",
                (f"{times * a} / {times} = {a}",),
                str(a),
            ),
            Item(
                f"{first} reads {a} pages a day. How many in {times} days?",
                (f"{a} x {times} = {a * times}",),
                str(a * times),
            ),
        ]
    )


def look_up(rng: Random) -> Item:
    """Find one value in the text."""
    keys = rng.sample(rng.choice([NAMES, THINGS, sorted(LEGS)]), rng.randint(3, 8))
    values = [rng.randint(0, 99) for _ in keys]
    key = rng.randrange(len(keys))
    form = rng.choice(["{} {}", "{} = {}", "{}: {}", "{} has {}", "{} -> {}", "{}({})"])
    text = rng.choice([", ", "; ", "\n"]).join(form.format(k, v) for k, v in zip(keys, values, strict=True))
    if rng.random() < 0.3:
        text = ", ".join(f"{v} {k}s" for k, v in zip(keys, values, strict=True))
    return Item(f"{text}\nWhat goes with {keys[key]}?", (), str(values[key]))


def copy_list(rng: Random) -> Item:
    """Repeat, reverse, sort, count, pick: the small moves on lists."""
    words = rng.random() < 0.3
    items = [rng.choice(THINGS) if words else str(rng.randint(0, 99)) for _ in range(rng.randint(2, 8))]
    shown = ", ".join(items)
    ordered = sorted(items) if words else sorted(items, key=int)
    target, k = rng.choice(items), rng.randrange(len(items))
    return rng.choice(
        [
            Item(f"Say again: {shown}.", (), shown),
            Item(f"Say backwards: {shown}.", (), ", ".join(reversed(items))),
            Item(f"Put in order: {shown}.", (), ", ".join(ordered)),
            Item(f"Put in falling order: {shown}.", (), ", ".join(reversed(ordered))),
            Item(f"How many entries: {shown}?", (), str(len(items))),
            Item(f"Which is the {'last by name' if words else 'largest'} of {shown}?", (), ordered[-1]),
            Item(f"Which is the {'first by name' if words else 'smallest'} of {shown}?", (), ordered[0]),
            Item(f"Entry {k + 1} of {shown}?", (), items[k]),
            Item(f"How often is {target} in {shown}?", (), str(items.count(target))),
            Item(f"Take {target} out of {shown}.", (), ", ".join(i for i in items if i != target) or "nothing"),
        ]
    )


def compare(rng: Random) -> Item:
    a, b = rng.randint(-20, 999), rng.randint(-20, 999)
    if rng.random() < 0.6:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
    sign = "<" if a < b else ">" if a > b else "="
    return rng.choice(
        [
            Item(f"Which sign stands between {a} and {b}?", (), sign),
            Item(f"Is {a} larger than {b}?", (f"{a} {sign} {b}",), "yes" if a > b else "no"),
            Item(f"The smaller one of {a} and {b}?", (), str(min(a, b))),
            Item(
                f"How far apart are {a} and {b}?",
                (f"{max(a, b)} - {min(a, b)} = {abs(a - b)}",),
                str(abs(a - b)),
            ),
        ]
    )


def spelling(rng: Random) -> Item:
    word = rng.choice([*THINGS, *NAMES, *LEGS])
    letter = rng.choice(word)
    spelt = "-".join(word)
    return rng.choice(
        [
            Item(f"Spell {word}.", (), spelt),
            Item(f"Turn {word} around.", (spelt,), word[::-1]),
            Item(f"How many letters {letter} are in {word}?", (spelt,), str(word.count(letter))),
            Item(f"Last letter of {word}?", (spelt,), word[-1]),
        ]
    )


PROBLEMS: list[tuple[float, Callable[[Random], Item]]] = [
    (6, legs),
    (1, legs_of_one),
    (1, parts_of),
    (3, gain_and_loss),
    (2, containers),
    (2.5, shopping),
    (1.5, ages_and_more),
]
RETRIEVAL: list[tuple[float, Callable[[Random], Item]]] = [
    (2, look_up),
    (3, copy_list),
    (1, compare),
    (0.7, spelling),
]


def document(rng: Random) -> str:
    """Solved word problems of one or of a few kinds."""
    return _solved(rng, PROBLEMS, rng.randint(1, 5))


def retrieval_document(rng: Random) -> str:
    """Copying, looking up, ordering, comparing."""
    return _solved(rng, RETRIEVAL, rng.randint(2, 8))


def _solved(rng: Random, tasks: list[tuple[float, Callable[[Random], Item]]], num_items: int) -> str:
    drawn = rng.choices([task for _, task in tasks], weights=[w for w, _ in tasks], k=rng.choice((1, 1, 2)))
    return write_items(rng, [rng.choice(drawn)(rng) for _ in range(num_items)])
