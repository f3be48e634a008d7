r"""Where a response states its final answer.

One order of evidence, strongest first:

1. `tag`: the last `<answer>...</answer>`, `<|begin_of_box|>...`, `[Answer] ...`;
2. `line`: the last line "Answer: ...", "### Final answer", "答案: ...", whatever dresses it;
3. `statement` ("the answer is ...", "option B is correct", "so C", "故选C") or `boxed`
   (`\boxed{}`), whichever comes last;
4. `gsm8k`: a last line "#### ..." or "A: ..." of an open question;
5. `letter`: a response that begins or ends with a letter, or names one alone in parentheses;
6. `option_text`: one that is, or names alone, the text of an option;
7. `value`: one that is a number, formula, yes or no, or a sentence that holds one number.

What a denial ("it is not A") or a condition ("if it is red, the answer is A") says is no evidence.
With options a letter outranks what is beside it, and a statement that names no option counts only
as far as it is a value.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from dreamprm.answers.formula import is_formula
from dreamprm.answers.options import (
    letter_beside_text,
    letter_index,
    letters_at,
    letters_together,
    mentions,
    place_of,
    skip_lead,
)
from dreamprm.answers.quantities import number_words, parse_quantity
from dreamprm.answers.text import clean, find_boxes, polarity, yes_no


class Reading(NamedTuple):
    """What was read as the final answer.

    Attributes:
        answer: as the response writes it, without its dress; None where it states none.
        rule: what it was read by, see the module; without an answer `empty`, `refused`, `cut` (it
            ends within a sentence) or `unstated`.
        start: where the answer stands in the response.
        end: likewise.
    """

    answer: str | None
    rule: str
    start: int = 0
    end: int = 0


class _Span(NamedTuple):
    rule: str
    start: int
    end: int


_LOOKED_AT = 100_000  # characters from the end
_PHRASE = 300  # characters behind a lead
_MOST_LEADS = 50  # that are tried, from the last one backwards
_LONGEST_BEFORE = 60  # characters on the line before "answer"
_LONGEST_BARE = 40  # characters of a response that is nothing but a formula
_LONGEST_SENTENCE = 200  # characters of one that says no more than a number

_FOLD = str.maketrans(  # one character for one, so that places in the text stay
    "\uff1a\uff08\uff09\u3010\u3011\uff0e\uff0c\u2019\u2018\u201c\u201d\u00a0\u200b\ufeff\u2060\r",
    ":()[].,''\"\"     ",
)
_EMPHASIS = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)|(?<!\w)__(?=[A-Za-z])|(?<=[A-Za-z.:)])__(?!\w)")
_THOUGHT = re.compile(r"</think(?:ing)?>|\u25c1/think\u25b7", re.IGNORECASE)
_NEXT_TURN = re.compile(  # the model goes on alone, or a token ends its turn
    r"\n[ \t]*(?:Human|User|Question|Q)\s*\d*\s*:|</s>|<\|(?:im_end|eot_id|endoftext)\|>"
)
_TAG = re.compile(
    r"(?P<open><(?:(?:final_)?answer|conclusion)>|<\|begin_of_box\|>"
    r"|\[(?:(?:final )?answer|\u7b54\u6848)\])|</(?:(?:final_)?answer|conclusion)>"
    r"|<\|end_of_box\|>|\[(?:/?[a-z]{4,12}|[\u4e00-\u9fff]{2,4})\]",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\banswer(?=s?\b)|\bans(?=[:.=]?\s)|\u7b54\u6848|\u7b54(?=[:])", re.IGNORECASE
)
_MARK = re.compile(
    r"s?(?: (?:choice|option|letter))?[ \t\"'`*_)]*(?:(?:is[ \t]*)?[:=\u2192]|(?<=ans)\.)"
    r"|s?[ \t*_#]*(?=\n)|s?[ \t]+[-\u2013\u2014](?=\s)|\s*(?:\u5e94\u8be5?)?[\u662f\u4e3a\u9009]",
    re.IGNORECASE,
)
_IS = re.compile(
    r"s?(?:\s+(?:to|of|for|from|among|in|that|which|choice|option|letter|here|would|should|must"
    r"|will|has|seems|appears|I|we)\b[^.\n:;]{0,80}?|,[^.\n:;]{1,60},)?\s+(?:is|are|was|be|being)\b\s*:?"
    r"|s?[ \t\"'`*_)]*:|\s*(?:\u5e94\u8be5?)?[\u662f\u4e3a\u9009]",
    re.IGNORECASE,
)
_BEFORE_MARK = re.compile(
    r"[\W\d_]*(?:(?:step|text|textbf)[\W\d_]+)?(?:(?:so|hence|thus|therefore),?\s+)?"
    r"(?:the\s+|my\s+)?(?:(?:final|correct|right|best|short)\s+){0,2}"
    r"|[\W\d_]*(?:\u6b63\u786e|\u6700\u7ec8)?",
    re.IGNORECASE,
)
_CHOOSES = re.compile(
    r"\b(?:option|choice|letter|match|pick|one|guess|correct|right|best)\b[^.\n;:]{0,80}?"
    r"\b(?:is|be)\b:?"
    r"|\b(?:choose|select|pick|go (?:with|for)|opt for|conclude|leaves"
    r"|I (?:think|guess|would say))\b:?"
    r"|\b(?:option|choice|guess|conclusion|solution|result|response|prediction|output|summary)[*_]*:"
    r"|\b(?:corresponds? to|match(?:es)?|only)(?=\s+(?:option|choice|\())"
    r"|\bin conclusion,|\bleaves only\b"
    r"|\b(?:so|thus|hence|therefore|it is|it's|this is|that is|must be|has to be|should be)\b[,:]?"
    r"|\u9009\u9879\s*[\u662f\u4e3a:]|\u9009\u62e9?",
    re.IGNORECASE,
)
_IS_RIGHT = re.compile(
    r"\b(?:is|are|seems?|appears?|(?:would|must|should|will|has to|seems to|appears to) be)\s+"
    r"(?:both\s+|clearly\s+)?(?:the\s+)?(?:most\s+)?(?:correct|right|best|answer)\b"
    r"|\bfits?(?= best|\s*[.\n]|\s*\Z)|\u9879?(?:[\u662f\u4e3a])?\u6b63\u786e|\u662f\u7b54\u6848",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"(?:\A|[^A-Za-z\d'-])(?P<named>(?i:options?|choices?|answers?)\s+)?"
    r"(?P<letters>[(\[]?[A-Z][)\]]?(?:\s*(?:,|and|&)\s*[(\[]?[A-Z][)\]]?){0,4})\Z"
)
_LONGEST_SUBJECT = 30
_RULED_OUT = re.compile(
    r"\b(?:not|than|instead of|unlike|nor)\s+(?:(?:the|an?|in)\s+)?\Z", re.IGNORECASE
)
_DENIED = re.compile(r"[\W_]*(?:not|neither|never|nor|unclear|unknown)\b", re.IGNORECASE)
_STOP = re.compile(r"[.!?](?=[\s\"')*]|\Z)|\n|\u3002")
_CONDITION = re.compile(r"\W*(?:if|unless|suppose|assuming)\b", re.IGNORECASE)
_INFERRED = re.compile(r"\b(?:so|thus|hence|therefore|we (?:get|have|find))\b", re.IGNORECASE)
_REASON = re.compile(
    r",?\s+\(?(?:because|since|due to|as (?:the|it|this|there|they)|which (?:is|means)|based on"
    r"|not|I (?:think|believe|guess|hope))\b|,\s*\"\w+\"\s*:"
)
_SAYS = re.compile(  # what leads to the value within a sentence
    r"\s*(?:(?:that )?(?:there|it|(?:the|its?|this|that)\b[^.,:;=\n]{0,80}?) (?:is|are|was|were) "
    r"|[^.\n]{0,100}=(?=[^=\n]{1,20}\Z))(?:(?:only|exactly|a total of|equal to) )?",
    re.IGNORECASE,
)
_GSM8K = re.compile(r"(?:\A|\n)[ \t]*(?:####[ \t]*|A:[ \t]+)(?P<answer>[^\n]+)\Z")
_ONE_LETTER = re.compile(r"[(\[]\s*([A-Z])\s*[)\].]|[(\[]?([a-h])[)\]]")
_IN_PARENTHESES = re.compile(r"[(\[]\s*([A-Z])\s*[)\]]")
_ITEM = re.compile(r"\b([A-Z])[).:\]]\s{0,3}")  # of a list of options
_NUMBER = re.compile(
    r"(?<![A-Za-z\d.,_^])(?<!\^\{)[-\u2212]?\d[\d,]*(?:\.\d+)?%?(?![\d^/*])(?!\.\d)"
)
_REFUSES = re.compile(
    r"can\s?not|can't|unable|impossible|not possible|insufficient|not enough|sorry|no idea"
    r"|(?:do|does|did)(?:n't| not) (?:have|know|see|provide|show|contain|give)"
    r"|without (?:the|an?|more|seeing)\b|no (?:image|picture|information|way|figure)"
    r"|\u65e0\u6cd5|\u4e0d\u80fd",
    re.IGNORECASE,
)
_IMPERSONAL = re.compile(  # what may be an answer as well as a refusal
    r"(?:it )?(?:can\s?not|can't) be \w+|none(?: of (?:these|the above|them))?|no solutions?"
    r"|undefined|does not exist|impossible|unknown",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(r"[\W_]*step\s+\d", re.IGNORECASE)  # a reasoning that was cut, no answer
_BESIDE = re.compile(r"(?:\A|\s)(?P<letter>[(\[]?[A-Z][).:\]]\s*)\Z")
_COUNTS = re.compile(  # the number that is said, whatever numbers the rest of the sentence has
    r"\s*(?:[^.,\d]*, )?(?:there (?:is|are|were|was)(?: (?:only|exactly|a total of))? )?"
)
_LABEL = re.compile(r"\s*A:\s+(?=\S)")  # "A: ..." answers "Q: ..."
_WORD = re.compile(r"[A-Za-z]+")
_GOES_ON = re.compile(r"\s+(?:is|are|and|or)\b")
_EMPTY = re.compile(
    r"(?:[\s#>*_`:=\"'\u2192\u2013\u2014]|-(?=\s)|\\[\[(]\s*(?=\n)|\$+\s*(?=\n)|```\w*(?=\n))*"
)
_ENDS = ".!?:;)]}\"'`$*|>\u3002"


def extract_answer(text: str, options: Sequence[str] = ()) -> str | None:
    """The final answer that a response states, or None; `read_answer` says more.

    Args:
        text: the response.
        options: the option texts of the question, if it has any.

    Example:
        >>> extract_answer("Step 1: 3 + 5 = 8\\nFinal answer: **8**.")
        '8'
    """
    return read_answer(text, options).answer


def read_answer(text: str, options: Sequence[str] = ()) -> Reading:
    """The final answer that a response states, the rule that read it, and where it stands.

    Takes time linear in the length of the text, of which the last 100,000 characters are read.

    Args:
        text: the response.
        options: the option texts of the question, if it has any.

    Example:
        >>> read_answer("It is B, not A.", ["Rome", "Paris"])
        Reading(answer='B', rule='statement', start=6, end=7)
    """
    offset = max(0, len(text) - _LOOKED_AT)
    folded = _EMPHASIS.sub("  ", text[offset:].translate(_FOLD)).rstrip()
    if not folded.strip():
        return Reading(None, "empty")
    thoughts = [t.end() for t in _THOUGHT.finditer(folded) if t.end() < len(folded)]
    if thoughts:
        offset, folded = offset + thoughts[-1], folded[thoughts[-1] :]
    turn = _NEXT_TURN.search(folded)
    own = folded[: turn.start()].rstrip() if turn else folded
    span = _tagged(folded, options) or _untagged(own, options)
    if turn and span is None:
        span = _untagged(folded, options)
    if span is None:
        return Reading(None, _why_not(folded))
    answer = clean(folded[span.start : span.end])
    letter = _ONE_LETTER.fullmatch(answer)
    if letter and place_of(answer, options) is None:
        answer = letter[1] or letter[2].upper()
    return Reading(answer, span.rule, offset + span.start, offset + span.end)


def _untagged(text: str, options: Sequence[str]) -> _Span | None:
    for reader in (_marked, _stated, _gsm8k, _whole, _lettered, _named, _number):
        span = reader(text, options)
        if span is not None and clean(text[span.start : span.end]):
            return span
    return None


def _tagged(text: str, options: Sequence[str]) -> _Span | None:
    """The last tag with a content that is no tag; a statement within it counts first."""
    end = len(text)
    for tag in reversed(list(_TAG.finditer(text))):
        content = text[tag.end() : end].rstrip()
        end = tag.start()
        if tag["open"] is None or not clean(content):
            continue
        within = _untagged(content, options) or _Span("tag", 0, len(content))
        return _Span("tag", tag.end() + within.start, tag.end() + within.end)
    return None


def _marked(text: str, options: Sequence[str]) -> _Span | None:
    """The last line that is marked as the answer."""
    for lead in _last(_ANSWER, text):
        mark = _MARK.match(text, lead.end())
        line = text.rfind("\n", max(0, lead.start() - _LONGEST_BEFORE), lead.start()) + 1
        before = text[line : lead.start()]
        if mark is None or len(before) > _LONGEST_BEFORE or not _BEFORE_MARK.fullmatch(before):
            continue
        if answer := _answer_at(text, mark.end(), options, is_line=True):
            return _Span("line", *answer)
    return None


def _stated(text: str, options: Sequence[str]) -> _Span | None:
    """The last statement, or the last box where that comes later."""
    leads = [(m.end(), True) for lead in _last(_ANSWER, text) if (m := _IS.match(text, lead.end()))]
    if options:
        leads += [(lead.end(), False) for lead in _last(_CHOOSES, text)]
    stated = None
    for start, names_answer in sorted(leads, reverse=True):
        if not _is_conditional(text, start):
            stated = _answer_at(text, start, options, letter_only=not names_answer)
        if stated:
            break
    for lead in _last(_IS_RIGHT, text):
        if stated and lead.start() < stated[0]:
            break
        begin = max(0, lead.start() - _LONGEST_SUBJECT)
        subject = _SUBJECT.search(text[begin : lead.start()].rstrip())
        if subject and (options or subject["named"]):
            stated = begin + subject.start("letters"), begin + subject.end("letters")
            break
    box = max(find_boxes(text), default=None)
    counts = stated is not None and (bool(options) or _is_value(text[slice(*stated)]))
    if box and not (stated and counts and box[0] < stated[0]):
        boxed = _option_in(text[slice(*box)], options, box[0]) if options else box
        if boxed or not stated:
            return _Span("boxed", *(boxed or box))
    return _Span("statement", *stated) if stated else None


def _gsm8k(text: str, options: Sequence[str]) -> _Span | None:
    marked = None if options else _GSM8K.search(text)
    return _Span("gsm8k", *marked.span("answer")) if marked else None


def _whole(text: str, options: Sequence[str]) -> _Span | None:
    """A response that is nothing but an option's text or a value, or opens with yes or no."""
    start = _start(text, options)
    whole = clean(text[start:])
    if place_of(whole, options) is not None:
        return _Span("option_text", start, len(text))
    word = _WORD.search(text, start)
    if word and _says_yes_or_no(whole, options):
        return _Span("value", *word.span())
    is_short = "\n" not in whole and len(whole) <= _LONGEST_BARE and not _UNFINISHED.match(whole)
    is_alone = is_short and (_is_value(whole) or (not options and _IMPERSONAL.fullmatch(whole)))
    return _Span("value", start, len(text)) if is_alone else None


