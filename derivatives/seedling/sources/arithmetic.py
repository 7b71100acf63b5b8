"""Generated arithmetic: sums, chains, products, division, divisors, expressions, number facts.

Everything is made from a seeded generator; wordings are our own (see the card for what is kept out).
"""

from collections.abc import Callable
from math import gcd
from random import Random

from .items import Item, in_words, write_items

MINUS = ["-", "-", "-", "minus"]
PLUS = ["+", "+", "+", "plus"]
TIMES = ["*", "x", "x", "times"]
ASK = [
    "{} = ?",
    "{} =",
    "{} equals",
    "Work out {}.",
    "How much is {}?",
    "What does {} equal?",
    "Find {}.",
    "{}?",
    "Please work out {}",
    "Give the value of {}.",
    "Find the value of {} and say what it is.",
    "What do we get from {}?",
    "Let us do {}.",
    "An exercise in arithmetic: {} =",
    "Here is a problem for you to do: {} =",
    "Result of {}:",
]


def number(rng: Random, *, hard: bool = False) -> int:
    """A natural number, mostly of one or two digits."""
    num_digits = rng.choices((1, 2, 3, 4), weights=(2, 4, 3, 1) if hard else (35, 55, 8, 2))[0]
    return rng.randint(0 if num_digits == 1 else 10 ** (num_digits - 1), 10**num_digits - 1)


def add_or_subtract(rng: Random) -> Item:
    a, b = number(rng), number(rng)
    plus = rng.random() < 0.5
    if rng.random() < 0.12:
        a = -a
    elif rng.random() < 0.12:
        b = -b
    text = f"{a} {rng.choice(PLUS if plus else MINUS)} {b}"
    if rng.random() < 0.03:
        text = f"{in_words(a)} {'plus' if plus else 'minus'} {in_words(b)}"
    result = a + b if plus else a - b
    return Item(rng.choice(ASK).format(text), (), str(result))


def signed(rng: Random) -> Item:
    """Two terms with signs and parentheses; a double sign is resolved first."""
    limit = rng.choice((9, 20, 99, 99, 999))
    a, b = (rng.randint(0, limit) * rng.choice((1, -1)) for _ in range(2))
    sign = rng.choice("++---*")
    if sign == "*":
        a, b = max(-12, min(12, a)), max(-12, min(12, b))
    result = a * b if sign == "*" else a + b if sign == "+" else a - b
    text = f"{a} {sign} {b}"
    steps = [f"{text} = {result}"]
    if b < 0 and sign != "*" and rng.random() < 0.7:
        steps = [f"{text} = {a} {'+' if sign == '-' else '-'} {-b} = {result}"]
    shown = text
    if rng.random() < 0.4:
        shown = rng.choice(["({})", "( {} )", "[{}]"]).format(text)
        if rng.random() < 0.4:
            shown, result = f"-{shown}", -result
            steps.append(f"-({-result}) = {result}")
    return Item(rng.choice(ASK).format(shown), tuple(steps) if rng.random() < 0.7 else (), str(result))


def shown_sum(rng: Random) -> Item:
    """A sum or difference whose one step repeats the whole equation."""
    a, b = number(rng), number(rng)
    sign = rng.choice("+-")
    result = a + b if sign == "+" else a - b
    return Item(rng.choice(ASK).format(f"{a} {sign} {b}"), (f"{a} {sign} {b} = {result}",), str(result))


def chain(rng: Random) -> Item:
    """Several terms, worked from left to right with the running value in front."""
    total = rng.randint(1, 9) if rng.random() < 0.35 else rng.randint(10, 99)
    text, steps = str(total), []
    for _ in range(rng.choices((1, 2, 3, 4, 5), weights=(3, 5, 3, 1, 1))[0]):
        term = number(rng)
        sign = rng.choice("+-")
        result = total + term if sign == "+" else total - term
        steps.append(f"{total} {sign} {term} = {result}")
        text += f" {sign} {term}"
        total = result
    return Item(rng.choice(ASK).format(text), tuple(steps), str(total))


