"""Do search methods beat best-of-N at equal tokens? Embedded world, stronger policy.

    python -m experiments.testbed data --seeds 101 102 103
    python -m experiments.testbed train --seeds 101 102 103 --methods dreamprm
    python -m experiments.search --seeds 101 102 103

Answers the benchmarks' questions with every method at several budgets, judged by the reward model
of the testbed's `dreamprm`. Methods over steps are run twice: sampling each continuation to its
end, and sampling single steps. Tokens are those sampled for a question, by the reward
model's tokenizer; what follows a prefix is paid for, the prefix is not. Writes
`docs/results/search.{json,md}`. Everything on disk is used again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamprm.data import read_questions
from dreamprm.evaluation.statistics import estimate_average, paired_difference
from dreamprm.policy.policy import Policy
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question
from dreamprm.rollouts.sampler import Sampler, work_through
from dreamprm.rollouts.store import RolloutStore
from dreamprm.search.choosing import TREES
from dreamprm.search.search import Search, SearchOptions

COMPLETIONS = 1000  # no limit: width and expand decide

NUMBERS = (2, 4, 8, 16, 32)
RIVALS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)  # so that one spends about as many tokens


@dataclass(frozen=True)
class Setting:
    """A method at a budget, and what it is compared by."""

    name: str
    options: SearchOptions


def settings() -> list[Setting]:
    found = [Setting("first_sample", SearchOptions("first_sample", 1))]
    for method in ("self_consistency", "weighted_vote", "best_of_n"):
        ns = NUMBERS if method != "best_of_n" else RIVALS
        found += [Setting(f"{method} {n}", SearchOptions(method, n)) for n in ns]
    stop = SearchOptions("best_of_n", 16, early_stop=0.95)
    found.append(Setting("best_of_n 16, early stop 0.95", stop))
    for single, suffix in ((False, ""), (True, ", single steps")):
        for expand in (2, 4, 8):
            options = SearchOptions("step_best_of_n", COMPLETIONS, 1, expand, single_steps=single)
            found.append(Setting(f"step_best_of_n {expand}{suffix}", options))
        for method in ("beam_search", "diverse_tree_search"):
            for width, expand in ((2, 1), (2, 2), (4, 2), (4, 4)):
                options = SearchOptions(method, COMPLETIONS, width, expand, single_steps=single)
                found.append(Setting(f"{method} {width} x {expand}{suffix}", options))
    return found


def run_seed(data: Path, folder: Path, seed: int, limit: int | None) -> dict[str, Any]:
    """Setting -> per question: benchmark, right, tokens, completions."""
    done = folder / f"found{limit or ''}.json"
    names = [s.name for s in settings()]
    found: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {}
    if set(names) <= set(found):
        return {name: found[name] for name in names}
    model = PRM.from_pretrained(data / "prm")
    questions = read_questions(data / "test.jsonl")[:limit]
    judge = StepScorer(model, batch_size=128)
    tokenizer = model.processor.tokenizer
    lengths: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in lengths:
            lengths[text] = len(tokenizer(text, add_special_tokens=False).input_ids)
        return lengths[text]

    policy = Policy("tiny/policy-strong", max_new_tokens=48, per_device_batch_size=512)

    async def session(setting: Setting, sampler: Sampler) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}

        async def do(question: Question) -> None:
            search = Search(
                question=question,
                sampler=sampler,
                options=setting.options,
                judge=judge if setting.options.needs_judge else None,
                count_tokens=count,
            )
            result = await search.run()
            rows[question.id] = {
                "benchmark": question.domain,
                "right": bool(result.chosen.trajectory.outcome),
                "tokens": result.tokens,
                "completions": len(result.candidates),
            }

        outcome = await work_through(questions, do, len(questions))
        if outcome.stopped or outcome.refused:
            raise outcome.stopped or RuntimeError(outcome.refused[0][1])
        await policy.close()
        return [rows[q.id] for q in questions]

    with RolloutStore(folder / "rollouts.db") as store:
        for setting in settings():
            if setting.name in found:
                continue
            found[setting.name] = asyncio.run(session(setting, Sampler(policy, store, seed)))
            right = np.mean([row["right"] for row in found[setting.name]])
            tokens = np.mean([row["tokens"] for row in found[setting.name]])
            print(f"seed {seed}: {setting.name}: {right:.3f} at {tokens:.0f} tokens", flush=True)
            done.write_text(json.dumps(found))
    return {name: found[name] for name in names}


def collect(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with interval, tokens and completions of every setting."""
    found: dict[str, Any] = {}
    for name in seeds[0]:
        values = by_benchmark(seeds, name)
        e = estimate_average(values)
        rows = [row for seed in seeds for row in seed[name]]
        found[name] = {
            "accuracy": e.mean,
            "ci95": list(e.ci95),
            "tokens": float(np.mean([row["tokens"] for row in rows])),
            "completions": float(np.mean([row["completions"] for row in rows])),
        }
    return found