def _lettered(text: str, options: Sequence[str]) -> _Span | None:
    """A letter that a response begins with, or that its last line is, alone or with its text."""
    start, last_line = _start(text, options), text.rfind("\n") + 1
    for begin in dict.fromkeys((start, last_line)):
        letters = letters_at(text, _content(text, begin))
        if letters is None or (options and max(letters.places) >= len(options)):
            continue
        is_alone = not text[letters.end :].strip(" .*:)]\"'`$}")
        if is_alone or (options and begin == start and not _lists_options(text, options)):
            return _Span("letter", letters.start, letters.end)
    begin = _content(text, last_line)
    is_item = letter_beside_text(clean(text[begin:]), options) is not None
    if is_item and not _ends_with_list(text, options):
        return _Span("letter", begin, len(text))
    return None


def _named(text: str, options: Sequence[str]) -> _Span | None:
    """The only option that the last sentence, the first, or all of the response names."""
    if not options:
        return None
    for start in (text.rfind("\n") + 1, 0):
        letters = [
            letter
            for letter in _IN_PARENTHESES.finditer(text, start)
            if letter_index(letter[1]) < len(options)
        ]
        if len({letter[1] for letter in letters}) == 1 and not _lists_options(text, options):
            return _Span("letter", *letters[-1].span())
    if _ends_with_list(text, options):
        return None
    stops = [0, *(stop.end() for stop in _STOP.finditer(text)), len(text)]
    sentences = [(a, b) for a, b in pairwise(stops) if text[a:b].strip(" \t\n*\"'`")]
    parts = dict.fromkeys([*sentences[-1:], *sentences[:1], (0, len(text))])
    for start, end in parts:
        sentence = text[start:end]
        named = mentions(sentence, options)
        if len({m.place for m in named}) > 1:  # "Paris, not Rome"
            named = [
                m for m in named if not _RULED_OUT.search(sentence[max(0, m.start - 20) : m.start])
            ]
        if len({m.place for m in named}) == 1 and (
            not _REFUSES.search(sentence) or _REFUSES.search(options[named[-1].place])
        ):
            letter = _BESIDE.search(sentence[: named[-1].start])
            begin = letter.start("letter") if letter else named[-1].start
            return _Span("option_text", start + begin, start + named[-1].end)
    return None