def running_sum(rng: Random) -> Item:
    numbers = [number(rng) for _ in range(rng.randint(2, 6))]
    listed = ", ".join(map(str, numbers))
    total, steps = numbers[0], []
    for term in numbers[1:]:
        steps.append(f"{total} + {term} = {total + term}")
        total += term
    ask = rng.choice(["Add up {}.", "Sum of {}:", "Total of {}?", "Find the sum of the list [{}].", "Add these: {}."])
    return Item(ask.format(listed), tuple(steps), str(total))


def carry_sum(rng: Random) -> Item:
    """Column addition or subtraction by place value."""
    a, b = number(rng, hard=True) + 10, number(rng, hard=True) + 10
    if rng.random() < 0.5:
        tens = b // 10 * 10
        steps = (f"{a} + {tens} = {a + tens}", f"{a + tens} + {b - tens} = {a + b}")
        return Item(rng.choice(ASK).format(f"{a} + {b}"), steps, str(a + b))
    tens = b // 10 * 10
    steps = (f"{a} - {tens} = {a - tens}", f"{a - tens} - {b - tens} = {a - b}")
    return Item(rng.choice(ASK).format(f"{a} - {b}"), steps, str(a - b))


def product(rng: Random) -> Item:
    a, b = rng.choice(
        [
            (rng.randint(0, 15), rng.randint(0, 15)),
            (rng.randint(0, 9), rng.randint(0, 9)),
            (rng.randint(10, 99), rng.randint(0, 9)),
            (rng.randint(1, 9), rng.randint(1, 9) * 10),
        ]
    )
    if rng.random() < 0.5:
        a, b = b, a
    sign = rng.choice(TIMES)
    steps = (f"{a} {sign} {b} = {a * b}",) if rng.random() < 0.5 else ()
    return Item(rng.choice(ASK).format(f"{a} {sign} {b}"), steps, str(a * b))


def partial_products(rng: Random) -> Item:
    """A product by splitting the second factor into tens and ones."""
    a, b = rng.randint(2, 99), rng.randint(11, 99)
    if rng.random() < 0.3:
        a, b = rng.randint(2, 9), rng.randint(11, 99)
    tens, ones = b // 10 * 10, b % 10
    sign = rng.choice("**xx")
    steps = [f"{a} {sign} {tens} = {a * tens}"]
    if ones:
        steps += [f"{a} {sign} {ones} = {a * ones}", f"{a * tens} + {a * ones} = {a * b}"]
    return Item(rng.choice(ASK).format(f"{a} {sign} {b}"), tuple(steps), str(a * b))


def sum_of_products(rng: Random) -> Item:
    terms = [(rng.randint(1, 15), rng.randint(0, 14)) for _ in range(rng.randint(2, 4))]
    sign = rng.choice("**xx")
    text = " + ".join(f"{a} {sign} {b}" for a, b in terms)
    steps = [f"{a} {sign} {b} = {a * b}" for a, b in terms]
    total = terms[0][0] * terms[0][1]
    for a, b in terms[1:]:
        steps.append(f"{total} + {a * b} = {total + a * b}")
        total += a * b
    return Item(rng.choice(ASK).format(text), tuple(steps), str(total))


def division(rng: Random) -> Item:
    b, quotient = rng.randint(1, 12), rng.randint(0, 20)
    rest = 0 if rng.random() < 0.5 else rng.randrange(b)
    a = b * quotient + rest
    check = f"{b} x {quotient} = {b * quotient}"
    if rest:
        steps = (check, f"{a} - {b * quotient} = {rest}")
        return Item(f"Divide {a} by {b} with remainder.", steps, f"{quotient} remainder {rest}")
    return Item(rng.choice(ASK).format(f"{a} {rng.choice(['/', '÷', 'divided by'])} {b}"), (check,), str(quotient))


REMAINDER_FORMS = [
    "{a} - {b} x {quotient} = {a} - {product} = {rest}",
    "{a} - {product} = {rest}",
    "{a} = {b} x {quotient} + {rest}",
]


