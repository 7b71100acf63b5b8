"""IFEval's 25 kinds of constraints: each followed and broken, strict and loose, in every language."""

import json
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.api import Outcome, Task
from verifiers.instructions import LooseInstructions, StrictInstructions, read_constraints
from verifiers.rules import RULES
from verifiers.rules.language import LANGUAGES, is_language
from verifiers.rules.length_constraints import count_sentences

CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA agree.", "IT'S", "I think A is it", "STATE-OF-THE-ART, TOO"],
        ["NASA agrees.", "Nasa and Esa agree.", "12 34"]),
    "change_case:english_capital": (
        {}, ["THE CAT SAT ON THE MAT AND LOOKED AT THE MOON FOR A WHILE.", "OK!", "CALL 911 NOW."],
        ["The cat.", "LE CHAT EST SUR LA TABLE ET IL REGARDE LA LUNE AVEC SES AMIS POUR LE PLAISIR.", "123"]),
    "change_case:english_lowercase": (
        {}, ["what are the two boys holding?", "the cat sat on the mat and it was not happy about that."],
        ["The cat.", "le chat est sur la table et il regarde la lune avec ses amis.", "123"]),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Name a fish."},
        ["Name a fish.\n\nA cod.", "  name a FISH. Cod."], ["Cod.", "Name a fish"]),
    "combination:two_responses": (
        {}, ["one\n******\ntwo", "******one******two******"],
        ["one", "one******one", "a******b******c", "a************b", "a***b"]),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2}, ["[name] and [place]", "[a]\n[b] [c]", "[[a] [b]"], ["[name]", "[a\nb] [c]", "]] [["]),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"}, ["Bye\nP.P.S more", "p. p. s. more", "P.P.S."], ["P.S. more", "pps"]),
    "detectable_format:constrained_response": (
        {}, ["My answer is no.", "Well. My answer is maybe."],
        ["No.", "my answer is no.", "My answer is yes. My answer is no."]),
    "detectable_format:json_format": (
        {}, ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```"],
        ["{a: 1}", 'Here: {"a": 1}', '{"a": 1} {"b": 2}', "[" * 100_000]),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2}, ["Section 1\na\nSection 2\nb", "Section1 a Section2 b"],
        ["Section 1", "SECTION 1 SECTION 2", "Section A Section B"]),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2}, ["* a\n* b", "- a\n  * b", "text\n*a\n-b\nmore"], ["* a", "* a\n* b\n* c", "** a\n** b"]),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2}, ["*a* and *b*", "**a**\n**b**", "*a*\n**b**"], ["*a*", "** ** *a*", "a\n*b\n*c"]),
    "detectable_format:title": (
        {}, ["<<Joy>>\ntext", "text <<a title>> text"], ["<Joy>", "<<>>", "<< >>", "<<a\nb>>", ">>a<<"]),
    "keywords:existence": ({"keywords": ["sea", "C++"]}, ["Seaside in c++"], ["sea", "C"]),
    "keywords:forbidden_words": (
        {"forbidden_words": ["rock", "C++"]}, ["rocket", "C", ""], ["Rock!", "a rock", "in C++ it is"]),
    "keywords:frequency": (
        {"keyword": "war", "frequency": 2, "relation": "less than"}, ["peace", "War"], ["war and War", "warm wars"]),
    "keywords:letter_frequency": (
        {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, ["Quick quiz", "qq"], ["q", "kick"]),
    "language:response_language": (
        {"language": "de"}, ["Das ist der Hund, und er schl\u00e4ft nicht im Haus, sondern auf dem Sofa bei uns."],
        ["This is the dog, and it does not sleep in the house but on the sofa.", "42", "\u044d\u0442\u043e"]),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"}, ["One.\n\nthen two.", "One.\n\n'Then', two."],
        ["Then one.", "One.\n\nNext.", "One.\n\nThen.\n\nThree.", "One.\nThen two."]),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2}, ["a\n***\nb", "***\na\n***\nb\n***"], ["a", "a\n\nb", "a***b***c", "a***  ***b"]),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "at least"}, ["One. Two.", "Is it? Yes", "\u4e00\u3002\u4e8c\u3002"],
        ["One", "Dr. No has 3.5 dogs.", "Mr. A. B. Smith came at 5 p.m. today."]),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "less than"}, ["one two", "well-known"], ["one two three", "a b c d"]),
    "punctuation:no_comma": ({}, ["no commas; none"], ["a, b", "1,000"]),
    "startend:end_checker": (
        {"end_phrase": "Peace!"}, ["War. Peace!", 'War. "PEACE!"', "peace!\n"], ["Peace! Now.", "Peace"]),
    "startend:quotation": ({}, ['"all of it"', ' "a" and "b" '], ['"', "all", '"half']),
}
SAMPLES = {
    "en": "The old bridge was closed for two years, but the people of the town can use it again from this week.",
    "es": "El puente viejo estuvo cerrado durante dos años, pero la gente del pueblo lo puede usar desde esta semana.",
    "pt": "A ponte velha esteve fechada por dois anos, mas as pessoas da cidade já podem passar por ela nesta semana.",
    "fr": "Le vieux pont a été fermé pendant deux ans, mais les gens de la ville peuvent y passer cette semaine.",
    "de": "Die alte Brücke war zwei Jahre lang gesperrt, aber seit dieser Woche können die Leute sie wieder benutzen.",
    "it": "Il vecchio ponte è rimasto chiuso per due anni, ma la gente del paese lo può usare da questa settimana.",
    "pl": "Stary most był zamknięty przez dwa lata, ale od tego tygodnia mieszkańcy miasta mogą z niego korzystać.",
    "vi": "Cây cầu cũ đã đóng cửa trong hai năm, nhưng người dân của thị trấn có thể đi lại từ tuần này.",
    "sw": "Daraja la zamani lilifungwa kwa miaka miwili, lakini watu wa mji huu wanaweza kulitumia tena wiki hii.",
    "fi": "Vanha silta oli suljettu kaksi vuotta, mutta kaupungin ihmiset voivat käyttää sitä taas, kun viikko alkaa.",
    "nl": "De oude brug was twee jaar dicht, maar de mensen van het dorp kunnen hem vanaf deze week weer gebruiken.",
    "ru": "Старый мост был закрыт два года, но с этой недели люди могут снова по нему ходить, и все рады.",
    "uk": "Старий міст був закритий два роки, але з цього тижня люди можуть знову ним ходити, і всі раді.",
    "bg": "Старият мост беше затворен две години, но от тази седмица хората могат да минават по него и са доволни.",
    "ar": "كان الجسر القديم مغلقا منذ سنتين، ولكن سكان المدينة يمرون على هذا الجسر من أول هذا الأسبوع.",
    "fa": "پل قدیمی دو سال بسته بود و از این هفته مردم شهر می توانند از آن برای رفتن به بازار استفاده کنند.",
    "ur": "پرانا پل دو سال تک بند تھا اور اس ہفتے سے شہر کے لوگ اس پر سے گزر سکتے ہیں۔",
    "hi": "पुराना पुल दो साल तक बंद था और अब शहर के लोग इस सप्ताह से उस पर चल सकते हैं।",
    "mr": "जुना पूल दोन वर्षे बंद होता आणि या आठवड्यापासून शहरातील लोकांना तो वापरता येतो, ही चांगली बातमी आहे.",
    "ne": "पुरानो पुल दुई वर्ष बन्द थियो र यो हप्तादेखि शहरका मानिसहरूले फेरि प्रयोग गर्न पाउने भएका छन्।",
    "el": "Η παλιά γέφυρα ήταν κλειστή.", "he": "הגשר הישן היה סגור.",
    "bn": "পুরনো সেতুটি বন্ধ ছিল।", "pa": "ਪੁਰਾਣਾ ਪੁਲ ਬੰਦ ਸੀ।",
    "gu": "જૂનો પુલ બંધ હતો.", "ta": "பழைய பாலம் மூடப்பட்டது.",
    "te": "పాత వంతెన మూసివేయబడింది.", "kn": "ಹಳೆಯ ಸೇತುವೆ ಮುಚ್ಚಿತ್ತು.",
    "ml": "പഴയ പാലം അടച്ചിരുന്നു.", "th": "สะพานเก่าปิดอยู่",
    "ko": "오래된 다리는 닫혀 있었다.", "ja": "古い橋は二年間閉まっていた。", "zh": "这座旧桥关闭了两年。",
}


def task(*constraints: tuple[str, dict[str, Any]]) -> Task:
    names, arguments = [name for name, _ in constraints], [given for _, given in constraints]
    return Task("t", "", "", "instructions", {"instruction_id_list": names, "kwargs": arguments})


def test_all_25_published_kinds_are_known_and_have_cases() -> None:
    assert len(RULES) == 25 and set(CASES) == set(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_kind_tells_followed_from_broken(name: str) -> None:
    given, right, wrong = CASES[name]
    arguments = RULES[name].arguments(given)
    for response in right:
        assert RULES[name].follows(response, **arguments), response
        if response:
            assert StrictInstructions().judge(task((name, given)), response).outcome is Outcome.CORRECT
    for response in wrong:
        assert not RULES[name].follows(response, **arguments), response
        assert StrictInstructions().judge(task((name, given)), response).outcome is Outcome.INCORRECT


def test_every_language_is_told_from_every_other() -> None:
    assert set(SAMPLES) == set(LANGUAGES)
    for own, text in SAMPLES.items():
        assert [language for language in LANGUAGES if is_language(text, language)] == [own]
        assert is_language(text.upper(), own)


def test_names_in_another_script_do_not_change_a_language_but_a_second_language_does() -> None:
    assert is_language(SAMPLES["hi"] + " (Prefect)", "hi")
    assert not is_language(SAMPLES["hi"] + " " + SAMPLES["en"], "hi")
    assert not is_language(SAMPLES["en"] + " " + SAMPLES["zh"] * 20, "en")
    assert not is_language("blorp fleem glork wubba snorf plink quux zorp blix frob grault wibble", "sw")


def test_the_score_is_the_share_that_is_followed() -> None:
    constraints = task(("punctuation:no_comma", {}), ("startend:quotation", {}), ("detectable_format:title", {}))
    verdict = StrictInstructions().judge(constraints, '"<<a>>, b"')
    assert (verdict.outcome, verdict.extracted) == (Outcome.INCORRECT, "2 of 3")
    assert verdict.score == pytest.approx(2 / 3)
    assert verdict.reason == "not_followed: punctuation:no_comma"
    assert StrictInstructions().judge(constraints, '"<<a>> b"').reason == "followed_all"


@pytest.mark.parametrize(("constraint", "response"), [
    (("startend:quotation", {}), 'Sure:\n"all of it"'),
    (("startend:quotation", {}), '"all of it"\nI hope that helps'),
    (("startend:quotation", {}), 'Sure:\n"all of it"\nBye'),
    (("startend:end_checker", {"end_phrase": "The end."}), "Well. **The end.**"),
    (("punctuation:no_comma", {}), "Sure, here it is:\nno commas"),
])
def test_the_loose_form_forgives_a_first_line_a_last_line_and_asterisks(
        constraint: tuple[str, dict[str, Any]], response: str) -> None:
    assert StrictInstructions().judge(task(constraint), response).outcome is Outcome.INCORRECT
    assert LooseInstructions().judge(task(constraint), response).outcome is Outcome.CORRECT


def test_the_thinking_is_no_part_of_the_response() -> None:
    constraint = task(("punctuation:no_comma", {}))
    assert StrictInstructions().judge(constraint, "<think>well, well</think>yes").outcome is Outcome.CORRECT
    assert StrictInstructions().judge(constraint, "<think>well</think>well, yes").outcome is Outcome.INCORRECT


@pytest.mark.parametrize(("metadata", "reason"), [
    ({}, "no_instructions"), ({"instruction_id_list": []}, "no_instructions"),
    ({"instruction_id_list": ["punctuation:no_comma"]}, "kwargs_do_not_match_instructions"),
    ({"instruction_id_list": ["punctuation:no_dots"], "kwargs": [{}]}, "unknown_instruction: punctuation:no_dots"),
    ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [7]}, "kwargs_unreadable: punctuation:no_comma"),
    ({"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 5}]},
     "kwargs_unreadable: length_constraints:number_words.relation"),
    ({"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "xx"}]},
     "kwargs_unreadable: language:response_language.language"),
])
def test_a_fault_of_the_data_gives_no_verdict(metadata: dict[str, Any], reason: str) -> None:
    verdict = StrictInstructions().judge(Task("t", "", "", "instructions", metadata), "text")
    assert (verdict.outcome, verdict.reason) == (Outcome.NO_VERDICT, reason)


def test_null_and_floating_arguments_of_tables_are_read() -> None:
    given = {"num_words": 3.0, "relation": "at least", "keywords": None, "language": None}
    verdict = StrictInstructions().judge(task(("length_constraints:number_words", given)), "one two three")
    assert verdict.outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", ["", " \n", "\u200b" * 0])
def test_an_empty_response_follows_nothing(response: str) -> None:
    verdict = StrictInstructions().judge(task(("punctuation:no_comma", {})), response)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCORRECT, "empty_response")


@pytest.mark.parametrize(("text", "count"), [
    ("One. Two! Three?", 3), ("No end", 1), ("", 0), ("...", 1), ("Wait... what? Yes.", 2),
    ("It costs $3.50. Cheap!", 2),
    ("He said \"Go.\" Then he left.", 2), ("Dr. Ada B. Lane met Mr. Poe at 5 p.m. on Monday.", 1),
    ("a b. c d. e f.", 3),
    ("See e.g. the U.S. Navy. It floats.", 2), ("Visit example.com now. OK?", 2), ("One.\n\nTwo.", 2),
    ("\u4e00\u53e5\u8bdd\u3002\u4e24\u53e5\u8bdd\uff01", 2),
])
def test_sentences_are_counted_as_a_reader_does(text: str, count: int) -> None:
    assert count_sentences(text) == count


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(alphabet=string.printable + "\u00e9\u0915\u3042\ud7ff\u2028", max_size=80))
def test_no_rule_raises_on_any_text_and_loose_forgives_at_least_as_much(response: str) -> None:
    for name, (arguments, _, _) in CASES.items():
        strict = StrictInstructions().judge(task((name, arguments)), response)
        loose = LooseInstructions().judge(task((name, arguments)), response)
        assert strict.outcome is not Outcome.NO_VERDICT and loose.score >= strict.score


@pytest.mark.parametrize("piece", [
    "\n", "[", "*", "<", " ", ". ", "*\n", "<<", "'", "a.", '"). ', "p. p. ", "Section ",
])
def test_every_rule_is_linear_in_a_hostile_response(piece: str) -> None:
    def seconds(length: int) -> float:
        response = piece * (length // len(piece))
        began = time.process_time()
        for name, (arguments, _, _) in CASES.items():
            RULES[name].follows(response, **RULES[name].arguments(arguments))
        return time.process_time() - began

    assert seconds(80_000) < 30 * max(seconds(8_000), 0.01)  # ten times the length; a quadratic rule takes a hundred


def test_the_published_prompts_can_all_be_judged(data_mirror: Path) -> None:
    lines = (data_mirror / "ifeval" / "ifeval.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 541
    assert sum(len(read_constraints(row)) for row in rows) == 834
    for row in rows:
        verdict = LooseInstructions().judge(Task("t", row["prompt"], "", metadata=row), "Some response.")
        assert verdict.outcome is not Outcome.NO_VERDICT