def _number(text: str, options: Sequence[str]) -> _Span | None:
    """The one number of a response that is one sentence."""
    whole = text.strip()
    if options or len(whole) > _LONGEST_SENTENCE or "\n" in whole or _UNFINISHED.match(whole):
        return None
    if _REFUSES.search(whole):
        return None
    says = _SAYS.match(text)
    if says and _is_value(text[says.end() :]):
        return _Span("value", says.end(), len(text))
    numbers = sorted([*_NUMBER.finditer(text), *number_words(text)], key=re.Match.start)
    counts = [n for n in numbers if _COUNTS.fullmatch(text, 0, n.start())]
    if len(counts or numbers) != 1:
        return None
    return _Span("value", *(counts or numbers)[0].span())


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The last matches, from the last one backwards."""
    return list(deque(pattern.finditer(text), maxlen=_MOST_LEADS))[::-1]


def _start(text: str, options: Sequence[str]) -> int:
    """Where a response begins, behind the label of "A: ..." where that is no option's letter."""
    label = _LABEL.match(text)
    is_letter = label and options and clean(text[label.end() :]).startswith(clean(options[0]))
    return label.end() if label and not is_letter else len(text) - len(text.lstrip())


def _content(text: str, start: int) -> int:
    """Where a text goes on behind dress and what only announces an answer."""
    dress = _EMPTY.match(text, start)
    return skip_lead(text, dress.end() if dress else start)


