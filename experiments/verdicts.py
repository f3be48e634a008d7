"""How far our verdicts agree with those that published files hold.

    python -m experiments.verdicts path/to/data

Writes `docs/results/verdicts.md`: for each file how many verdicts agree, every one that does not
with the reason, and figures recomputed with our rules; and `docs/results/responses.md`: for stored
responses of many models how often our reading agrees with each benchmark's own, and the kinds of
difference. The data folder holds `gsm8k/`, `math_rm_maj/`, `mathvista/`, `mathvision/`,
`mmmu_pro/` and `dreamprm_1_5/` as published, and `responses/`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from dreamprm.answers import RULES_VERSION, Verdict, extract_answer, read_answer, verdict
from dreamprm.answers.options import option_meant
from dreamprm.answers.text import clean
from dreamprm.data import read_trajectories
from dreamprm.data.sources import read_known
from dreamprm.evaluation.benchmarks import ANSWERS, read_responses
from dreamprm.evaluation.benchmarks import mathvision as mathvision_rule
from dreamprm.evaluation.benchmarks.base import letter_or_text, our_verdict
from dreamprm.evaluation.benchmarks.mathvista import (
    REFUSALS,
    answering_part,
    extract,
    published_verdict,
    right,
)
from dreamprm.prompts import option_letter
from dreamprm.records import Question, Trajectory
from dreamprm.search.choosing import highest_scored, most_voted

GSM8K_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
MATHVISTA_FILES = ("output_bard.json", "output_gpt4_2shot_solution_use_ocr.json")
MATHVISION_FILES = (
    "mathvision/output_Qwen-VL-Max.jsonl",
    "responses/mathvision/output_GPT4-CoT-text-only.jsonl",
    "responses/mathvision/output_Gemini-Pro-CoT.jsonl",
    "responses/mathvision/output_InternLM-XComposer2-VL.jsonl",
    "responses/mathvision/output_InternLM-XComposer2-VL-CoT.jsonl",
    "responses/mathvision/output_LLaVA-v1.5-7B.jsonl",
    "responses/mathvision/output_Random-Chance.jsonl",
)
NS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Compared:
    """One answer, its stored verdict and ours."""

    row: str
    answer: str | None
    gold: str
    stored: bool
    ours: Verdict
    why: str = ""
    read: bool = True  # does the response state an answer?
    guessed: bool = False  # did the published script draw an option?

    @property
    def agrees(self) -> bool:
        return self.stored == self.ours.correct


@cache  # figures and pages are of the same verdicts
def gsm8k(data: Path) -> list[Compared]:
    """Four models' solutions: the answer is extracted from the text."""
    found = []
    for number, row in _jsonl(data / "gsm8k" / "example_model_solutions.jsonl"):
        gold = extract_answer(row["ground_truth"])
        assert gold is not None
        for model in GSM8K_MODELS:
            answer = extract_answer(row[model]["solution"])
            ours = verdict(answer, gold)
            name = f"{number}, {model}"
            found.append(Compared(name, answer, gold, row[model]["is_correct"], ours))
    return found


@cache  # figures and pages are of the same verdicts
def math(data: Path, *, from_text: bool) -> list[Compared]:
    """MATH, eight samples: the stored extraction, or our own from the text."""
    found = []
    for number, row in _jsonl(data / "math_rm_maj" / "math_cot_100.jsonl"):
        for i, stored in enumerate(row["score"]):
            answer = extract_answer(row["code"][i]) if from_text else row["pred"][i]
            ours = verdict(answer, row["answer"])
            why = "the stored verdict is wrong: the two are equal"
            if from_text and row["pred"][i] == "4:30":
                why = 'the stored extraction lost "p.m.", so the stored verdict is wrong'
            found.append(
                Compared(f"{number}, sample {i + 1}", answer, row["answer"], stored, ours, why)
            )
    return found