def remainder_step(form: str, a: int, b: int) -> str:
    """How a remainder comes about, in one equation.

    >>> remainder_step(REMAINDER_FORMS[0], 93, 15)
    '93 - 15 x 6 = 93 - 90 = 3'
    """
    quotient, rest = divmod(a, b)
    return form.format(a=a, b=b, quotient=quotient, product=b * quotient, rest=rest)


def remainder(rng: Random) -> Item:
    a, b = rng.randint(1, 99) if rng.random() < 0.7 else rng.randint(100, 300), rng.randint(2, 30)
    ask = rng.choice(
        [
            "{} mod {} =",
            "{} % {} = ?",
            "Remainder of {} divided by {}:",
            "What is left from {} after taking out {}s?",
        ]
    )
    steps = (remainder_step(rng.choice(REMAINDER_FORMS), a, b),) if rng.random() < 0.8 else ()
    return Item(ask.format(a, b), steps, str(a % b))


def common_divisor(rng: Random) -> Item:
    """Greatest common divisor by Euclid's steps."""
    base = rng.choices((1, rng.randint(2, 12), rng.randint(2, 30)), weights=(2, 5, 2))[0]
    a, b = base * rng.randint(1, 12), base * rng.randint(1, 12)
    if rng.random() < 0.4:
        a, b = rng.randint(1, 100), rng.randint(1, 100)
    ask = rng.choice(
        [
            "gcd({}, {}) =",
            "Greatest common divisor of {} and {}?",
            "The largest number dividing both {} and {}:",
            "What is the highest common factor of {} and {}?",
            "GCD of {}, {}:",
        ]
    )
    question, steps = ask.format(a, b), []
    high, low = max(a, b), min(a, b)
    form = rng.choice(REMAINDER_FORMS)
    while low:
        steps.append(remainder_step(form, high, low))
        high, low = low, high % low
    return Item(question, tuple(steps), str(high))


