"""Redaction: what is found, what is left on purpose, and that it is idempotent, bounded and linear in time."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.document import Document
from corpora.redact import PLACEHOLDERS, find, redact, redact_document

PEM_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n" * 3
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{PEM_BODY}-----END RSA PRIVATE KEY-----"
# Put together here, so that no scanner of repositories takes them for somebody's.
AWS = "AKIA" + "Q3EGRZT7LMWX52PB"
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
SLACK = "xoxb-" + "2451936072-8130465927-Zq8rT2mK0vXw5LbNc7Yd"
JWT = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiI0MjQyNDIifQ" + "." + "kq8ZrT2mK0vXw5LbNc7Yd1PfHs3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key = '{AWS}'", "key = '<KEY>'"),
        (f"TOKEN={GITHUB}\n", "TOKEN=<KEY>\n"),
        (f"curl -H 'Authorization: Bearer {JWT}'", "curl -H 'Authorization: Bearer <KEY>'"),
        (SLACK, "<KEY>"),
        ("api_key = 'q8ZrT2mK0vXw5LbN'", "api_key = '<KEY>'"),
        ('{"client_secret": "q8ZrT2mK0vXw5LbN"}', '{"client_secret": "<KEY>"}'),
        ("SECRET_KEY: str = 'q8ZrT2mK0vXw5LbN'", "SECRET_KEY: str = '<KEY>'"),
        ('password = "Kx7!moRwt9"', 'password = "<PASSWORD>"'),
        ("postgres://app:Kx7moRwt@db:5432/x", "postgres://app:<PASSWORD>@db:5432/x"),
        (f"a = '''{PEM}'''", "a = '''<PRIVATE_KEY>'''"),
        (f"-----BEGIN PRIVATE KEY-----\n{PEM_BODY}and on", "<PRIVATE_KEY>and on"),
        ("# Jane Doe <jane.doe+x@mail.firm.co.uk>.", "# Jane Doe <<EMAIL>>."),
        ("mailto:jane@firm.de", "mailto:jane@firm.de"),  # the address of a scheme, as user:password@host
        ("ping 93.184.216.34", "ping <IP_ADDRESS>"),
        ("seen from 187.61.93.204 at noon", "seen from <IP_ADDRESS> at noon"),
        ("host = '2a00:1450:4001:81b::200e'", "host = '<IP_ADDRESS>'"),
        ("call +49 30 9018 20 401 now", "call <PHONE_NUMBER> now"),
        ("Tel. (212) 736-9812", "Tel. <PHONE_NUMBER>"),
    ],
)
def test_what_is_replaced(text: str, expected: str) -> None:
    assert redact(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "version = '1.2.3.4'", "requires foo==10.200.30.40", "Chrome/119.0.6045.199", "see section 4.2.1.10 of the RFC",
        "id = 1.3.6.1.4.1.311", "ObjectIdentifier('2.5.29.37')", "127.0.0.1", "localhost:8080", "0.0.0.0",
        "192.168.1.77",
        "10.250.99.88", "255.255.255.0", "8.8.8.8", "203.0.113.77", "198.51.100.99",
        "999.999.999.999",
        "2001:db8::1234", "::1", "fe80::1", "x[::2]", "12:34:56", "std::vector", "00:1b:44:11:3a:b7",
        "user@example.com", "a@b.example.org", "git@github.com:a/b.git", "noreply@github.com", "@dataclass", "x @ y.T",
        "@app.route('/')", "icon@2x.png", "getty@tty1.service", "a@localhost", "ssh://jane@firm.de/x",
        "ED25519 = ObjectIdentifier('1.3.101.112')", "oracle://scott:tiger@myalias",
        "mysql://joe:kX7moRwt9@localhost/db",
        "https://user:password@host/", "https://{user}:{password}@host/", "token = 'your-api-key-here'",
        "password = 'password123'", "password = get_password()", "api_key = os.environ['API_KEY_FOR_SERVICE']",
        "secret = 'aaaaaaaaaaaaaaaaaaaaaaaa'", "token = 'application/json'", "AKIAIOSFODNN7EXAMPLE",
        "sha256-q8ZrT2mK0vXw5LbNc7Yd1PfHs3q8ZrT2mK0vXw5LbNc=", "integrity = 'd41d8cd98f00b204e9800998ecf8427e'",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "task-sk-learning-rate-and-more-words-in-it-000",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----", "+1 - 2 - 3", "(555) 555-0123",
        "x = (212) - 736",
        "+1 555 123 4567", "1e+10 200 300 4000", "publicKeyToken=\"1fc8b3b9a1e18e3b\"",
    ],
)  # fmt: skip
def test_what_is_left_on_purpose(text: str) -> None:
    assert redact(text) == (text, Counter())


def test_a_digest_under_a_secret_name_is_a_key() -> None:
    assert redact("api_key = 'd41d8cd98f00b204e9800998ecf8427e'")[1] == {"key": 1}


def test_all_are_counted_by_kind() -> None:
    text = f"{AWS} a@firm.de b@firm.de\nserver 93.184.216.34\n{PEM}"
    assert redact(text)[1] == {"key": 1, "email": 2, "ip_address": 1, "private_key": 1}


def test_every_part_of_a_document_is_redacted_but_not_its_answer() -> None:
    document = Document("1", "s", "MIT", "p", prompt="ask jane@firm.de", completion="she is jane@firm.de",
                        messages=({"role": "user", "content": "jane@firm.de"},), answer="jane@firm.de")
    redacted, counts = redact_document(document)
    assert (redacted.prompt, redacted.completion) == ("ask <EMAIL>", "she is <EMAIL>")
    assert redacted.messages == ({"role": "user", "content": "<EMAIL>"},)
    assert redacted.answer == "jane@firm.de" and counts == {"email": 3}
    clean = Document("2", "s", "MIT", "p", text="nothing here")
    assert redact_document(clean)[0] is clean


PARTS = st.sampled_from([
    "a", "7", ".", "@", ":", "/", "//", "-", "+", "=", "'", '"', " ", "\n", "(", ")", "jane@firm.de", "93.184.216.34",
    "2a00:1450::1", "password = '", "Kx7!moRwt9", "api_key=", "q8ZrT2mK0vXw5LbN", "://u:", AWS, JWT[:30], "eyJ",
    "+49 30 9018 20 401", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "A" * 70, *PLACEHOLDERS.values(),
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PARTS, max_size=40).map("".join)))
def test_redacting_twice_changes_nothing_and_the_text_hardly_grows(text: str) -> None:
    once, counts = redact(text)
    assert redact(once) == (once, Counter())
    # The shortest match of all has six characters (a@b.cc), the longest placeholder sixteen.
    assert len(once) <= len(text) + 10 * sum(counts.values())
    assert (counts == Counter()) == (once == text)


ADVERSARIES = [
    "a@" * 50_000, "a" * 100_000 + "@", "@" * 100_000, "a.b." * 25_000 + "@c.de", "x@" + "a." * 50_000, "1." * 50_000,
    "1" * 100_000, "200.200.200." * 8_000, "2a00:" * 20_000, ":" * 100_000, "+1 2 3 4 " * 11_000, "+" * 100_000,
    "(" * 100_000, "eyJ" * 33_000, "-eyJa.eyJb" * 10_000, "sk-" * 33_000, "xoxb-" * 20_000, "='" * 50_000,
    "password='" * 10_000, "password=" * 11_000 + "'", "://a:" * 20_000, "://" + "a" * 100_000,
    "-----BEGIN PRIVATE KEY-----" * 3_700, "-----BEGIN PRIVATE KEY-----A" * 3_500 + "-----END PRIVATE KEY-----" * 3,
    "-----END PRIVATE KEY-----" * 3_900, "-----BEGIN PRIVATE KEY-----" + "n" * 100_000, " " * 100_000,
    "=\"" + "!" * 99_000,
]  # fmt: skip


def test_time_grows_with_the_text_and_no_faster() -> None:
    for text in ADVERSARIES:
        start = time.process_time()
        find(text)
        short = time.process_time() - start
        start = time.process_time()
        find(text * 4)
        long = time.process_time() - start
        # Four times the text takes four times as long; sixteen times would be quadratic. Small times are noise.
        assert long < 10 * short + 0.25, text[:40]