def _answer_at(
    text: str,
    start: int,
    options: Sequence[str],
    *,
    is_line: bool = False,
    letter_only: bool = False,
) -> tuple[int, int] | None:
    """The answer that stands behind a lead, or None where none does.

    Args:
        start: just behind the lead.
        is_line: of a line "Answer: ...", which is the answer to its end.
        letter_only: of a lead that also opens other sentences ("so", "it is").
    """
    begin = _content(text, start)
    end = _end_of_phrase(text, begin)
    if begin == end or _DENIED.match(text, begin, end):
        return None
    quote = text[begin - 1 : begin]
    if quote in ('"', "'") and (closes := text.find(quote, begin, end)) > 0:
        end = closes
    if boxes := find_boxes(text[begin:end]):
        begin, end = begin + boxes[-1][0], begin + boxes[-1][1]
    if options:
        named = _option_in(text[begin:end], options, begin, letter_only=letter_only)
        if named or letter_only:
            return named
    head = _REASON.split(text[begin:end], maxsplit=1)[0]
    stop = _STOP.search(head)
    if stop and (not is_line or _is_value(head[: stop.start()])):
        head = head[: stop.start()]
    head = head.rstrip()
    says = None if options or _is_value(head) else _SAYS.match(head)
    if says and _is_value(head[says.end() :]):
        begin, head = begin + says.end(), head[says.end() :]
    return (begin, begin + len(head)) if not options or _is_value(head) else None