@cache  # figures and pages are of the same verdicts
def mathvista(data: Path, file: str, *, published_rules: bool) -> list[Compared]:
    """MathVista, from the stored extraction."""
    asked = {q.id: q for q in read_known("mathvista", path=data / "mathvista" / "testmini.json")}
    found = []
    for pid, row in json.loads((data / "mathvista" / file).read_text(encoding="utf-8")).items():
        answer, gold, choices = row["extraction"], row["answer"], row["choices"] or ()
        theirs = published_verdict(asked[pid], answer)
        ours = verdict(answer, gold, choices, unit=row["unit"], precision=row["precision"])
        why = ""
        if theirs.rule == "nearest_choice":
            kind = "right" if row["true_false"] else "wrong"
            why = (
                f"names none of the choices; the one with the nearest spelling happens to be {kind}"
            )
            if ours.correct:
                why = "equal in value; MathVista compares spelling only"
        elif theirs.rule == "letter":
            why = 'a choice is itself "(b)"; MathVista reads it as the letter of another choice'
        found.append(
            Compared(pid, answer, gold, row["true_false"], theirs if published_rules else ours, why)
        )
    return found


def mathvista_from_text(data: Path, file: str) -> list[Compared]:
    """MathVista, from the responses, without a model that extracts answers."""
    asked = {q.id: q for q in read_known("mathvista", path=data / "mathvista" / "testmini.json")}
    found = []
    for pid, row in json.loads((data / "mathvista" / file).read_text(encoding="utf-8")).items():
        answer = extract(asked[pid], row["response"] or "")
        ours = Verdict(right(asked[pid], answer), "published rules")
        why = "another answer is read in the text"
        named = (row["extraction"] or "").strip("().").lower() in _choices(row["choices"] or [])
        if row["choices"] and answer in REFUSALS and named:
            why = "the response gives no choice; the stored extraction names one"
        elif row["choices"] and answer in REFUSALS:
            why = "the response gives no choice; other words for that are nearer another choice"
        elif row["choices"] and not named:
            why = "the stored extraction is none of the choices, and counts as the nearest"
        found.append(
            Compared(
                pid,
                f"{answer}; stored {row['extraction']}",
                row["answer"],
                row["true_false"],
                ours,
                why,
            )
        )
    return found


def _choices(choices: Sequence[str]) -> set[str]:
    return {c.lower() for c in choices} | {"abcdefgh"[i] for i in range(len(choices))}


@cache  # figures and pages are of the same verdicts
def mathvision(data: Path, file: str) -> list[Compared]:
    """MATH-Vision, from the responses: published verdicts by the benchmark's own rule."""
    asked = {q.id: q for q in read_known("mathvision", path=data / "mathvision" / "test.jsonl")}
    found = []
    for _, row in _jsonl(data / file):
        question = asked[row["id"]]
        answer = mathvision_rule.extract(question, row["response"])
        ours = Verdict(mathvision_rule.right(question, answer), "published rules")
        found.append(Compared(row["id"], answer, question.answer, row["correct"], ours))
    return found


MMMU_PRO_WHY = {
    "296": "two letters; the stored verdict takes the last",
    "569": '"AC" is the text of an option; the stored letter does not stand in the response',
    "954": "the response ends with the letter C; the stored letter is B",
    "1077": 'option A reads "(D)"; the stored verdict takes that for the letter',
}


@cache  # figures and pages are of the same verdicts
def mmmu_pro(data: Path) -> list[Compared]:
    """MMMU-Pro, chain of thought with up to ten options, from the response's text."""
    found = []
    rows = _jsonl(data / "mmmu_pro" / "gpt-4o_standard_10_options_cot.jsonl")
    for number, row in rows:
        options = ast.literal_eval(row["options"])
        if isinstance(options[0], list):  # row 82 wraps its list in another
            [options] = options
        options = [str(option) for option in options]
        answer = extract_answer(row["response"], options)
        ours = verdict(answer, row["answer"], options)
        why = MMMU_PRO_WHY.get(str(number), "")
        found.append(Compared(str(number), answer, row["answer"], row["if_right"], ours, why))
    return found


# ---- stored responses of many models


