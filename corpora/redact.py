"""Replaces secrets and personal data by placeholders that say what stood there, and counts every one.

| kind | placeholder | what is found |
|---|---|---|
| private_key | `<PRIVATE_KEY>` | PEM blocks of private keys, from BEGIN to END |
| key | `<KEY>` | tokens of a known form (AWS, GitHub, Slack, Google, ..., JWT); random strings named `api_key` |
| password | `<PASSWORD>` | the one in `scheme://user:password@host`, and strings assigned to a `password` |
| email | `<EMAIL>` | e-mail addresses |
| ip_address | `<IP_ADDRESS>` | public IPv4 and IPv6 addresses |
| phone_number | `<PHONE_NUMBER>` | numbers written with `+` and a country code, and (123) 456-7890 |

The placeholders are StarCoder's (arXiv 2305.06161 section 4), one for each kind; StarCoder finds them with a trained
model, this file with patterns, so that a name, a street or a password that looks like a word stays.

**Not** replaced, on purpose: addresses that cannot be anybody's (example.com and the other names and numbers that RFC
2606, 5737, 3849 and 6761 reserve; localhost, private and link-local ranges; the public resolvers 1.1.1.1, 8.8.8.8,
...; user names such as `git@` and `noreply@`); passwords in the address of such a host, and Oracle's `scott:tiger`;
four numbers that are a version, a section or an OID (`version_like`); digests, that is strings of 32, 40, 56, 64, 96
or 128 hexadecimal digits and `sha256-...` of lock files, unless a name says that they are secret; placeholders such as
`your-api-key` and `xxxx`.

Every pattern is anchored to a rare literal or bounded in length, so that the time is linear in the text. Redacting
twice changes nothing the second time.
"""

from __future__ import annotations

import bisect
import dataclasses
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from corpora.document import Document

PLACEHOLDERS = {
    "private_key": "<PRIVATE_KEY>", "key": "<KEY>", "password": "<PASSWORD>", "email": "<EMAIL>",
    "ip_address": "<IP_ADDRESS>", "phone_number": "<PHONE_NUMBER>",
}  # fmt: skip

MAX_PASSES = 8
"""Passes over one text at most; a second is needed only where a placeholder uncovered a further match."""
MIN_ENTROPY = 3.0
"""Bits per character from which a string of 16 or more counts as random; English words in one string have 2.5 to 3.5,
random hexadecimal digits 3.3 to 4, random letters and digits 4 to 5 (Shannon entropy of a string of that length)."""


class Span(NamedTuple):
    """A part of a text to be replaced."""

    start: int
    end: int
    kind: str


# --- secrets with a form of their own: literal in the text -> pattern that begins with it -------------------------
# A pattern that begins with a literal is searched for at the speed of memory; one that begins with a look behind is
# tried at every character. So what must not stand before is asked after the first character, here and below.
_KNOWN_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (literal, re.compile(rf"{re.escape(literal)}(?<![A-Za-z0-9_-]{re.escape(literal)})(?:{rest})(?![A-Za-z0-9])"))
    for literal, rest in (
        ("AKIA", r"[0-9A-Z]{16}"),
        ("ASIA", r"[0-9A-Z]{16}"),
        ("ghp_", r"[A-Za-z0-9]{36}"),
        ("gho_", r"[A-Za-z0-9]{36}"),
        ("ghu_", r"[A-Za-z0-9]{36}"),
        ("ghs_", r"[A-Za-z0-9]{36}"),
        ("ghr_", r"[A-Za-z0-9]{36,76}"),
        ("github_pat_", r"[A-Za-z0-9_]{60,100}"),
        ("glpat-", r"[A-Za-z0-9_-]{20,40}"),
        ("xox", r"[abeoprs]-[A-Za-z0-9-]{20,120}"),
        ("hooks.slack.com/services/", r"T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{16,40}"),
        ("AIza", r"[A-Za-z0-9_-]{35}"),
        ("ya29.", r"[A-Za-z0-9_-]{20,250}"),
        ("sk_live_", r"[A-Za-z0-9]{16,120}"),
        ("rk_live_", r"[A-Za-z0-9]{16,120}"),
        ("sk-", r"(?:proj-|ant-[a-z0-9]{2,8}-|svcacct-)?(?=[A-Za-z_-]{0,200}[0-9])[A-Za-z0-9_-]{32,200}"),
        ("hf_", r"(?=[a-z]{0,34}[A-Z0-9])[A-Za-z0-9]{34,40}"),
        ("npm_", r"[A-Za-z0-9]{36}"),
        ("pypi-", r"AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250}"),
        ("SG.", r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
        ("AccountKey=", r"[A-Za-z0-9+/]{86}=="),
        ("eyJ", r"[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{16,2000}"),
    )
)
_PRIVATE_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PRIVATE_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
LONGEST_PRIVATE_KEY = 20_000
"""Characters from BEGIN to END; a block without an end in that distance is cut after what looks like base64."""
MIN_PRIVATE_KEY = 64
"""Letters and digits in a block; the shortest keys (Ed25519) have 64 in base64."""
_BASE64_LINES = re.compile(r"(?:[\s\"'\\+,]|n(?=[A-Za-z0-9+/]{20})|[A-Za-z0-9+/=]{16,100}){0,400}")