def common_multiple(rng: Random) -> Item:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    divisor = gcd(a, b)
    steps = (
        f"gcd({a}, {b}) = {divisor}",
        f"{a} / {divisor} = {a // divisor}",
        f"{a // divisor} x {b} = {a * b // divisor}",
    )
    ask = rng.choice(["lcm({}, {}) =", "Smallest number that both {} and {} divide?"])
    return Item(ask.format(a, b), steps, str(a * b // divisor))


def divisors(rng: Random) -> Item:
    n = rng.randint(1, 100)
    found = [d for d in range(1, n + 1) if n % d == 0]
    if rng.random() < 0.3:
        prime = "yes" if len(found) == 2 else "no"
        return Item(f"Is {n} a prime number?", (f"divisors of {n}: {', '.join(map(str, found))}",), prime)
    return Item(f"List the divisors of {n}.", (), ", ".join(map(str, found)))


def factors(rng: Random) -> Item:
    n = rest = rng.randint(2, 200)
    found, steps, divisor = [], [], 2
    while rest > 1:
        if rest % divisor:
            divisor += 1
            continue
        steps.append(f"{rest} = {divisor} x {rest // divisor}")
        found.append(divisor)
        rest //= divisor
    return Item(f"Split {n} into primes.", tuple(steps), " x ".join(map(str, found)))


def expression(rng: Random) -> Item:
    """Parentheses first, or a product before a sum."""
    a, b, c = (rng.randint(0, 30) for _ in range(3))
    if rng.random() < 0.5:
        a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(0, 99)
        sign = rng.choice("+-")
        result = a * b + c if sign == "+" else a * b - c
        steps = (f"{a} * {b} = {a * b}", f"{a * b} {sign} {c} = {result}")
        return Item(rng.choice(ASK).format(f"{a} * {b} {sign} {c}"), steps, str(result))
    inner = rng.choice("+-")
    outer = rng.choice("+-")
    b = -b if rng.random() < 0.3 else b
    value = a + b if inner == "+" else a - b
    result = value + c if outer == "+" else value - c
    steps = (f"{a} {inner} {b} = {value}", f"{value} {outer} {c} = {result}")
    return Item(rng.choice(ASK).format(f"({a} {inner} {b}) {outer} {c}"), steps, str(result))


def equation(rng: Random) -> Item:
    name, a, x, b = rng.choice("abkmnptxyz"), rng.randint(2, 12), rng.randint(0, 12), rng.randint(1, 50)
    c = a * x + b
    steps = (f"{a}{name} = {c} - {b} = {c - b}", f"{name} = {c - b} / {a} = {x}")
    return Item(f"Find {name} if {a}{name} + {b} = {c}.", steps, str(x))


def fact(rng: Random) -> Item:
    n = number(rng, hard=True)
    digit_sum = sum(map(int, str(n)))
    return rng.choice(
        [
            Item(f"Which number comes after {n}?", (), str(n + 1)),
            Item(f"Which number comes before {n}?", (), str(n - 1)),
            Item(f"Is {n} odd or even?", (f"it ends in {n % 10}",), "odd" if n % 2 else "even"),
            Item(f"How many digits has {n}?", (), str(len(str(n)))),
            Item(f"Add the digits of {n}.", (" + ".join(str(n)) + f" = {digit_sum}",), str(digit_sum)),
            Item(f"Write {n} in words.", (), in_words(n)),
            Item(f"Write {in_words(n)} in digits.", (), str(n)),
            Item(f"Double {n}.", (f"{n} + {n} = {2 * n}",), str(2 * n)),
            Item(f"What must be added to {n % 100} to make 100?", (), str(100 - n % 100)),
            Item(f"Square of {n % 21}?", (f"{n % 21} x {n % 21} = {(n % 21) ** 2}",), str((n % 21) ** 2)),
            Item(f"Round {n} to tens.", (), str((n + 5) // 10 * 10)),
        ]
    )


TASKS: list[tuple[float, Callable[[Random], Item]]] = [
    (4, add_or_subtract),
    (3, shown_sum),
    (8, chain),
    (5, signed),
    (3, running_sum),
    (2, carry_sum),
    (5, product),
    (4, partial_products),
    (3, sum_of_products),
    (1, division),
    (2.5, remainder),
    (7, common_divisor),
    (0.5, common_multiple),
    (0.7, divisors),
    (0.5, factors),
    (1.5, expression),
    (0.5, equation),
    (1.2, fact),
]


def solved_items(rng: Random) -> str:
    """Several solved items, of one task or of a few."""
    tasks = [task for _, task in TASKS]
    weights = [weight for weight, _ in TASKS]
    drawn = rng.choices(tasks, weights=weights, k=rng.choice((1, 1, 2, 3)))
    return write_items(rng, [rng.choice(drawn)(rng) for _ in range(rng.randint(2, 10))])


def equation_list(rng: Random) -> str:
    """Bare equations in a row: the densest form of number facts."""
    kind = rng.choice("+-mx*")
    is_small = rng.random() < 0.3
    lines = []
    for _ in range(rng.randint(6, 24)):
        a, b = (rng.randint(0, 30), rng.randint(0, 20)) if is_small else (number(rng), number(rng))
        if kind in "x*":
            a, b = rng.randint(0, 15), rng.randint(0, 15)
            if rng.random() < 0.3:
                a = rng.randint(10, 99)
                b %= 10
            lines.append(f"{a} {kind} {b} = {a * b}")
        elif kind == "+" or (kind == "m" and rng.random() < 0.5):
            lines.append(f"{a} + {b} = {a + b}")
        else:
            lines.append(f"{a} - {b} = {a - b}")
    return rng.choice(("\n", "; ", ", ")).join(lines)


def table(rng: Random) -> str:
    """A times table, or counting in steps."""
    n = rng.randint(2, 15)
    if rng.random() < 0.6:
        sign = rng.choice("x*")
        return f"Times table of {n}\n" + "\n".join(f"{k} {sign} {n} = {k * n}" for k in range(rng.randint(0, 2), 16))
    start, step = number(rng), rng.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -1, -2, -3, -5, -10))
    return "Count on: " + ", ".join(str(start + k * step) for k in range(rng.randint(8, 20)))


def document(rng: Random) -> str:
    kind = rng.random()
    return solved_items(rng) if kind < 0.76 else equation_list(rng) if kind < 0.96 else table(rng)
