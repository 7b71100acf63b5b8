"""Word lists of the generated English and of the word problems: common knowledge, written out here."""


def words_of(text: str) -> list[str]:
    return text.split()


NAMES = words_of(
    "Ada Ben Cara Dan Ella Finn Gina Hugo Iris Jack Kate Leo Mia Noah Olga Paul Quinn Rosa Sam Tina "
    "Uma Vera Will Zoe Amir "
    "Bela Chen Diego Emma Farah Goran Hana Igor Jana Kofi Lena Marco Nina Omar Priya Ravi Sofia Tom "
    "Yuki John Mary Anna Lucy"
)

# Legs of common animals.
LEGS = {
    "snake": 0, "worm": 0, "snail": 0, "slug": 0, "sea slug": 0, "fish": 0, "shark": 0, "whale": 0,
    "dolphin": 0, "eel": 0,
    "jellyfish": 0, "leech": 0, "flatworm": 0, "clam": 0, "salmon": 0,
    "chicken": 2, "hen": 2, "duck": 2, "goose": 2, "bird": 2, "owl": 2, "human": 2, "parrot": 2,
    "penguin": 2, "robin": 2,
    "child": 2, "crow": 2, "ostrich": 2, "swan": 2, "turkey": 2, "pigeon": 2, "eagle": 2,
    "dog": 4, "cat": 4, "cow": 4, "horse": 4, "lion": 4, "tiger": 4, "elephant": 4, "giraffe": 4,
    "deer": 4, "sheep": 4,
    "goat": 4, "pig": 4, "rabbit": 4, "mouse": 4, "fox": 4, "wolf": 4, "bear": 4, "frog": 4, "zebra": 4,
    "camel": 4,
    "donkey": 4, "squirrel": 4, "hamster": 4, "lizard": 4, "turtle": 4, "monkey": 4, "table": 4,
    "chair": 4,
    "starfish": 5,
    "ant": 6, "bee": 6, "wasp": 6, "beetle": 6, "butterfly": 6, "moth": 6, "fly": 6, "firefly": 6,
    "cricket": 6,
    "grasshopper": 6, "cockroach": 6, "praying mantis": 6, "insect": 6, "ladybird": 6, "dragonfly": 6,
    "mosquito": 6,
    "spider": 8, "scorpion": 8, "tick": 8, "mite": 8, "tarantula": 8,
    "crab": 10, "lobster": 10, "shrimp": 10, "prawn": 10, "crayfish": 10,
    "woodlouse": 14,
}  # fmt: skip

# Other things that come in fixed numbers: (kind, part, number).
PARTS = [
    ("car", "wheel", 4), ("bicycle", "wheel", 2), ("tricycle", "wheel", 3), ("unicycle", "wheel", 1),
    ("truck", "wheel", 6),
    ("triangle", "side", 3), ("square", "side", 4), ("pentagon", "side", 5), ("hexagon", "side", 6),
    ("octagon", "side", 8),
    ("hand", "finger", 5), ("week", "day", 7), ("dozen", "egg", 12), ("year", "month", 12),
    ("day", "hour", 24), ("hour", "minute", 60), ("dime", "cent", 10), ("nickel", "cent", 5),
    ("quarter", "cent", 25),
    ("cube", "face", 6),
]  # fmt: skip

THINGS = words_of(
    "apple pear plum orange lemon book pen pencil coin stamp marble button card cup plate spoon shell "
    "stone key candle cookie "
    "cake sticker ribbon brick nail ball toy hat sock glove flower tree seed bean carrot potato onion "
    "egg letter map lamp ticket "
    "bottle jar bead kite balloon badge photo poster magnet"
)
CONTAINERS = words_of("box bag basket jar crate tray shelf packet drawer bucket case row tin carton sack")
SHOPS = words_of("shop market bakery school library office farm garden station kitchen museum")
COLOURS = words_of("red blue green yellow white black brown purple orange grey pink silver")
PLACES = words_of(
    "park forest river town beach hill garden street lake field harbour station bridge valley meadow castle"
)
ADJECTIVES = words_of(
    "small big old young quick slow happy sad kind brave quiet bright clever tired warm cold gentle funny strange"
)
NOUNS = words_of(
    "cat dog bird child teacher farmer doctor baker painter sailor king queen friend neighbour driver gardener singer"
)
VERBS_PAST = words_of(
    "found saw took carried lost wanted liked bought painted cleaned opened dropped hid watched "
    "counted moved kept made fixed"
)
FEELINGS = words_of("happy proud tired hungry calm surprised worried excited glad curious")

IRREGULAR = {
    "mouse": "mice", "goose": "geese", "sheep": "sheep", "deer": "deer", "fish": "fish", "child":
    "children",
    "wolf": "wolves", "shelf": "shelves", "woodlouse": "woodlice", "starfish": "starfish", "jellyfish":
    "jellyfish",
    "shrimp": "shrimp", "salmon": "salmon", "potato": "potatoes", "praying mantis": "praying mantises",
}  # fmt: skip


def plural(noun: str) -> str:
    """English plural.

    >>> [plural(noun) for noun in ("fly", "fox", "goose", "toy")]
    ['flies', 'foxes', 'geese', 'toys']
    """
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "owl"), counted(3, "owl")
    ('1 owl', '3 owls')
    """
    return f"{number} {noun if number == 1 else plural(noun)}"
