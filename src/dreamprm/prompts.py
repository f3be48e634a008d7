"""What the policy is asked, and how its text becomes steps.

The five-step prompt is the paper's structured thinking (arXiv 2505.20241, appendix) in our words.
A step keeps the mark the model wrote ("Step 2: ..."), because a prefix must be continued exactly as
it was written.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from dreamprm.records import Question

_FIVE_STEPS = """Solve the task in exactly five steps, each on its own line and begun with its mark:
Step 1: say in your own words what is asked.
Step 2: collect the facts that the image shows and that matter here.
Step 3: name the background knowledge that is needed.
Step 4: reason from these facts and this knowledge.
Step 5: sum up and draw the conclusion.
Then close with one more line: "Final answer: " followed by {answer} and nothing else."""

_PLAIN = (
    "Think step by step. "
    'Close with the line "Final answer: " followed by {answer} and nothing else.'
)


def question_text(question: Question) -> str:
    """The question and, where there are any, its options as '(A) ... (B) ...'."""
    if not question.options:
        return question.text
    options = " ".join(
        f"({option_letter(i)}) {option}" for i, option in enumerate(question.options)
    )
    return f"{question.text}\nOptions: {options}"


def option_letter(index: int) -> str:
    """0 -> A, 1 -> B, ..."""
    return chr(ord("A") + index)


def _with(instruction: str) -> Callable[[Question], str]:
    def prompt(question: Question) -> str:
        answer = "the letter of the right option" if question.options else "the answer"
        return f"{question_text(question)}\n\n{instruction.format(answer=answer)}"

    return prompt


MARKED = frozenset({"five_steps"})
"""Names of those that ask for step marks."""

PROMPTS: dict[str, Callable[[Question], str]] = {
    "five_steps": _with(_FIVE_STEPS),
    "plain": _with(_PLAIN),
    "bare": question_text,  # the embedded tiny policy has learned its format and needs no telling
}
"""Name -> function from a question to the text that the policy is sent."""


# How steps are told apart. Every pattern takes linear time on any text: a run of characters is
# taken whole (possessive) or has a bound.
_DRESS = r"(?:[^\S\n]|[#>*_+(\[\u2022\u3010-])*+"  # bullets, heading signs, emphasis, brackets
_FLAGS = re.IGNORECASE | re.MULTILINE

# A mark opens a line: "Step 1:", "Step 1/2", "Step 1 of 2", "**Step 1.** ...", "### Step 1",
# "- Step 1)", and in Chinese 步骤1 or 第一步 with a colon. After the number there must be a
# delimiter or the line's end, so "Step 1" is never found inside "Step 10" and prose such as "Step 1
# gave us 5" is no mark.
_MARK = re.compile(
    rf"^{_DRESS}(?:<(?!answer)[a-z_]\w{{0,20}}>{_DRESS})?(?:step[^\S\n]*+[#_-]?+[^\S\n]*+|步骤[^\S\n]*+|第[^\S\n]*+)"
    r"(?P<number>\d{1,9}(?!\d)|[一二三四五六七八九十]{1,3}+"
    r"|(?:one|two|three|four|five|six|seven|eight|nine|ten)\b)(?:[^\S\n]*+步)?+"
    r"(?:[^\S\n]*+(?:/|(?:out[^\S\n])?of\b)[^\S\n]*+\d{1,9}+)?+"
    r"(?:\*\*(?=[^\S\n])"
    r"|[*_]*+[^\S\n]*+(?:[:)\]\uff1a\uff09\u3011\u3001\uff0c\u2013\u2014-]|\.(?!\d)|$))",
    _FLAGS,
)
_STEP_TAG = re.compile(
    r"<(?:step|步骤)[ _-]?(?P<number>\d{1,9})?(?:\s[^<>]{0,100})?>", re.IGNORECASE
)
_STEP_CLOSED = re.compile(r"</(?:step|步骤)[ _-]?(?:\d{1,9})?>(?=[^\S\n]*+$)", _FLAGS)
_SECTION = (
    r"(?:think|thinking|thought|reasoning|rationale|analysis|plan|caption|summary|observation"
    r"|description|explanation|reflection|conclusion|output)>"
)
_SECTION_TAG = re.compile(rf"^[^\S\n]*+<{_SECTION}|(?P<closes></{_SECTION}(?=[^\S\n]*+$))", _FLAGS)
_ITEM = re.compile(  # of a numbered list
    r"^(?P<indent>[^\S\n]*+)(?P<dress>[#>*_]*+[^\S\n]*+[*_]*+)"
    r"(?:(?P<circled>[\u2460-\u2473])|(?P<open>[(\uff08]?)"
    r"(?P<number>\d{1,3}|[一二三四五六七八九十])(?P<close>[)\uff09\u3001\uff0e]|\.(?!\d)))",
    re.MULTILINE,
)
_TITLE = re.compile(  # "## Title", or bold with a colon or a full stop or alone on its line
    r"^[^\S\n]*+(?:#{1,6}[^\S\n]++[^\s#]|\*\*(?=[^*\n]{0,99}[^\W\d_])[^*\n]{2,100}"
    r"(?:[:.\uff1a]\*\*(?=[^\S\n]*+[^\s*])|\*\*[^\S\n]*+[:\uff1a]|(?<![.!?\u3002])\*\*[^\S\n]*+$))",
    re.MULTILINE,
)
_ONLY_LEADS = re.compile(  # a line that is never a step by itself: it opens what follows it
    r"\s*+(?:#{1,6}[^\S\n]++[^\s#].*|(?:\d{1,3}[.)][^\S\n]++)?\*\*[^*]{2,100}(?<![.!?\u3002])\*\*"
    r"\s*+[:\uff1a]?\s*+|(?:<[a-z_]\w{0,20}>\s*+)++)",
    re.IGNORECASE,
)
_ONLY_CLOSES = re.compile(r"(?:</\w{1,20}>\s*+)++")
_RULES = r"[^\S\n]*+(?:([-*_=#>])(?:[^\S\n]*+\1){2,}+[^\S\n]*+)?"
_RULE = re.compile(_RULES)
_LINE = re.compile(r"(?<=\n)(?=[^\S\n]*+\S)")
_BREAK = re.compile(rf"^(?:{_RULES}(?:\n|\Z))++", re.MULTILINE)  # empty lines and markdown rules

_STATES = (  # what stands between "answer" and the answer itself
    r"[*_)\]\uff09\u3011]*+(?:[^\S\n]++is\b[^\S\n]*+[:\uff1a]?|[是为]?[^\S\n]*+[:\uff1a]|[^\S\n]*+(?:$|(?=<answer>)))"
    r"[*_]*+[^\S\n]*+"
)
_FINAL = re.compile(
    rf"^{_DRESS}(?:(?:the[^\S\n]++)?final[^\S\n]++answer|最[终后]答案){_STATES}", _FLAGS
)
_ANSWER = re.compile(rf"^{_DRESS}(?:answer|答案?)(?![^\S\n]+is\b){_STATES}", _FLAGS)
_ANSWER_TAG = re.compile(r"(?:<answer>\s*+)++", re.IGNORECASE)
_ANSWER_TAGS = re.compile(r"</?answer>", re.IGNORECASE)
_LONGEST_ANSWER = 80  # characters after a plain "Answer:"; what is longer may be the reasoning

_FENCE = re.compile(r"^[^\S\n]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*+)$", re.MULTILINE)
_MATHS = re.compile(r"\\(?P<edge>begin|end)\{(?P<name>[^{}\n]{0,40})\}|\$\$|\\.", re.DOTALL)

_TELLING = 16  # characters of a paragraph that show whether it begins with a mark
_MOST_STEPS = 2000  # a label for each of more steps is out of reach; the rest is one step
_LONGEST = 2_000_000  # characters; no reasoning is longer, so what is longer is not looked into


class _Blocks:
    """Fenced code and display mathematics of a text: no step begins in them.

    A block that is never closed is none; `open_at` says where the first of these begins (the
    text's length if there is none), because a text that is still being written may yet close it.
    """

    def __init__(self, text: str) -> None:
        self.open_at = len(text)
        spans = self._fenced(text)
        self._set(spans)
        self._set(sorted([*spans, *self._maths(text)]))

    def _set(self, spans: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            if not self._ends or start >= self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)
            else:
                self._ends[-1] = max(end, self._ends[-1])

    def _fenced(self, text: str) -> list[tuple[int, int]]:
        spans, opener = [], None
        for line in _FENCE.finditer(text):
            if opener is None:
                opener = line
            elif line["fence"].startswith(opener["fence"]) and not line["info"].strip():
                spans.append((opener.start(), line.end()))
                opener = None
        if opener is not None:
            self.open_at = opener.start()
        return spans

    def _maths(self, text: str) -> Iterator[tuple[int, int]]:
        opened: dict[str, list[int]] = {}
        for token in self.outside(_MATHS, text):
            name = token["name"] or token[0]
            closes = token["edge"] == "end" or name == r"\]"
            name = r"\[" if name == r"\]" else name
            starts = opened.setdefault(name, [])
            if starts and (closes or name == "$$"):
                yield starts.pop(), token.end()
            elif token["edge"] == "begin" or (name in (r"\[", "$$") and not closes):
                starts.append(token.start())
        self.open_at = min(
            [self.open_at, *(start for starts in opened.values() for start in starts)]
        )

    def hold(self, place: int) -> bool:
        """Is this place in the midst of a block?"""
        at = bisect_right(self._starts, place - 1) - 1
        return at >= 0 and place < self._ends[at]

    def outside(self, pattern: re.Pattern[str], text: str, start: int = 0) -> list[re.Match[str]]:
        """The matches of a pattern that begin in no block."""
        return [match for match in pattern.finditer(text, start) if not self.hold(match.start())]


class _Layout(NamedTuple):
    """Where the steps of a text begin.

    Attributes:
        openers: of marks, tags, items or titles, the first one too; none where paragraphs or lines
            are the steps.
        borders: where a step begins behind another one.
    """

    openers: list[int]
    borders: list[int]


def split_steps(text: str) -> tuple[list[str], str | None]:
    r"""Split a response into its steps and the text of its final answer.

    The strongest evidence that a text has decides where its steps begin:

    1. Tags: `<step>`, `<step_1>`. What stands behind a closing tag is a step of its own.
    2. Marks at the beginning of a line: "Step 1:", "**Step 1/2**", "### Step 1".
    3. The items of a list that counts up from 1: "1. ", "1) ", "**1.** ", "### 1. ". A paragraph
       behind the last item is a step, unless items hold several paragraphs.
    4. Two titles or more: "## Title", "**Title**", "**Title:** ...". They go before a list that
       they precede, unless it has more items than there are titles.
    5. Paragraphs, set apart by empty lines, markdown rules, or tags such as `<think>`.
    6. Lines, where there is but one paragraph.

    List and titles decide only where they begin the text or follow its first paragraph. What comes
    before the first mark, item or title belongs to the first step. A step never begins inside
    fenced code or display mathematics. It keeps its text; only white space and rules at its ends
    are dropped. A title alone goes with what follows it.

    The final answer and all that follows it is no step: a line "Final answer: ..." behind the last
    mark, an `<answer>` tag that ends the text, or a short last line "Answer: ...".

    A text of more than 2,000,000 characters is one step, and from the 2,000th step on all is one.

    Returns:
        The steps in order (none when the text holds nothing but an answer), and the final answer
        (None when there is none or it is empty).

    Example:
        >>> split_steps("Step 1: red is 3\nStep 2: 3 + 5 = 8\nFinal answer: 8")
        (['Step 1: red is 3', 'Step 2: 3 + 5 = 8'], '8')
    """
    if len(text) > _LONGEST:
        return [text.strip()], None
    blocks = _Blocks(text)
    marks = _marks(text, blocks)
    end, answer = _final_answer(text, blocks, marks[-1].start() if marks else 0)
    return _steps(text[:end], is_open=False), answer


def _steps(text: str, is_open: bool) -> list[str]:
    borders = _layout(text, _Blocks(text), is_open).borders[: _MOST_STEPS - 1]
    parts = (text[start:end] for start, end in pairwise([0, *borders, len(text)]))
    return [step for part in parts if (step := _without_rules(part))]


def _without_rules(part: str) -> str:
    lines = part.split("\n")
    first, last = 0, len(lines)
    while first < last and _RULE.fullmatch(lines[first]):
        first += 1
    while first < last and _RULE.fullmatch(lines[last - 1]):
        last -= 1
    return "\n".join(lines[first:last]).strip()


def _final_answer(text: str, blocks: _Blocks, start: int) -> tuple[int, str | None]:
    """Where the part of a text begins that is no step, and the answer stated in it."""
    finals = blocks.outside(_FINAL, text, start)
    end = finals[0].start() if finals else len(text)
    answer, last = None, len(text)
    for final in reversed(finals):  # the last that states something: "Final answer" may be cut off
        answer = answer or _first_line(text[final.end() : last])
        last = final.start()
    if answer is None:
        for plain in reversed(blocks.outside(_ANSWER, text[:end], start)):
            stated = _without_rules(text[plain.end() : end])
            if "\n" in stated or len(stated) > _LONGEST_ANSWER or (answer and stated):
                break
            if answer or _first_line(stated):  # "**Answer:**" may be the heading of another one
                end, answer = plain.start(), answer or _first_line(stated)
    for tag in reversed(blocks.outside(_ANSWER_TAG, text[:end], start)):
        inside, closing, behind = text[tag.end() : end].partition("</answer>")
        inside = _without_rules(inside)
        is_whole = closing or "\n" not in inside
        if (
            not _first_line(inside)
            or not is_whole
            or _ONLY_CLOSES.sub("", _without_rules(behind)).strip()
        ):
            break
        end, answer = tag.start(), answer or _first_line(inside)
    return end, answer


def _first_line(text: str) -> str | None:
    return _ANSWER_TAGS.sub("", text).strip().split("\n", 1)[0].strip() or None


def _marks(text: str, blocks: _Blocks) -> list[re.Match[str]]:
    """The tags of steps, else the step marks."""
    return blocks.outside(_STEP_TAG, text) or blocks.outside(_MARK, text)


def _layout(text: str, blocks: _Blocks, is_open: bool) -> _Layout:
    """Where its steps begin; `is_open`: the text goes on, so its lines are no steps yet."""
    openers = [mark.start() for mark in _marks(text, blocks)]
    if openers:
        closed = [tag.end() for tag in blocks.outside(_STEP_CLOSED, text, openers[0])]
        return _Layout(openers, _joined(text, sorted({*openers[1:], *closed})))
    items, nested = _counted(blocks.outside(_ITEM, text))
    breaks = [at.end() for at in blocks.outside(_BREAK, text) if at.end() < len(text)]
    sections = [
        tag.end() if tag["closes"] else tag.start() for tag in blocks.outside(_SECTION_TAG, text)
    ]
    paragraphs = _joined(text, sorted({*breaks, *sections} - nested))
    every = [title.start() for title in blocks.outside(_TITLE, text)]
    titles = every[:1] + [b for a, b in pairwise(every) if not _only_leads(text[a:b])]

    def is_early(place: int) -> bool:
        return bisect_right(paragraphs, place) <= 1

    has_titles = len(titles) > 1 and is_early(titles[0])
    if has_titles and (not items or (titles[0] < items[0] and len(items) <= len(titles))):
        return _Layout(titles, titles[1:])
    if items and is_early(items[0]):
        return _Layout(items, items[1:] + _behind_list(text, items, titles, paragraphs))
    if has_titles:  # the list comes too late
        return _Layout(titles, titles[1:])
    if paragraphs or is_open:
        return _Layout([], paragraphs)
    lines = {line.start() for line in blocks.outside(_LINE, text)}
    return _Layout([], _joined(text, sorted(lines - nested)))


def _counted(lines: Iterable[re.Match[str]]) -> tuple[list[int], set[int]]:
    """The first list that counts up from 1, and the numbered lines indented below a "1"."""
    lists: list[list[re.Match[str]]] = []
    latest: dict[str, list[re.Match[str]]] = {}
    nested = set()
    for line in lines:
        number = line["circled"] or line["number"]
        value = int(number) if number.isdecimal() else int(unicodedata.numeric(number))
        style = f"{''.join(line['dress'].split())}{line['open']}1{line['close']}"
        items = latest.get(style)
        if items and len(line["indent"]) > len(items[0]["indent"]):
            nested.add(line.start())
        elif items and value == len(items) + 1:
            items.append(line)
        elif value == 1:
            latest[style] = [line]
            lists.append(latest[style])
    first = next((items for items in lists if len(items) > 1), [])
    return [item.start() for item in first], nested


def _behind_list(
    text: str, items: list[int], titles: list[int], paragraphs: list[int]
) -> list[int]:
    """Where the steps behind a list's last item begin."""
    told = set(items)
    places = [
        place
        for place in sorted({*titles, *paragraphs} - told)
        if place > items[0] and re.compile(r"[^\s*+\u2022-]|\*\*").match(text, place)
    ]
    if not places or places[0] < items[-1]:
        return []
    return [places[0], *(place for place in paragraphs if place > places[0])]


def _joined(text: str, borders: list[int]) -> list[int]:
    """The borders without those behind a title alone, or before closing tags alone."""
    kept = []
    has_text = False
    for start, end in pairwise([0, *borders, len(text)]):
        part = text[start:end]
        words = _without_rules(part)
        if has_text and words and not _ONLY_CLOSES.fullmatch(words):
            kept.append(start)
            has_text = False
        has_text = has_text or not _only_leads(part)
    return kept


def _only_leads(part: str) -> bool:
    """Does a text hold nothing but titles, opening tags and rules?"""
    return all(_ONLY_LEADS.fullmatch(line) or _RULE.fullmatch(line) for line in part.split("\n"))


def step_end(begun: str, text: str) -> int | None:
    r"""Where in a text that is still being written its first whole step ends; None if it has not.

    Decided by what `split_steps` will make of it: a step with a mark, a number or a title ends
    before the next one, another one at the end of its paragraph once the next one is seen not to
    begin with a mark. The last step, which a final answer follows, has no such end: the policy
    ends it.

    Args:
        begun: `opening` of the steps that it goes on behind.

    Example:
        >>> text = "Step 2: add them\nStep 3: 4"
        >>> text[:step_end("Step 1: look\n", text)]
        'Step 2: add them\n'
    """
    whole = begun + text
    blocks = _Blocks(whole)
    openers, borders = _layout(whole, blocks, is_open=True)
    if openers:
        later = [place for place in openers if place >= len(begun)][1:]
        if not later or later[0] > blocks.open_at or not _is_told(whole, later[0]):
            return None
        return later[0] - len(begun)
    if blocks.outside(_FINAL, whole, len(begun)):
        return None
    first = len(whole) - len(text.lstrip())
    border = next((place for place in borders if place > first), len(whole))
    if border > blocks.open_at or len(whole) - border < _TELLING:
        return None
    for item in blocks.outside(_ITEM, whole, len(begun)):
        if item["number"] in ("1", "一") and item.start() <= border:
            return None  # a list that may go on behind the paragraph
    return len(whole[:border].rstrip()) - len(begun)


def _is_told(text: str, opener: int) -> bool:
    """Does something stand behind it? "Step 1" may become prose, or "Step 10"."""
    matches = (pattern.match(text, opener) for pattern in (_STEP_TAG, _MARK, _ITEM, _TITLE))
    return max(match.end() for match in matches if match) < len(text)


def split_open(text: str) -> list[str]:
    r"""Steps of a text that was stopped at the end of one, as if the next one had begun.

    The line of a final answer that is still to come is the last of them, so that it can follow.

    Example:
        >>> split_open("one paragraph\nof two lines")
        ['one paragraph\nof two lines']
    """
    end = len(text)
    for final in reversed(_Blocks(text).outside(_FINAL, text)):
        if text[final.end() : end].strip():
            break
        end = final.start()
    steps = _steps(text[:end], is_open=True)
    return [*steps, announced] if (announced := text[end:].strip()) else steps


def step_stops(steps: Sequence[str], marked: bool) -> list[str]:
    """Texts at which a server is to stop so that it writes one step; at most four, as OpenAI takes.

    Args:
        steps: that it goes on behind. The next mark is expected as their last one is written.
        marked: are marks asked for? It decides where there are no steps to look at.
    """
    text = "\n".join(steps)
    marks = _marks(text, _Blocks(text))
    if marks:
        last = marks[-1]
        number = last["number"] or ""
        if not number.isdecimal():  # "Step one", a tag without a number: any next one
            return ["\n" + last[0].partition(number or ">")[0]]
        return [f"\n{last[0][: last.start('number') - last.start()]}{int(number) + 2}"]
    if steps or not marked:
        return ["\n\n"]
    return [f"\n{ornament}Step 2" for ornament in ("", "**", "### ", "## ")]


def opening(steps: Sequence[str]) -> str:
    """Steps as the beginning of an answer that a policy is to continue; "" for none."""
    if not steps:
        return ""
    return join_steps(steps) + ("\n" if is_marked(steps) else "\n\n")


def is_marked(steps: Sequence[str]) -> bool:
    """Does one of them bear a step mark or a step's tag?"""
    text = "\n".join(steps)
    return bool(_marks(text, _Blocks(text)))


def join_steps(steps: Sequence[str], answer: str | None = None) -> str:
    """Steps and answer as one text; `split_steps` of it gives them back.

    Marked steps stand on lines of their own; steps without marks are set apart by an empty line,
    because each may hold several lines.
    """
    body = ("\n" if is_marked(steps) else "\n\n").join(steps)
    if answer is None:
        return body
    return f"{body}\nFinal answer: {answer}" if body else f"Final answer: {answer}"
