"""Verifiable instructions of IFEval (Zhou et al., 2023), by their names and arguments there.

Language detection is left out; capital and small letters are checked without it. Words of the arguments are taken as
they are, not as patterns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from amenable.text.sentences import sentence_ends

Arguments = Mapping[str, Any]
Checker = Callable[[str, Arguments], bool]

CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""answers of which `constrained_response` asks for one"""
POSTSCRIPTS = {"P.P.S": r"\bp\.\s?p\.\s?s", "P.S.": r"\bp\.\s?s\."}


def follows(instruction: str, answer: str, arguments: Arguments) -> bool:
    """Return True if an answer that is not empty follows an instruction. KeyError for one that is not in CHECKERS."""
    return CHECKERS[instruction](answer, arguments) and bool(answer.strip())


def relation(count: int, threshold: int, name: str) -> bool:
    """Compare a count with a threshold: `less than` or `at least`. Raises ValueError for another name."""
    if name not in ("less than", "at least"):
        raise ValueError(f"unknown relation {name!r}")
    return count < threshold if name == "less than" else count >= threshold


def occurrences(word: str, text: str) -> int:
    """Count a word in a text, also inside other words; upper and lower case are the same."""
    return len(re.findall(re.escape(word), text, re.IGNORECASE))


def sentences(text: str) -> int:
    """Count the sentences of a text by their ends; a full stop of a common abbreviation is none."""
    ends = sentence_ends(text)
    rest = text[ends[-1] :] if ends else text
    return len(ends) + bool(rest.strip())


def has_keywords(answer: str, arguments: Arguments) -> bool:
    """Test that each keyword is there."""
    return all(occurrences(word, answer) for word in arguments["keywords"])


def keyword_frequency(answer: str, arguments: Arguments) -> bool:
    """Test how often a keyword is there."""
    return relation(occurrences(arguments["keyword"], answer), arguments["frequency"], arguments["relation"])


def no_forbidden_words(answer: str, arguments: Arguments) -> bool:
    """Test that no forbidden word is there as a whole word."""
    words = arguments["forbidden_words"]
    return not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in words)


def letter_frequency(answer: str, arguments: Arguments) -> bool:
    """Test how often a letter is there."""
    count = answer.lower().count(arguments["letter"].lower())
    return relation(count, arguments["let_frequency"], arguments["let_relation"])


def number_of_sentences(answer: str, arguments: Arguments) -> bool:
    """Test the number of sentences."""
    return relation(sentences(answer), arguments["num_sentences"], arguments["relation"])


def number_of_words(answer: str, arguments: Arguments) -> bool:
    """Test the number of words."""
    return relation(len(re.findall(r"\w+", answer)), arguments["num_words"], arguments["relation"])


def number_of_paragraphs(answer: str, arguments: Arguments) -> bool:
    """Test the number of paragraphs between lines of ***; none of them may be empty."""
    parts = [part.strip() for part in answer.split("***")]
    inner = parts[not parts[0] : len(parts) - (len(parts) > 1 and not parts[-1])]
    return all(inner) and len(inner) == arguments["num_paragraphs"]


def first_word_of_paragraph(answer: str, arguments: Arguments) -> bool:
    """Test the number of paragraphs between empty lines, and the first word of one of them."""
    paragraphs = answer.split("\n\n")
    count, number = sum(bool(part.strip()) for part in paragraphs), arguments["nth_paragraph"]
    if count != arguments["num_paragraphs"] or number > count or not paragraphs[number - 1].strip():
        return False
    word = paragraphs[number - 1].split()[0].lstrip("'\"").lower()
    return re.split(r"[.,?!'\"]", word)[0] == arguments["first_word"].lower()


def placeholders(answer: str, arguments: Arguments) -> bool:
    """Test that there are enough placeholders, such as [address]."""
    return len(re.findall(r"\[.*?\]", answer)) >= arguments["num_placeholders"]