# --- secrets told by the name that they are assigned to -----------------------------------------------------------
_QUOTED = re.compile(r"""(["'])(?<=[=:,( ]["'])([A-Za-z0-9+/=_.~!@#$%^&*-]{8,200})\1""")
_KEY_NAME = re.compile(
    r"(?:api_?key|apikey|access_?key|secret_?key|secret|auth_?token|access_?token|token|private_?key|client_?secret"
    r"|encryption_?key|signing_?key|credentials?)[\"']?\s{0,4}(?::\s{0,2}\w{1,12}\s{0,2})?(?:=|:|=>)$",
    re.IGNORECASE,
)
_PASSWORD_NAME = re.compile(
    r"(?:password|passwd|passphrase|pwd|db_?pass)[\"']?\s{0,4}(?::\s{0,2}\w{1,12}\s{0,2})?(?:=|:|=>)$",
    re.IGNORECASE,
)
NAME_WINDOW = 60
"""Characters before a string in which the name that it is assigned to is looked for."""
_URL_PASSWORD = re.compile(r"://[A-Za-z0-9_.%+-]{1,64}:([^\s:/@\"'<>{}$()\[\]*]{3,100})@(?=[A-Za-z0-9\[])")
_NOBODYS_HOST = re.compile(
    r"(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0|hostname"
    r"|[\w.-]{0,60}example\.(?:com|org|net)|[\w-]{1,60}\.(?:test|invalid|local))(?![\w.-])"
)
"""What stands behind the `@` of an address that documentation or a test uses; its password opens nothing."""
_SAMPLE = re.compile(
    r"example|sample|dummy|fake|test|your|change_?me|placeholder|xxx|\*\*\*|\.\.\.|<|password|passwd|secret|token|user"
    r"|redacted|insert|123456|abcdef|foo|bar|spam|admin|guest|none|null|todo",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"(?:[0-9a-fA-F]{8}){4,5}|(?:[0-9a-fA-F]{8}){7,8}|(?:[0-9a-fA-F]{32}){3,4}")