def mathvista_responses(data: Path, file: str, every: int = 1) -> list[Compared]:
    """MathVista's stored verdicts, whose extractions a language model made."""
    asked = {q.id: q for q in read_known("mathvista", path=data / "mathvista" / "testmini.json")}
    compared = []
    for _, row in islice(_jsonl(data / "responses" / "mathvista" / file), 0, None, every):
        question, stored = asked[row["pid"]], row["true_false"]
        answer = extract(question, row["response"] or "")
        read = _states_answer(question, row["response"] or "")
        ours = Verdict(right(question, answer), "published rules")
        named = (row["extraction"] or "").strip("().").lower() in _choices(question.options)
        why = "another answer is read"
        if not (row["response"] or "").strip("\u200b "):
            why = "the response is empty; the stored extraction is invented"
        elif not read:
            why = "no answer is read; the stored extraction names one"
        if question.options and row["extraction"] and not named:
            why = "the stored extraction is none of the choices, and counts as the nearest"
        gold = letter_or_text(question)
        compared.append(Compared(row["pid"], answer, gold, stored, ours, why, read))
    return compared


def _states_answer(question: Question, text: str) -> bool:
    """Does a response state an answer, one of the choices if there are any, or is it inferred?"""
    stated = extract_answer(answering_part(text)[0], question.options)
    if stated is None or not question.options:
        return stated is not None
    return option_meant(clean(stated), question.options) is not None


def mmmu_responses(data: Path, benchmark: str, file: str, every: int = 1) -> list[Compared]:
    """MMMU's and MMMU-Pro's verdicts by their own scripts, which draw where they read nothing."""
    rules = ANSWERS[benchmark]
    folder = "mmmu_val" if benchmark == "mmmu" else "mmmu_pro"
    compared = []
    responses = read_responses(rules, data / "responses" / folder / file)
    for response in islice(responses, 0, None, every):
        question, text = response.question, response.text or ""
        assert question is not None
        script = rules.extract(question, text)
        stored = rules.right(question, script)
        answer = extract_answer(text, question.options)
        ours = Verdict(our_verdict(question, answer), "our rules")
        read, guessed = answer is not None, bool(question.options) and script is None
        why = _difference(script, answer, text, question.options)
        compared.append(
            Compared(question.id, answer, question.answer, stored, ours, why, read, guessed)
        )
    return compared


def m3cot_responses(data: Path, file: str, every: int = 1) -> list[Compared]:
    """M3CoT's verdicts by its own rule, which is careless."""
    compared = []
    for _, row in islice(_jsonl(data / "responses" / "m3cot" / file), 0, None, every):
        options, gold = row["choices"], row["answer"]
        answer = extract_answer(row["response"], options)
        ours = verdict(answer, gold, options)
        letter, basis = m3cot_letter(row["response"], options)
        why = f"{_difference(letter, answer, row['response'], options)}; it takes {basis}"
        read = answer is not None
        compared.append(Compared(row["id"], answer, gold, row["official"], ours, why, read))
    return compared


def _difference(letter: str | None, answer: str | None, text: str, options: Sequence[str]) -> str:
    if not text.strip():
        return "the response is empty"
    reads = "the script reads none" if letter is None else "the script reads one"
    rule = read_answer(text, options).rule
    return f"{reads}, we read " + (f"none: {rule}" if answer is None else f"one by {rule}")


def m3cot_letter(text: str, options: Sequence[str]) -> tuple[str | None, str]:
    """The letter that M3CoT's script reads, and what it rests on; None: it reads none.

    Example:
        >>> m3cot_letter("f(x) is 12", ["1", "2"]), m3cot_letter("12?", ["1", "3"])
        (('X', 'the last letter in parentheses'), ('A', 'the last option named anywhere'))
    """
    letters = [option_letter(i) for i in range(len(options))]
    if "[Answer]" in text:
        text = text.rpartition("[Answer]")[2].partition("[Rationale]")[0].partition("[Context]")[0]
    if in_parentheses := re.findall(r"\(([A-Za-z])\)", text):
        return in_parentheses[-1].upper(), "the last letter in parentheses"
    named = [x for x, o in zip(letters, options, strict=True) if o.lower() in text.lower()]
    if named:
        return named[-1], "the last option named anywhere"
    words = re.sub(r"[\n.,!?]", " ", text).split(" ")
    for alone in (letters, [x.lower() for x in letters]):
        if read := [x for x in alone if x in words]:
            return read[-1].upper(), "a lone letter"
    return None, "nothing"