def postscript(answer: str, arguments: Arguments) -> bool:
    """Test that there is a postscript with its marker."""
    marker = arguments["postscript_marker"]
    return bool(re.search(POSTSCRIPTS.get(marker, re.escape(marker.lower())), answer.lower()))


def bullet_points(answer: str, arguments: Arguments) -> bool:
    """Test the number of lines that begin with * or -."""
    return len(re.findall(r"^\s*(?:\*[^*\n]|-)", answer, re.MULTILINE)) == arguments["num_bullets"]


def constrained_response(answer: str, arguments: Arguments) -> bool:
    """Test that one of three answers is given."""
    return any(choice in answer for choice in CHOICES)


def highlights(answer: str, arguments: Arguments) -> bool:
    """Test that there are enough parts in *asterisks*, or in two; the latter count once for each pair of marks."""
    single, double = re.findall(r"\*[^\n*]*\*", answer), re.findall(r"\*\*[^\n*]*\*\*", answer)
    return sum(bool(part.strip("*").strip()) for part in (*single, *double)) >= arguments["num_highlights"]


def sections(answer: str, arguments: Arguments) -> bool:
    """Test that there are enough numbered sections, such as SECTION 1."""
    marker = re.escape(arguments["section_spliter"].strip())
    return len(re.findall(rf"{marker}\s?\d+", answer)) >= arguments["num_sections"]


def is_json(answer: str, arguments: Arguments) -> bool:
    """Test that the answer is JSON, maybe in a block of code."""
    try:
        json.loads(re.sub(r"^```(?:json)?|```$", "", answer.strip(), flags=re.IGNORECASE).strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str, arguments: Arguments) -> bool:
    """Test that there is a title in <<double brackets>>."""
    return any(part.strip("<>").strip() for part in re.findall(r"<<[^\n]+>>", answer))


def two_responses(answer: str, arguments: Arguments) -> bool:
    """Test that there are two different answers with ****** between them."""
    parts = [part.strip() for part in answer.split("******")]
    inner = parts[not parts[0] : len(parts) - (len(parts) > 1 and not parts[-1])]
    return all(inner) and len(inner) == 2 and inner[0] != inner[1]


def repeats_prompt(answer: str, arguments: Arguments) -> bool:
    """Test that the answer begins with the prompt."""
    return answer.strip().lower().startswith(arguments["prompt_to_repeat"].strip().lower())


def end_phrase(answer: str, arguments: Arguments) -> bool:
    """Test that the answer ends with a phrase."""
    return answer.strip().strip('"').lower().endswith(arguments["end_phrase"].strip().lower())


def capital_words(answer: str, arguments: Arguments) -> bool:
    """Test the number of words in capital letters."""
    words = re.findall(r"\w+(?:[-'\u2019]\w+)*", answer)
    return relation(
        sum(word.isupper() for word in words), arguments["capital_frequency"], arguments["capital_relation"]
    )


def all_capitals(answer: str, arguments: Arguments) -> bool:
    """Test that all letters are capital."""
    return answer.isupper()


def all_lower_case(answer: str, arguments: Arguments) -> bool:
    """Test that no letter is capital."""
    return answer.islower()


def no_comma(answer: str, arguments: Arguments) -> bool:
    """Test that there is no comma."""
    return "," not in answer


def quotation(answer: str, arguments: Arguments) -> bool:
    """Test that the whole answer is in double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKERS: Mapping[str, Checker] = {
    "keywords:existence": has_keywords,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": no_forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "length_constraints:number_sentences": number_of_sentences,
    "length_constraints:number_paragraphs": number_of_paragraphs,
    "length_constraints:number_words": number_of_words,
    "length_constraints:nth_paragraph_first_word": first_word_of_paragraph,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullet_points,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": highlights,
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeats_prompt,
    "startend:end_checker": end_phrase,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": all_capitals,
    "change_case:english_lowercase": all_lower_case,
    "punctuation:no_comma": no_comma,
}
"""by IFEval's names of the instructions"""