def by_benchmark(seeds: list[dict[str, Any]], name: str) -> dict[str, Any]:
    benchmarks = sorted({row["benchmark"] for row in seeds[0][name]})
    return {
        b: np.array(
            [[float(r["right"]) for r in seed[name] if r["benchmark"] == b] for seed in seeds]
        )
        for b in benchmarks
    }


def at_equal_tokens(seeds: list[dict[str, Any]], table: dict[str, Any]) -> list[dict[str, Any]]:
    """Each setting against best-of-N with at least 95% of its tokens: the smallest such N."""
    plain = {n: table[n]["tokens"] for n in table if n.startswith("best_of_n") and "," not in n}
    found = []
    for name, row in table.items():
        if name.split()[0] not in (*TREES, "weighted_vote"):
            continue
        dearer = sorted((t, n) for n, t in plain.items() if t >= 0.95 * row["tokens"])
        if dearer:
            rival = dearer[0][1]
            d = paired_difference(by_benchmark(seeds, name), by_benchmark(seeds, rival))
            found.append(
                {"method": name, "rival": rival, "difference": d.mean, "ci95": list(d.ci95)}
                | {"p": d.p, "tokens": row["tokens"], "rival_tokens": plain[rival]}
            )
    return found


def to_markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Search at equal tokens",
        "",
        f"Embedded world, stronger policy, DreamPRM's reward model, seeds {result['seeds']}, mean "
        "of five benchmarks, 95% intervals over questions and seeds. Made by "
        f"`python -m experiments.search --seeds {' '.join(map(str, result['seeds']))}`.",
        "",
        "| method | accuracy | tokens | completions |",
        "|---|---|---|---|",
    ]
    for name, row in result["table"].items():
        low, high = row["ci95"]
        lines.append(
            f"| {name} | {100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] | "
            f"{row['tokens']:.0f} | {row['completions']:.1f} |"
        )
    lines += ["", "## Against best-of-N that spends about as many tokens, or more", ""]
    lines += [
        "| method | tokens | rival | its tokens | difference | p |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["equal_tokens"]:
        low, high = row["ci95"]
        lines.append(
            f"| {row['method']} | {row['tokens']:.0f} | {row['rival']} | {row['rival_tokens']:.0f} "
            f"| {100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] | "
            f"{row['p']:.2g} |"
        )
    lines += ["", "## Weighted voting minus voting", "", "| N | difference | p |", "|---|---|---|"]
    for row in result["weighted_minus_vote"]:
        low, high = row["ci95"]
        interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        lines.append(f"| {row['n']} | {100 * row['difference']:+.1f} {interval} | {row['p']:.2g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--data", type=Path, default=Path("build/testbed"))
    parser.add_argument("--output-dir", type=Path, default=Path("build/search"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, help="questions of each seed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seeds = []
    for seed in args.seeds:
        folder = args.output_dir / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        seeds.append(run_seed(args.data / f"seed-{seed}", folder, seed, args.limit))
    table = collect(seeds)
    votes = []
    for n in NUMBERS:
        a, b = (by_benchmark(seeds, f"{m} {n}") for m in ("weighted_vote", "self_consistency"))
        d = paired_difference(a, b)
        votes.append({"n": n, "difference": d.mean, "ci95": list(d.ci95), "p": d.p})
    result = {
        "seeds": args.seeds,
        "settings": {s.name: asdict(s.options) for s in settings()},
        "table": table,
        "equal_tokens": at_equal_tokens(seeds, table),
        "weighted_minus_vote": votes,
    }
    (args.results / "search.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / "search.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