def _end_of_phrase(text: str, begin: int) -> int:
    """The end of the line, or where a bracket closes that was opened before."""
    newline = text.find("\n", begin, begin + _PHRASE)
    end = newline if newline >= 0 else min(len(text), begin + _PHRASE)
    depth = 0
    for i in range(begin, end):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth < 0:
            return i
    return end


def _option_in(
    phrase: str, options: Sequence[str], offset: int, *, letter_only: bool = False
) -> tuple[int, int] | None:
    """What in a phrase names an option: its text, a letter at its start, or its only mention."""
    sentence = _STOP.split(phrase, maxsplit=1)[0]
    for whole in (phrase, sentence):
        is_text = place_of(whole, options) is not None
        if is_text or letters_together(clean(whole), len(options)):
            return offset, offset + len(whole)
    letters = letters_at(phrase, skip_lead(phrase))
    if letters is not None and max(letters.places) < len(options):
        is_subject = letter_only and _GOES_ON.match(phrase, letters.end)
        return None if is_subject else (offset + letters.start, offset + letters.end)
    if letter_only:
        return None
    named = mentions(sentence, options)
    is_first = bool(named) and not re.search(r"[a-z]{3}", sentence[: named[0].start])
    if is_first or len({m.place for m in named}) == 1:
        return offset + named[0].start, offset + named[0].end
    return (offset, offset + len(sentence)) if _says_yes_or_no(clean(sentence), options) else None


