r"""Figures of a published benchmark, by its own rules, from answers or from step scores.

Answer benchmarks (mathvista, wemath, mathvision, mmvet, mmstar, mmmu, mmmu_pro, m3cot) take one
response per question: what `dreamprm select` wrote, the benchmark's own output file, a result sheet
of VLMEvalKit (.xlsx, .tsv) or a sample file of lmms-eval (.jsonl). Step benchmarks take step scores
of `dreamprm score` (visualprocessbench, prmbench), or also a critic's responses (processbench,
big_bench_mistake, mr_gsm8k, mr_math, mr_ben, mathcheck); rewardmath's file holds its scores. Prints
a table with 95% intervals and writes a result file.

  dreamprm benchmark --benchmark mathvista --data testmini.json --responses chosen.jsonl \
    --output mathvista.json
  dreamprm benchmark --benchmark processbench --data math.json --scores scores.jsonl --threshold 0.5
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamprm.errors import DataError

if TYPE_CHECKING:
    from dreamprm.evaluation.benchmarks import Response
    from dreamprm.evaluation.results import Metric, Result
    from dreamprm.records import Question


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of benchmark.

    Attributes:
        benchmark: its name.
        data: the benchmark's file in its published layout; by default the questions that the
            responses' rows hold, or else its set on the hub.
        responses: answer benchmarks: one response per question. processbench and its like, instead
            of scores: rows of `id` and `prediction`, the first wrong step counted as the benchmark
            does (-1: none), or of a critic's text as `run_eval.py` of ProcessBench writes them.
        asked: the questions as they were asked, where their options stood in another order than in
            the data: letters are mapped by the options' texts (MMMU-Pro, whose questions have other
            letters with four options than with ten).
        grades: mmvet: file of a judge model's grades; with judge_model it is written, by default
            beside the responses.
        judge_model: mmvet: grades the responses, as judge_urls serve it. The prompt is ours: for
            published figures run the benchmark's own grader, and give its file as grades.
        judge_urls: endpoints of the judge.
        judge_runs: grades of each answer, whose mean counts (the paper: 5).
        api_key_env: environment variable that holds the judge's key.
        rules: `published` (the benchmark's own, for figures that compare with published ones) or
            `ours` (values and units are compared too).
        extract_again: extract answers from the responses' texts, also where the file holds some.
        allow_missing: count questions without a response as wrong instead of refusing (mmvet: they
            are graded as empty answers).
        scores: step benchmarks: step scores of the data file's solutions.
        threshold: step benchmarks: a step with a score below it is called wrong; choose it on
            other data.
        limit: only the first so many questions.
        questions_output: file that the questions are written to in our own form, to be asked by
            `dreamprm sample` or `select`, whose rows are then the responses; without responses (or
            grades) nothing is scored.
        name: of the run, as tables show it; by default that of the responses or scores file.
        output: result file (JSON).
        export: file in the row layout of another tool.
        export_layout: `vlmevalkit` (tab-separated) or `lmms_eval` (JSON lines).
    """

    benchmark: str
    data: Path | None = None
    responses: Path | None = None
    asked: Path | None = None
    grades: Path | None = None
    judge_model: str | None = None
    judge_urls: list[str] = field(default_factory=list)
    judge_runs: int = 1
    api_key_env: str = "OPENAI_API_KEY"
    rules: Literal["published", "ours"] = "published"
    extract_again: bool = False
    allow_missing: bool = False
    scores: Path | None = None
    threshold: float = 0.5
    limit: int | None = None
    questions_output: Path | None = None
    name: str | None = None
    output: Path | None = None
    export: Path | None = None
    export_layout: Literal["vlmevalkit", "lmms_eval"] = "vlmevalkit"


def run(config: Config) -> None:
    """Score, print and write."""
    from dreamprm.evaluation.benchmarks import ANSWERS, export, find_benchmark
    from dreamprm.evaluation.results import write_result

    benchmark = find_benchmark(config.benchmark)
    questions: list[Question] = []
    result: Result | None
    if benchmark in ANSWERS:
        questions, result = _answers(config, benchmark)
    elif benchmark == "rewardmath":
        result = _responses(config)
    else:
        result = _steps(config, benchmark)
    if result is None:
        return
    if config.output is not None:
        write_result(config.output, result)
    if config.export is not None:
        if not questions:
            raise DataError(f"export is of answers; {benchmark} has none")
        export(config.export, result, {q.id: q for q in questions}, config.export_layout)
    _print(result)


def _settings(config: Config, *names: str) -> dict[str, Any]:
    settings = {name: getattr(config, name) for name in ("benchmark", "data", "limit", *names)}
    return {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}


def _answers(config: Config, name: str) -> tuple[list[Question], Result | None]:
    from dreamprm.data import read_questions, write_questions
    from dreamprm.evaluation import benchmarks

    benchmark = benchmarks.ANSWERS[name]
    data = config.data
    if data is None and config.responses is not None:
        benchmarks.check_form(benchmark, config.responses)
        if benchmarks.questions_in(benchmark, config.responses):
            data = config.responses
    whole = benchmarks.read_benchmark(benchmark, data)
    questions, dropped = whole[: config.limit], {q.id for q in whole[len(whole[: config.limit]) :]}
    if config.questions_output is not None:
        write_questions(config.questions_output, questions)
        print(f"{config.questions_output}: {len(questions):,} questions of {name}")
        if config.responses is None and config.grades is None:
            return questions, None
    if name == "mmvet":
        return questions, _graded(config, questions, dropped)
    if config.responses is None:
        raise DataError(f"{name} needs --responses")
    responses = benchmarks.read_responses(benchmark, config.responses, whole)
    if config.asked is not None:
        responses = benchmarks.by_option_text(responses, read_questions(config.asked), questions)
    result = benchmarks.score_answers(
        benchmark,
        questions,
        [r for r in responses if r.question_id not in dropped],
        name=config.name or config.responses.stem,
        rules=config.rules,
        use_stored=not config.extract_again,
        allow_missing=config.allow_missing,
        settings=_settings(config, "responses", "asked", "extract_again"),
    )
    return questions, result


