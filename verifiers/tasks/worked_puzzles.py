"""Short worked solutions of reasoning-gym's simpler puzzles: counting, filtering, sorting, reversing, factoring.

Each step says one small thing (a comparison, a letter count, a division), since a model of a few million parameters can
learn that much, and finds the answer by reading its own steps. They are written from the problem's metadata; that they
reach the gold answer is checked by `verifiers.tasks.worked`.
"""

from __future__ import annotations

from collections.abc import Callable

from verifiers.api import Task
from verifiers.tasks.solution import Lines, NoSolution


def _number_filtering(task: Task) -> Lines:
    """The rule (`drop > 17`), then `21 > 17: drop` for each number; an equal one is neither larger nor smaller."""
    limit, operation = str(task.metadata["filter_value"]), str(task.metadata["operation"])
    keeps, asked = operation.startswith("keep"), ">" if operation.endswith("larger") else "<"
    steps, kept = [f"{'keep' if keeps else 'drop'} {asked} {limit}"], []
    for text in task.metadata["original_numbers"]:
        sign = _sign(float(text), float(limit))
        stays = (sign == asked) == keeps
        steps.append(f"{text} {sign} {limit}: {'keep' if stays else 'drop'}")
        if stays:
            kept.append(text)
    return steps, str(kept)


def _sign(first: float, second: float) -> str:
    return "=" if first == second else "<" if first < second else ">"


def _number_sorting(task: Task) -> Lines:
    """The next number, then what is left, until nothing is."""
    left = list(task.metadata["original_numbers"])
    choose = min if task.metadata["direction"] == "ascending" else max
    steps, ordered = [], []
    while left:
        number = choose(left, key=float)
        left.remove(number)
        ordered.append(number)
        steps.append(f"{number}; left {', '.join(left)}" if left else number)
    return steps, str(ordered)


def _count_bits(task: Task) -> Lines:
    """Take away the largest power of two, counting: `1: 200 - 128 = 72`."""
    left, steps = int(task.metadata["number"]), list[str]()
    while left:
        power = 1 << (left.bit_length() - 1)
        steps.append(f"{len(steps) + 1}: {left} - {power} = {left - power}")
        left -= power
    if not steps:
        raise NoSolution("zero has no bit to take away")
    return steps, str(len(steps))


def _prime_factorization(task: Task) -> Lines:
    """Divide by the smallest prime that divides: `245 / 5 = 49`, `49 / 7 = 7`; what is left is the last factor."""
    left, factors, steps = int(task.metadata["number"]), list[str](), list[str]()
    divisor = 2
    while divisor * divisor <= left:
        if left % divisor:
            divisor += 1
            continue
        steps.append(f"{left} / {divisor} = {left // divisor}")
        factors.append(str(divisor))
        left //= divisor
    steps.append(f"{left} is prime")
    return steps, " \u00d7 ".join([*factors, str(left)])


def _word_sequence_reversal(task: Task) -> Lines:
    """The words with their places, then from the last place to the first."""
    words = list(map(str, task.metadata["words"]))
    return [f"{place} {word}" for place, word in enumerate(words, 1)], ", ".join(reversed(words))


def _spell_backward(task: Task) -> Lines:
    """Letter by letter, forwards and backwards."""
    word = str(task.metadata["word"])
    return ["-".join(word), "-".join(reversed(word))], word[::-1]


def _letter_counting(task: Task) -> Lines:
    """Each word spelt, with the count so far and its own: `f-r-e-e: 0 + 2 = 2`."""
    letter, total, steps = str(task.metadata["target_letter"]), 0, list[str]()
    for word in task.metadata["span"]:
        count = word.lower().count(letter)
        steps.append(f"{'-'.join(word)}: {total} + {count} = {total + count}")
        total += count
    return steps, str(total)


def _simple_geometry(task: Task) -> Lines:
    """The sum of a polygon's angles, minus each that is known."""
    num_sides, known = int(task.metadata["n_sides"]), list(map(float, task.metadata["known_angles"]))
    if not all(angle.is_integer() for angle in known):
        raise NoSolution("angles that are not whole")
    left = 180 * (num_sides - 2)
    steps = [f"{num_sides - 2} * 180 = {left}"]
    for angle in map(int, known):
        steps.append(f"{left} - {angle} = {left - angle}")
        left -= angle
    return steps, str(left)


PUZZLE_SOLVERS: dict[str, Callable[[Task], Lines]] = {
    "number_filtering": _number_filtering,
    "number_sorting": _number_sorting,
    "count_bits": _count_bits,
    "prime_factorization": _prime_factorization,
    "word_sequence_reversal": _word_sequence_reversal,
    "spell_backward": _spell_backward,
    "letter_counting": _letter_counting,
    "simple_geometry": _simple_geometry,
}
"""Family of reasoning-gym -> what writes its solution."""