def _is_value(text: str) -> bool:
    text = clean(text)
    return polarity(text) is not None or parse_quantity(text) is not None or is_formula(text)


def _says_yes_or_no(text: str, options: Sequence[str]) -> bool:
    """Does it open with yes or no, where that is a choice?"""
    said = yes_no(text)
    is_choice = not options or any(polarity(clean(option)) == said for option in options)
    return said is not None and is_choice


def _is_conditional(text: str, start: int) -> bool:
    """Does its sentence say "if ..., the answer is"?"""
    sentence = _STOP.split(text[max(0, start - _PHRASE) : start])[-1]
    return bool(_CONDITION.match(sentence)) and not _INFERRED.search(sentence)


def _lists_options(text: str, options: Sequence[str]) -> bool:
    """Does it repeat two options with their letters, so that a letter alone chooses nothing?"""
    return len({item[1] for item in _items(text, options)}) > 1


def _ends_with_list(text: str, options: Sequence[str]) -> bool:
    """Does it end with the last of all options, each told with its letter once?"""
    items = [item[1] for item in _items(text, options)]
    line = clean(text[text.rfind("\n") + 1 :])
    is_item = letter_beside_text(line, options) is not None
    return is_item and len(items) == len(set(items)) == len(options)


def _items(text: str, options: Sequence[str]) -> list[re.Match[str]]:
    """Where a text repeats an option with its letter."""
    return [
        item
        for item in _ITEM.finditer(text)
        if (place := letter_index(item[1])) < len(options)
        and text.startswith(clean(options[place])[:20], item.end())
    ]


def _why_not(text: str) -> str:
    """Why a text states no answer."""
    if _REFUSES.search(text[-_PHRASE:]) or _REFUSES.search(text[:_PHRASE]):
        return "refused"
    return "unstated" if text.rstrip().endswith(tuple(_ENDS)) else "cut"