# --- personal data ------------------------------------------------------------------------------------------------
_AT = re.compile(r"@(?<=[A-Za-z0-9_+-]@)(?=[A-Za-z0-9])")
_LOCAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_%+-]|\.(?=[A-Za-z0-9_%+-])){0,63}$")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9_-])(?!\.[A-Za-z0-9])"
)
_RESERVED_DOMAIN = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net|edu)|(?:example|test|invalid|localhost|local|localdomain|internal|lan))$"
    r"|^(?:[a-z]+\.)?(?:foo|bar|baz|spam|eggs|domain|company|yourdomain|mydomain|email|host|server|acme|xxx)"
    r"\.(?:com|org|net|bar|edu)$"
)
_FILE_ENDINGS = frozenset({
    "py", "js", "ts", "png", "jpg", "jpeg", "gif", "svg", "css", "html", "json", "md", "txt", "sh", "so", "service",
    "target", "socket", "timer", "mount", "slice", "exe", "dll", "zip", "gz", "whl",
})  # fmt: skip
"""Endings of file and unit names such as `getty@tty1.service`."""
_ROLE_NAMES = frozenset({
    "git", "hg", "svn", "noreply", "no-reply", "donotreply", "do-not-reply", "user", "username", "you", "your.name",
    "yourname", "your-email", "youremail", "your_email", "name", "someone", "somebody", "nobody", "foo", "bar", "root",
    "localhost", "anonymous", "me", "myname", "email",
})  # fmt: skip
_IPV4 = re.compile(r"[0-9](?<![\w.-][0-9])[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![\w-]|\.\w)")
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])")
# What every address holds, looked for from its rarest character on: most texts need no slower look.
_MAY_BE_IPV4 = re.compile(r"\.(?<=[0-9]\.)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_MAY_BE_IPV6 = re.compile(r":(?<=[23][0-9a-fA-F]{3}:)")
_PHONES = (
    re.compile(
        r"\+(?<![\w+.(=*/^-]\+)[1-9][0-9]{0,2}[ .-](?:\([0-9]{1,4}\)[ .-]?|[0-9]{1,4}[ .-]){1,4}[0-9]{3,4}(?![\w.-])"
    ),
    re.compile(r"\((?<![\w+.)-]\()[2-9][0-9]{2}\) [2-9][0-9]{2}-[0-9]{4}(?![\w-])"),
)
_FICTIONAL_PHONE = re.compile(r"555|1234|0000")
_ADDRESS_WORDS = re.compile(
    r"\b(?:ip|ips|ipv4|addr|address|host|hostname|server|dns|ping|peer|client|gateway|listen)\b|://|@"
)
_VERSION_WORDS = re.compile(
    r"(?:version|ver|release|rev|build|oid|identifier|section|sec|§|v|[=<>~^]=?)[\s\"':=._({\[]{0,4}$"
)
_PUBLIC_RESOLVERS = frozenset({"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "4.2.2.2", "4.2.2.1", "1.2.3.4"})
_DOCUMENTATION_V6 = (ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20"))


def redact(text: str, kinds: Collection[str] = PLACEHOLDERS) -> tuple[str, Counter[str]]:
    """The text with placeholders, and how many of each kind were put in; only the named kinds are replaced.

    >>> redact("write to jane.doe@gmail.com")
    ('write to <EMAIL>', Counter({'email': 1}))
    """
    counts: Counter[str] = Counter()
    for _ in range(MAX_PASSES):
        spans = [span for span in find(text) if span.kind in kinds]
        if not spans:
            break
        parts = []
        position = 0
        for span in spans:
            parts += [text[position : span.start], PLACEHOLDERS[span.kind]]
            position = span.end
            counts[span.kind] += 1
        text = "".join(parts) + text[position:]
    return text, counts


def redact_document(
    document: Document, kinds: Collection[str] = PLACEHOLDERS
) -> tuple[Document, Counter[str]]:
    """The document with the text, the prompt, the completion and all messages redacted; the same one if none had any.

    The gold answer stays as it is: a verifier compares with it.
    """
    counts: Counter[str] = Counter()

    def clean(text: str) -> str:
        redacted, found = redact(text, kinds)
        counts.update(found)
        return redacted

    text, prompt, completion = clean(document.text), clean(document.prompt), clean(document.completion)
    messages = tuple({**message, "content": clean(message["content"])} for message in document.messages)
    if not counts:
        return document, counts
    return dataclasses.replace(document, text=text, prompt=prompt, completion=completion, messages=messages), counts


def find(text: str) -> list[Span]:
    """What is to be replaced, in order; where two overlap, the one that begins first, then the longer one."""
    spans = sorted((*_private_keys(text), *_keys(text), *_assigned(text), *_url_passwords(text), *_emails(text),
                    *_ip_addresses(text), *_phone_numbers(text)), key=lambda span: (span.start, -span.end))
    kept: list[Span] = []
    for span in spans:
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def _private_keys(text: str) -> Iterator[Span]:
    if "PRIVATE KEY" not in text:
        return
    ends = [match.end() for match in _PRIVATE_KEY_END.finditer(text)]
    begins = list(_PRIVATE_KEY_BEGIN.finditer(text))
    following_starts = [*(match.start() for match in begins), len(text)][1:]
    for begin, following in zip(begins, following_starts, strict=True):
        i = bisect.bisect_right(ends, begin.end())
        if i < len(ends) and ends[i] <= min(following, begin.end() + LONGEST_PRIVATE_KEY):
            stop = ends[i]
            content = text[begin.end() : text.rindex("-----END", 0, stop)]
        else:
            found = _BASE64_LINES.match(text, begin.end(), following)
            stop = found.end() if found else begin.end()
            content = text[begin.end() : stop]
        # The two lines around nothing are code that writes or looks for a key.
        if sum(map(str.isalnum, content)) >= MIN_PRIVATE_KEY:
            yield Span(begin.start(), stop, "private_key")


def _keys(text: str) -> Iterator[Span]:
    for literal, pattern in _KNOWN_KEYS:
        if literal in text:
            for match in pattern.finditer(text):
                if "EXAMPLE" not in match.group() and len(set(match.group())) > 8:
                    yield Span(*match.span(), "key")


def _assigned(text: str) -> Iterator[Span]:
    for match in _QUOTED.finditer(text):
        before = text[max(match.start() - NAME_WINDOW, 0) : match.start()].rstrip(" ")
        if not before.endswith(("=", ":", "=>")):
            continue
        value = match.group(2)
        if _KEY_NAME.search(before):
            if is_random(value) and "public" not in before[-24:].lower():
                yield Span(*match.span(2), "key")
        elif _PASSWORD_NAME.search(before) and is_password(value):
            yield Span(*match.span(2), "password")


def _url_passwords(text: str) -> Iterator[Span]:
    if "://" not in text or "@" not in text:
        return
    for match in _URL_PASSWORD.finditer(text):
        if _NOBODYS_HOST.match(text, match.end()) or match.group(1).lower() in ("pass", "pwd", "pw", "tiger"):
            continue
        if not _SAMPLE.search(match.group(1)):
            yield Span(*match.span(1), "password")


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for at in _AT.finditer(text):
        local = _LOCAL.search(text, max(at.start() - 64, 0), at.start())
        domain = _DOMAIN.match(text, at.end(), at.end() + 255)
        if local is None or domain is None or text[max(local.start() - 1, 0) : local.start()] in ("/", ":"):
            continue  # scheme://user@host and user:password@host are addresses of machines
        name, host = local.group().lower(), domain.group().lower()
        if domain.group(1).lower() in _FILE_ENDINGS or _RESERVED_DOMAIN.search(host) or name in _ROLE_NAMES:
            continue
        yield Span(local.start(), domain.end(), "email")


def _ip_addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text) if _MAY_BE_IPV4.search(text) else ():
        if is_public_ipv4(match.group()) and not version_like(text, *match.span()):
            yield Span(*match.span(), "ip_address")
    if ("::" in text or text.count(":") > 6) and _MAY_BE_IPV6.search(text):
        for match in _IPV6.finditer(text):
            if _is_public_ipv6(match.group()):
                yield Span(*match.span(), "ip_address")


def _phone_numbers(text: str) -> Iterator[Span]:
    for match in (match for pattern in _PHONES for match in pattern.finditer(text)):
        num_digits = sum(map(str.isdigit, match.group()))
        if 10 <= num_digits <= 15 and not _FICTIONAL_PHONE.search(match.group()):
            yield Span(*match.span(), "phone_number")


def is_random(value: str) -> bool:
    """Whether a string of at least 16 characters looks drawn at random: letters and digits, no word of an example.

    >>> is_random("q8ZrT2mK0vXw5LbN"), is_random("your-api-key-goes-here"), is_random("application/json")
    (True, False, False)
    """
    if len(value) < 16 or _SAMPLE.search(value) or not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)):
        return False
    return entropy(value) >= MIN_ENTROPY


def is_password(value: str) -> bool:
    """Whether a string of 8 characters or more looks like a password: three kinds of characters, no example's word.

    >>> is_password("hunter2!Korn"), is_password("password123"), is_password("settings")
    (True, False, False)
    """
    kinds = (any(map(str.islower, value)), any(map(str.isupper, value)), any(map(str.isdigit, value)),
             not value.isalnum())
    return len(value) >= 8 and sum(kinds) >= 3 and not _SAMPLE.search(value) and not _DIGEST.fullmatch(value)


def entropy(value: str) -> float:
    """Shannon entropy of a string's characters, in bits per character.

    >>> entropy("abab"), entropy("abcd")
    (1.0, 2.0)
    """
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())


def is_public_ipv4(text: str) -> bool:
    """Whether four numbers are an address of somebody: routed in the Internet, and not a resolver open to all."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and text not in _PUBLIC_RESOLVERS and int(address) & 255 != 0


def version_like(text: str, start: int, end: int) -> bool:
    """Whether four numbers are rather a version, a section or an OID than an address.

    They are when `version`, `v`, `==` or the like stands before them; and, unless a word such as `host` or `://` stands
    in the sixty characters before, when fewer than two of them are 32 or more, since versions and sections count up
    from small numbers. An address in a sentence without any such word may so remain.
    """
    before = text[max(start - NAME_WINDOW, 0) : start].lower()
    if _VERSION_WORDS.search(before):
        return _ADDRESS_WORDS.search(before) is None
    numbers = [int(part) for part in text[start:end].split(".")]
    return sum(number >= 32 for number in numbers) < 2 and _ADDRESS_WORDS.search(before) is None


def _is_public_ipv6(text: str) -> bool:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return address.is_global and not any(address in network for network in _DOCUMENTATION_V6)