def _graded(config: Config, questions: list[Question], dropped: set[str]) -> Result:
    """MM-Vet from a file of grades, which a judge model completes first where one is given."""
    from dreamprm.evaluation.benchmarks import read_responses
    from dreamprm.evaluation.benchmarks.mmvet import MMVET, score_grades

    grades, names = config.grades, ["grades"]
    if config.judge_model:
        if config.responses is None:
            raise DataError("mmvet needs --responses")
        if not config.judge_urls:
            raise DataError("judge_model needs judge_urls: endpoints that serve it")
        grades = grades or config.responses.with_suffix(".grades.json")
        names = ["responses", "judge_model", "judge_runs"]
        _judge(config, questions, read_responses(MMVET, config.responses), grades)
    if grades is None:
        raise DataError(
            "mmvet is graded by a judge model; give the file of its --grades, or --responses and "
            "--judge_model"
        )
    of = config.responses if config.judge_model and config.responses else grades
    return score_grades(
        questions,
        grades,
        name=config.name or of.stem,
        settings=_settings(config, *names),
        left_out=dropped,
    )


def _judge(
    config: Config, questions: list[Question], responses: list[Response], grades: Path
) -> None:
    import asyncio

    from dreamprm.cli.terminal import progress
    from dreamprm.data.files import locked
    from dreamprm.evaluation.benchmarks.mmvet import grade_responses
    from dreamprm.policy.options import PolicyOptions
    from dreamprm.policy.served import EndpointPolicy

    async def grade() -> None:
        names = ("judge_model", "judge_urls", "api_key_env")
        options = PolicyOptions(**{name: getattr(config, name) for name in names})
        judge = EndpointPolicy(options.judge(temperature=0.0 if config.judge_runs == 1 else 1.0))
        try:
            await grade_responses(
                questions,
                responses,
                judge,
                grades,
                runs=config.judge_runs,
                allow_missing=config.allow_missing,
                progress=advance,
            )
        finally:
            await judge.close()

    with locked(grades), progress("answers graded", len(questions) * config.judge_runs) as advance:
        asyncio.run(grade())


def _responses(config: Config) -> Result:
    from dreamprm.evaluation.benchmarks.rewardmath import ranking_result, read_losses

    if config.data is None:
        raise DataError("rewardmath needs --data, one of its result files: ten scores a row")
    problems = read_losses(config.data)
    kept = dict(list(problems.items())[: config.limit])
    return ranking_result(kept, name=config.name or config.data.stem, settings=_settings(config))


def _steps(config: Config, name: str) -> Result:
    from dreamprm.data import read_pair, read_scores
    from dreamprm.evaluation.first_error import FIRST_STEP, read_said
    from dreamprm.evaluation.step_level import score_steps

    source = config.scores or (config.responses if name in FIRST_STEP else None)
    if config.data is None or source is None or (config.scores and config.responses):
        critics = ", or a critic's --responses" if name in FIRST_STEP else ""
        raise DataError(
            f"{name} needs --data, its published file, and --scores of its solutions{critics}"
        )
    questions, trajectories = read_pair(config.data, format=name)
    return score_steps(
        name,
        questions,
        trajectories[: config.limit],
        read_scores(source) if config.scores else read_said(source, name),
        threshold=config.threshold,
        name=config.name or source.stem,
        settings=_settings(config, *(["scores", "threshold"] if config.scores else ["responses"])),
    )


def _print(result: Result) -> None:
    """Metrics as rows, methods as columns, in percent."""
    from dreamprm.cli.terminal import print_table

    def cell(metric: Metric) -> str:
        if metric.ci95 is None:
            return f"{100 * metric.value:.2f}"
        low, high = metric.ci95
        return f"{100 * metric.value:.2f} [{100 * low:.1f}, {100 * high:.1f}]"

    first = next(iter(result.metrics.values()))
    rows = [
        [name, f"{metric.n:,}", *(cell(metrics[name]) for metrics in result.metrics.values())]
        for name, metric in first.items()
    ]
    if result.kind == "answers":
        rows += _unread(result)
    print_table(f"{result.name}: % [95% interval]", ["metric", "n", *result.metrics], rows)


def _unread(result: Result) -> list[list[str]]:
    """Rows of the table: responses without an answer, and what the script makes of such."""
    asked = len(next(iter(result.questions.values())))
    unread, adds = result.details.get("unread"), result.details.get("guessing_would_add")
    rows = []
    for why, count in unread.items() if isinstance(unread, dict) else ():
        if isinstance(count, int):
            share = f"{100 * count / asked:.2f}"
            rows.append([f"responses without an answer: {why}", f"{count:,}", share])
    if isinstance(nearest := result.details.get("interpreted"), int):
        share = f"{100 * nearest / asked:.2f}"
        rows.append(["no choice; counted as that of nearest spelling", f"{nearest:,}", share])
    if isinstance(adds, float):
        rows.append(["the benchmark's own random guess there would add", "", f"{100 * adds:.2f}"])
    return rows
