"""How a policy's text becomes steps and an answer, and how steps become text again.

`_read` says of each line what it is (a mark, an item of a list, a title, an answer, ...), `_layout`
which lines begin steps. Steps keep the marks that the model wrote ("Step 2: ..."), because a prefix
must be continued exactly as it was written. All this takes linear time on any text: in a pattern, a
run of characters is taken whole (possessive) or has a bound.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

_MOST_STEPS = 2000  # a label for each of more steps is out of reach; the rest is one step
_LONGEST = 2_000_000  # characters; no reasoning is longer, so what is longer is not looked into
_LONGEST_ANSWER = 80  # characters after a plain "Answer:"; what is longer may be the reasoning
_TELLING = 16  # characters of a paragraph that show whether it begins with a mark

# Patterns of a line without its newline.
_DRESS = r"(?:\s|[#>*_+(\[\u2022\u3010-])*+"  # bullets, heading signs, emphasis, brackets
_STATES = (  # what stands between "answer" and the answer itself
    r"[*_)\]\uff09\u3011]*+(?:\s++is\b\s*+[:\uff1a]?|[是为]?\s*+[:\uff1a]|\s*+(?:$|(?=<answer>)))"
    r"[*_]*+\s*+"
)
_SECTION = (
    r"(?:think|thinking|thought|reasoning|rationale|analysis|plan|caption|summary|observation"
    r"|description|explanation|reflection|conclusion|output)>"
)
_STEP_TAG = re.compile(r"<(?:step|步骤)[ _-]?(?P<number>\d{1,9})?(?:\s[^<>]{0,100})?>", re.I)
_KINDS = {  # what a line begins with
    "tag": _STEP_TAG,
    # "Step 1:", "Step 1/2", "Step 1 of 2", "**Step 1.** ...", "### Step 1", "- Step 1)", and in
    # Chinese 步骤1 or 第一步. After the number there must be a delimiter or the line's end, so
    # "Step 1" is never found inside "Step 10", and prose such as "Step 1 gave us 5" is no mark.
    "mark": re.compile(
        rf"{_DRESS}(?:<(?!answer)[a-z_]\w{{0,20}}>{_DRESS})?(?:step\s*+[#_-]?+\s*+|步骤\s*+|第\s*+)"
        r"(?P<number>\d{1,9}(?!\d)|[一二三四五六七八九十]{1,3}+"
        r"|(?:one|two|three|four|five|six|seven|eight|nine|ten)\b)(?:\s*+步)?+"
        r"(?:\s*+(?:/|(?:out\s)?of\b)\s*+\d{1,9}+)?+(?:\*\*(?=\s)"
        r"|[*_]*+\s*+(?:[:)\]\uff1a\uff09\u3011\u3001\uff0c\u2013\u2014-]|\.(?!\d)|$))",
        re.I,
    ),
    "item": re.compile(  # of a numbered list
        r"(?P<indent>\s*+)(?P<dress>[#>*_]*+\s*+[*_]*+)"
        r"(?:(?P<circled>[\u2460-\u2473])|(?P<open>[(\uff08]?)"
        r"(?P<number>\d{1,3}|[一二三四五六七八九十])(?P<close>[)\uff09\u3001\uff0e]|\.(?!\d)))"
    ),
    "final": re.compile(rf"{_DRESS}(?:(?:the\s++)?final\s++answer|最[终后]答案){_STATES}", re.I),
    "answer": re.compile(rf"{_DRESS}(?:answer|答案?)(?!\s+is\b){_STATES}", re.I),
    "section": re.compile(rf"\s*+<{_SECTION}", re.I),
}
_TITLE = re.compile(  # "## Title", or bold with a colon or a full stop or alone on its line
    r"\s*+(?:#{1,6}\s++[^\s#]|\*\*(?=[^*]{0,99}[^\W\d_])[^*]{2,100}"
    r"(?:[:.\uff1a]\*\*(?=\s*+[^\s*])|\*\*\s*+[:\uff1a]|(?<![.!?\u3002])\*\*\s*+$))"
)
_EMPTY = re.compile(r"\s*+(?:([-*_=#>])(?:\s*+\1){2,}+\s*+)?")  # or a markdown rule
_LEADS = re.compile(  # titles and opening tags, with nothing behind them
    r"\s*+(?:#{1,6}\s++[^\s#].*|(?:\d{1,3}[.)]\s++)?\*\*[^*]{2,100}(?<![.!?\u3002])\*\*"
    r"\s*+[:\uff1a]?\s*+|(?:<[a-z_]\w{0,20}>\s*+)++)",
    re.I,
)
_CLOSES = re.compile(r"\s*+(?:</\w{1,20}>\s*+)++")
_CLOSED = re.compile(rf"</(?:(?P<step>(?:step|步骤)[ _-]?\d{{0,9}}>)|{_SECTION})\s*+$", re.I)
_PLAIN = re.compile(  # begins with a letter or a formula, but as none of the above, and has no tag
    r"\s*+(?!step|final|the\s++final|answer|[步第最答一二三四五六七八九十\u2460-\u2473])"
    r"(?:[^\W\d_]|[$\\\0])[^<]*+",
    re.I,
)

# Patterns of a text.
_ANSWER_TAG = re.compile(r"(?:<answer>\s*+)++", re.I)
_ANSWER_TAGS = re.compile(r"</?answer>", re.I)
_FENCE = re.compile(r"^[^\S\n]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*+)$", re.MULTILINE)
_MATHS = re.compile(r"\\(?:(?P<edge>begin|end)\{(?P<name>[^{}\n]{0,40})\}|[\[\]])|\$(?<!\\\$)\$")


class _Line(NamedTuple):
    """A line of a text; where steps' tags stand in it, the part from one of them to the next.

    Attributes:
        kind: the pattern of `_KINDS` that it begins with, `match` its match.
        title: match of the title that it begins with; it may be an item or an answer too.
        says: "nothing", what only "leads" to a step or "closes" one, or "text".
        closed: match of a step's or a section's closing tag at its end.
    """

    start: int
    words: str
    kind: str = ""
    match: re.Match[str] | None = None
    title: re.Match[str] | None = None
    says: str = "text"
    closed: re.Match[str] | None = None

    @property
    def behind(self) -> int:
        """The place behind what it begins with."""
        return self.start + (self.match.end() if self.match else 0)


def _read(text: str) -> list[_Line]:
    lines, start = [], 0
    for whole in text.split("\n"):
        cuts = {tag.start() for tag in _STEP_TAG.finditer(whole)} if "<" in whole else set()
        for at, end in pairwise(sorted({0, *cuts, len(whole)})) if cuts else [(0, len(whole))]:
            lines.append(_line(start + at, whole[at:end]))
        start += len(whole) + 1
    return lines


def _line(start: int, words: str) -> _Line:
    if _PLAIN.fullmatch(words):
        return _Line(start, words)
    if _EMPTY.fullmatch(words):
        return _Line(start, words, says="nothing")
    says = "leads" if _LEADS.fullmatch(words) else "closes" if _CLOSES.fullmatch(words) else "text"
    title, closed = _TITLE.match(words), _CLOSED.search(words)
    for kind, pattern in _KINDS.items():
        if match := pattern.match(words):
            return _Line(start, words, kind, match, title, says, closed)
    return _Line(start, words, "", None, title, says, closed)


def _without_blocks(text: str) -> tuple[str, int]:
    """A text with its fenced code and display mathematics blotted out: no line begins in them.

    A block that is never closed is none. A text that is still being written may yet close it, so
    the place of the first of these comes too (the text's length if there is none).
    """
    fence, fences = None, []
    for line in _FENCE.finditer(text) if "```" in text or "~~~" in text else ():
        if fence is None:
            fence = line
        elif line["fence"].startswith(fence["fence"]) and not line["info"].strip():
            fences.append((fence.start("fence"), line.end()))
            fence = None
    text = _blotted(text, fences).replace("\\\\", "\0\0")  # so that in \\[2pt] is no \[
    maths = []
    opened: dict[str, list[int]] = {}
    for token in _MATHS.finditer(text):
        starts = opened.setdefault(token["name"] or token[0].replace("]", "["), [])
        if token["edge"] == "begin" or token[0] == r"\[" or (token[0] == "$$" and not starts):
            starts.append(token.start())
        elif starts:
            maths.append((starts.pop(), token.end()))
    places = [place for starts in opened.values() for place in starts]
    return _blotted(text, maths), min([fence.start() if fence else len(text), *places])


def _blotted(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, place = [], 0
    for start, end in sorted(spans):
        if end > place:
            parts += [text[place:start], "\0" * (end - max(start, place))]
            place = end
    return "".join([*parts, text[place:]])


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
    blotted, _ = _without_blocks(text)
    lines = _read(blotted)
    end, answer = _final_answer(text, blotted, lines)
    if end < len(text) and text[end - 1] != "\n":  # in the midst of a line
        lines = _read(blotted[:end])
    return _steps(text[:end], lines, is_open=False), answer


def _steps(text: str, lines: list[_Line], is_open: bool) -> list[str]:
    """The steps of a text; of its lines, those behind its end are left out."""
    lines = [line for line in lines if line.start < len(text)]
    _, borders = _layout(lines, is_open)
    starts = [0, *(lines[i].start for i in borders[: _MOST_STEPS - 1]), len(text)]
    return [step for start, end in pairwise(starts) if (step := _trimmed(text[start:end]))]


def _trimmed(part: str) -> str:
    """Without white space and rules at its ends."""
    lines = part.split("\n")
    first, last = 0, len(lines)
    while first < last and _EMPTY.fullmatch(lines[first]):
        first += 1
    while first < last and _EMPTY.fullmatch(lines[last - 1]):
        last -= 1
    return "\n".join(lines[first:last]).strip()


def _final_answer(text: str, blotted: str, lines: list[_Line]) -> tuple[int, str | None]:
    """Where the part of a text begins that is no step, and the answer stated in it."""
    lines = lines[max(_marked(lines), default=0) :]
    end, answer = len(text), None
    for line in reversed([line for line in lines if line.kind == "final"]):
        # The last that states something counts: it may be cut off at "Final answer".
        end, answer = line.start, answer or _first_line(text[line.behind : end])
    if answer is None:
        for line in reversed(
            [line for line in lines if line.kind == "answer" and line.start < end]
        ):
            stated = _trimmed(text[line.behind : end])
            if "\n" in stated or len(stated) > _LONGEST_ANSWER or (answer and stated):
                break
            if answer or _first_line(stated):  # "**Answer:**" may be the heading of another one
                end, answer = line.start, answer or _first_line(stated)
    for tag in reversed(list(_ANSWER_TAG.finditer(blotted, lines[0].start, end))):
        inside, closing, behind = text[tag.end() : end].partition("</answer>")
        inside = _trimmed(inside)
        is_whole = closing or "\n" not in inside
        if not _first_line(inside) or not is_whole or _CLOSES.sub("", _trimmed(behind)).strip():
            break
        end, answer = tag.start(), answer or _first_line(inside)
    return end, answer


def _first_line(text: str) -> str | None:
    return _ANSWER_TAGS.sub("", text).strip().split("\n", 1)[0].strip() or None


def _marked(lines: list[_Line]) -> list[int]:
    """The lines that begin with a step's tag, else those with a step mark."""
    tags = [i for i, line in enumerate(lines) if line.kind == "tag"]
    return tags or [i for i, line in enumerate(lines) if line.kind == "mark"]


def _layout(lines: list[_Line], is_open: bool) -> tuple[list[int], list[int]]:
    """Which lines begin steps; `is_open`: the text goes on, so its lines are no steps yet.

    Returns:
        The lines with the steps' marks, tags, numbers or titles, the first one too (none where
        paragraphs or lines are the steps), and those at which one step ends and another begins.
    """
    if marked := _marked(lines):
        closed = [i for i, line in enumerate(lines, start=1) if line.closed and line.closed["step"]]
        return marked, _joined(lines, {*marked[1:], *(i for i in closed if i > marked[0])})
    items, nested = _counted(lines)
    says = [line.says for line in lines]
    titled = [i for i, line in enumerate(lines) if line.title]
    titles = titled[:1] + [
        b for a, b in pairwise(titled) if "text" in says[a:b] or "closes" in says[a:b]
    ]
    apart = {
        i
        for i, (before, line) in enumerate(pairwise(lines), start=1)
        if line.kind == "section"
        or (before.closed and not before.closed["step"])
        or before.says == "nothing"
    }
    paragraphs = _joined(lines, apart - nested)
    early = paragraphs[1] if len(paragraphs) > 1 else len(lines)  # until here
    has_titles = len(titles) > 1 and titles[0] < early
    if has_titles and (not items or (titles[0] < items[0] and len(items) <= len(titles))):
        return titles, titles[1:]
    if items and items[0] < early:
        return items, items[1:] + _behind_list(lines, items, titles, paragraphs)
    if has_titles:  # the list comes too late
        return titles, titles[1:]
    return [], paragraphs if paragraphs or is_open else _joined(
        lines, {*range(len(lines))} - nested
    )


def _counted(lines: list[_Line]) -> tuple[list[int], set[int]]:
    """The first list that counts up from 1, and the numbered lines indented below a "1"."""
    lists: list[list[int]] = []
    latest: dict[str, tuple[int, list[int]]] = {}  # style -> indent and items of its last list
    nested = set()
    for i, line in enumerate(lines):
        if line.kind != "item" or line.match is None:
            continue
        indent, dress, circled, opens, number, closes = line.match.groups()
        number = circled or number
        value = int(number) if number.isdecimal() else int(unicodedata.numeric(number))
        style = f"{''.join(dress.split())}{opens}1{closes}"
        least, items = latest.get(style, (0, []))
        if items and len(indent) > least:
            nested.add(i)
        elif items and value == len(items) + 1:
            items.append(i)
        elif value == 1:
            lists.append([i])
            latest[style] = len(indent), lists[-1]
    return next((items for items in lists if len(items) > 1), []), nested


def _behind_list(
    lines: list[_Line], items: list[int], titles: list[int], paragraphs: list[int]
) -> list[int]:
    """Where the steps behind a list's last item begin: at a title or paragraph at the margin."""
    places = sorted(
        i
        for i in {*titles, *paragraphs} - set(items)
        if i > items[0] and re.match(r"[^\s*+\u2022-]|\*\*", lines[i].words)
    )
    if not places or places[0] < items[-1]:
        return []
    return [places[0], *(i for i in paragraphs if i > places[0])]


def _joined(lines: list[_Line], borders: set[int]) -> list[int]:
    """The borders without those behind a title alone, or before closing tags alone."""
    kept, has_text = [], False
    for start, end in pairwise([0, *sorted(borders), len(lines)]):
        said = {line.says for line in lines[start:end]} - {"nothing"}
        if has_text and said - {"closes"}:
            kept.append(start)
            has_text = False
        has_text = has_text or bool(said - {"leads"})
    return kept


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
    blotted, open_at = _without_blocks(whole)
    lines = _read(blotted)
    marked, borders = _layout(lines, is_open=True)
    written = [line for line in lines if line.start >= len(begun)]
    if marked:
        later = [lines[i] for i in marked if lines[i].start >= len(begun)][1:]
        if not later or later[0].start > open_at:
            return None
        opener = max(match.end() for match in (later[0].match, later[0].title) if match)
        is_told = later[0].start + opener < len(whole)  # "Step 1" may become prose, or "Step 10"
        return later[0].start - len(begun) if is_told else None
    if any(line.kind == "final" for line in written):
        return None
    first = len(whole) - len(text.lstrip())
    border = next((lines[i].start for i in borders if lines[i].start > first), len(whole))
    if border > open_at or len(whole) - border < _TELLING:
        return None
    lists = [line.match for line in written if line.kind == "item" and line.start <= border]
    if any(item and item["number"] in ("1", "一") for item in lists):
        return None  # a list that may go on behind the paragraph
    return len(whole[:border].rstrip()) - len(begun)


def split_open(text: str) -> list[str]:
    r"""Steps of a text that was stopped at the end of one, as if the next one had begun.

    The line of a final answer that is still to come is the last of them, so that it can follow.

    Example:
        >>> split_open("one paragraph\nof two lines")
        ['one paragraph\nof two lines']
    """
    blotted, _ = _without_blocks(text)
    lines = _read(blotted)
    end = len(text)
    for line in reversed([line for line in lines if line.kind == "final"]):
        if text[line.behind : end].strip():
            break
        end = line.start
    steps = _steps(text[:end], lines, is_open=True)
    return [*steps, announced] if (announced := text[end:].strip()) else steps


def step_stops(steps: Sequence[str], marked: bool) -> list[str]:
    """Texts at which a server is to stop so that it writes one step; at most four, as OpenAI takes.

    Args:
        steps: that it goes on behind. The next mark is expected as their last one is written.
        marked: are marks asked for? It decides where there are no steps to look at.
    """
    marks = _marks(steps)
    if marks:
        last = marks[-1]
        number = last["number"] or ""
        if not number.isdecimal():  # "Step one", a tag without a number: any next one
            return ["\n" + last[0].partition(number or ">")[0]]
        return [f"\n{last[0][: last.start('number')]}{int(number) + 2}"]
    if steps or not marked:
        return ["\n\n"]
    return [f"\n{ornament}Step 2" for ornament in ("", "**", "### ", "## ")]


def starts_over(text: str, steps: Sequence[str]) -> bool:
    r"""Does a text that was to go on behind these steps begin with the first of them again?

    It does if it begins with the same line, or if the first step that it marks before its answer
    bears the first one's number.

    Example:
        >>> starts_over("Step 1: red is 4\nStep 2: 8", ["Step 1: red is 3"])
        True
    """
    first = steps[0].strip().partition("\n")[0] if steps else ""
    if len(first) >= _TELLING and text.lstrip().startswith(first):
        return True
    numbers = [mark["number"] for mark in _marks(steps[:1]) if mark["number"]]
    for line in _read(text) if numbers else ():
        if line.kind in ("final", "answer"):
            return False
        if line.kind in ("tag", "mark") and line.match:
            return line.match["number"] == numbers[0]
    return False


def opening(steps: Sequence[str]) -> str:
    """Steps as the beginning of an answer that a policy is to continue; "" for none."""
    return join_steps([*steps, ""]) if steps else ""


def is_marked(steps: Sequence[str]) -> bool:
    """Does one of them bear a step mark or a step's tag?"""
    return bool(_marks(steps))


def _marks(steps: Sequence[str]) -> list[re.Match[str]]:
    blotted, _ = _without_blocks("\n".join(steps))
    lines = _read(blotted)
    return [match for i in _marked(lines) if (match := lines[i].match)]


def join_steps(steps: Sequence[str], answer: str | None = None) -> str:
    """Steps and answer as one text; `split_steps` of it gives them back.

    Marked steps stand on lines of their own; steps without marks are set apart by an empty line,
    because each may hold several lines.
    """
    body = ("\n" if is_marked(steps) else "\n\n").join(steps)
    if answer is None:
        return body
    return f"{body}\nFinal answer: {answer}" if body else f"Final answer: {answer}"