def all_responses(data: Path, every: int = 1) -> dict[str, list[Compared]]:
    """Every file of stored responses, or every so many rows of it, by a title for the table."""
    folder = data / "responses"
    files = {name: sorted(p.name for p in (folder / name).glob("*.jsonl")) for name in _FOLDERS}
    files["mmmu_pro"].remove("published.jsonl")
    compared = {f"MathVista, {f}": mathvista_responses(data, f, every) for f in files["mathvista"]}
    for f in files["mmmu_pro"]:
        compared[f"MMMU-Pro, {f}"] = mmmu_responses(data, "mmmu_pro", f, every)
    for f in files["mmmu_val"]:
        compared[f"MMMU, {f}"] = mmmu_responses(data, "mmmu", f, every)
    return compared | {f"M3CoT, {f}": m3cot_responses(data, f, every) for f in files["m3cot"]}


_FOLDERS = ("mathvista", "mmmu_pro", "mmmu_val", "m3cot")


def responses_to_markdown(data: Path) -> str:
    """The page of stored responses: a table, and for each file the kinds of difference."""
    compared = all_responses(data)
    lines = [
        "# Our reading of stored responses against the benchmarks' own",
        "",
        f"Rules version {RULES_VERSION}. Made by `python -m experiments.verdicts <data folder>`.",
        "",
        "Right answers by the published script (of MathVista the stored verdicts; of MMMU and "
        "MMMU-Pro without the responses on which it draws an option) and by ours, on the same "
        "rows; and agreement by row, of all of these and of those that state an answer.",
        "",
        "| file | rows | drawn | script | ours | agree | unread | agree where read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in compared.items():
        kept = [row for row in rows if not row.guessed]
        read = [row for row in kept if row.read]
        figures = [len(rows), len(rows) - len(kept), sum(row.stored for row in kept)]
        figures += [sum(row.ours.correct for row in kept)]
        cells = [*map(str, figures), _agreement(kept), str(len(kept) - len(read))]
        lines.append(f"| {name} | {' | '.join(cells)} | {_agreement(read)} |")
    for name, rows in compared.items():
        lines += ["", f"## {name}", ""]
        lines += ["| kind | script wrong, ours right | script right, ours wrong | rows |"]
        lines += ["|---|---|---|---|"]
        kinds: dict[str, list[Compared]] = {}
        for row in rows:
            if not row.agrees and not row.guessed:
                kinds.setdefault(row.why, []).append(row)
        for why, of_kind in sorted(kinds.items(), key=lambda item: -len(item[1])):
            ours = sum(row.ours.correct for row in of_kind)
            names = ", ".join(row.row for row in of_kind[:5])
            lines.append(f"| {why} | {ours} | {len(of_kind) - ours} | {names} |")
    return "\n".join(lines) + "\n"


def _agreement(rows: Sequence[Compared]) -> str:
    return f"{_percent(row.agrees for row in rows):.2f}%"


def gsm8k_figures(data: Path) -> dict[str, float]:
    """Accuracies of the four models; the majority of the four in file order, ties to the first."""
    compared = gsm8k(data)
    rows = [compared[i : i + 4] for i in range(0, len(compared), 4)]
    four = [[_candidate(i, c.answer, c.ours.correct) for i, c in enumerate(row)] for row in rows]
    figures = {m: _percent(row[i].ours.correct for row in rows) for i, m in enumerate(GSM8K_MODELS)}
    figures["majority"] = _percent(most_voted(c)[0].outcome for c in four)
    figures["any right"] = _percent(any(t.outcome for t in c) for c in four)
    return figures


def math_figures(data: Path, *, stored: bool) -> dict[str, list[float]]:
    """Best of the first 1, 2, 4, 8 samples, by stored verdicts or by ours."""
    compared = math(data, from_text=False)
    eights = [compared[i : i + 8] for i in range(0, len(compared), 8)]
    samples = [
        [_candidate(j, c.answer, c.stored if stored else c.ours.correct) for j, c in enumerate(row)]
        for row in eights
    ]
    rows = [row for _, row in _jsonl(data / "math_rm_maj" / "math_cot_100.jsonl")]
    scores = [[score for [score] in row["pred_score"]] for row in rows]
    return {
        "majority": [_percent(most_voted(s[:n])[0].outcome for s in samples) for n in NS],
        "reward model": [
            _percent(
                highest_scored(s[:n], p[:n])[0].outcome
                for s, p in zip(samples, scores, strict=True)
            )
            for n in NS
        ],
        "any right": [_percent(any(t.outcome for t in s[:n]) for s in samples) for n in NS],
    }


def dreamprm_figures(data: Path) -> dict[str, list[float]]:
    """DreamPRM-1.5's meta set: the mean of the first n answers, and whether any is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its turn labels carry nothing, and are not needed here
        trajectories = read_trajectories(data / "dreamprm_1_5" / "meta_MMMU_Pro.json")
    by_question: dict[str, list[bool]] = {}
    for trajectory in trajectories:
        by_question.setdefault(trajectory.question_id, []).append(bool(trajectory.outcome))
    fours = list(by_question.values())
    return {
        "mean": [round(100 * mean(mean(f[:n]) for f in fours), 2) for n in (1, 2, 3, 4)],
        "any right": [_percent(any(f[:n]) for f in fours) for n in (1, 2, 3, 4)],
    }


def all_compared(data: Path) -> dict[str, list[Compared]]:
    """Every comparison, by a title for the table."""
    found = {
        "GSM8K, from the solutions": gsm8k(data),
        "MATH, from the stored extraction": math(data, from_text=False),
        "MATH, from the texts": math(data, from_text=True),
        "MMMU-Pro, from the responses": mmmu_pro(data),
    }
    for file in MATHVISTA_FILES:
        name = f"MathVista, {file.split('_')[1]}"
        found[f"{name}, MathVista's rules"] = mathvista(data, file, published_rules=True)
        found[f"{name}, our rules"] = mathvista(data, file, published_rules=False)
        found[f"{name}, from the responses"] = mathvista_from_text(data, file)
    for file in MATHVISION_FILES:
        model = Path(file).stem.removeprefix("output_")
        found[f"MATH-Vision, {model}, from the responses"] = mathvision(data, file)
    return found


def to_markdown(data: Path) -> str:
    """The whole page."""
    found = all_compared(data)
    lines = [
        "# Our verdicts against stored ones",
        "",
        f"Rules version {RULES_VERSION}. Made by `python -m experiments.verdicts <data folder>`.",
        "",
        "| source | verdicts | agree | percent |",
        "|---|---|---|---|",
    ]
    for name, rows in found.items():
        agree = sum(row.agrees for row in rows)
        lines.append(f"| {name} | {len(rows)} | {agree} | {100 * agree / len(rows):.2f} |")
    lines += ["", "## Figures", "", "| figure | value |", "|---|---|"]
    figures: dict[str, Any] = {f"GSM8K, {k}": v for k, v in gsm8k_figures(data).items()}
    for which, stored in (("stored verdicts", True), ("our verdicts", False)):
        for name, values in math_figures(data, stored=stored).items():
            figures[f"MATH, {name} of 1/2/4/8, {which}"] = values
    for name, values in dreamprm_figures(data).items():
        figures[f"DreamPRM-1.5 meta set, {name} of 1/2/3/4"] = values
    for name, value in figures.items():
        shown = value if isinstance(value, list) else [value]
        lines.append(f"| {name} | {' / '.join(f'{v:.2f}' for v in shown)} |")
    for name, rows in found.items():
        if not all(row.agrees for row in rows):
            lines += ["", f"## Where they differ: {name}", ""]
            lines += ["| row | answer | gold | stored | ours | why |", "|---|---|---|---|---|---|"]
            lines += [_line(row) for row in rows if not row.agrees]
    return "\n".join(lines) + "\n"


def _line(row: Compared) -> str:
    words = ("wrong", "right")
    cells = [row.row, _code(row.answer), _code(row.gold), words[row.stored]]
    cells += [f"{words[row.ours.correct]} ({row.ours.rule})", row.why or "not explained"]
    return f"| {' | '.join(cells)} |"


def _code(text: str | None) -> str:
    return "none" if text is None else f"`{text.replace('|', '/')}`"


def _candidate(index: int, answer: str | None, outcome: bool) -> Trajectory:
    return Trajectory(
        question_id="q", steps=("-",), answer=answer, outcome=outcome, sample_index=index
    )


def _percent(outcomes: Any) -> float:
    return round(100 * mean(bool(outcome) for outcome in outcomes), 2)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            yield number, json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    for name, page in (("verdicts", to_markdown), ("responses", responses_to_markdown)):
        (args.results / f"{name}.md").write_text(page(args.data), encoding="utf-8")


if __name__ == "__main__":
    main()
