"""The result of `benchmarks.training` as markdown."""

from __future__ import annotations

from typing import Any

BARS = {
    "ours / plain, seconds per trajectory, each at its fastest": "at most 1.3",
    "ours / plain, peak memory, micro-batches of 8": "at most 1.15",
    "paper / ours, seconds per labelled step": "at least 8",
}


def render(result: dict[str, Any]) -> str:
    """The whole table, of the parts that there are."""
    lines = [
        "# Training: cost and exactness",
        "",
        "Made by `python -m benchmarks.training`; figures in `training.json`.",
        "",
    ]
    if "cost" in result:
        lines += _cost(result["cost"])
    if "exactness" in result:
        lines += _exactness(result["exactness"])
    return "\n".join(lines)


def _cost(cost: dict[str, Any]) -> list[str]:
    s, rows = cost["setting"], cost["procedures"]
    how = [name for name in ("lora", "bf16", "gradient_checkpointing") if s[name]] or ["fp32"]
    lines = [
        "## Cost",
        "",
        f"{s['model']} ({cost['parameters'] / 1e6:.1f} M parameters, "
        f"{cost['trained_parameters'] / 1e6:.1f} M trained; {', '.join(how)}), "
        f"{s['domains']} micro-batches of {s['micro_batch']} per step, window {s['window']}, "
        f"{s['image_tokens']} image tokens, {s['steps']} steps of {s['words']} words; "
        f"{_machine(cost)}; medians of {s['repeats']}.",
        "`plain, n` and `ours, n`: micro-batches of n. Chunks of the meta batch but one are scored "
        "twice, and count twice.",
        "",
        "| procedure | ms / trajectory | ms / labelled step | tokens / trajectory | "
        "tokens / labelled step | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        fastest = " (fastest)" if name in (cost["fastest_plain"], cost["fastest_ours"]) else ""
        whole = row.get("seconds_per_trajectory")
        tokens = row.get("tokens_per_trajectory")
        lines.append(
            f"| {name}{fastest} | {'' if whole is None else f'{1e3 * whole:.3g}'} | "
            f"{1e3 * row['seconds_per_labelled_step']:.3g} | "
            f"{'' if tokens is None else f'{tokens:.0f}'} | "
            f"{row['tokens_per_labelled_step']:.0f} | {row['peak_bytes'] / 2**20:.1f} |"
        )
    lines += ["", "| ratio | | wanted |", "|---|---|---|"]
    lines += [f"| {name} | {r:.2f} | {BARS.get(name, '')} |" for name, r in cost["ratios"].items()]
    return [*lines, ""]


def _exactness(exactness: dict[str, Any]) -> list[str]:
    rows = exactness["estimators"]
    columns = list(dict.fromkeys((r["window"], r["precision"]) for r in rows))
    heads = [f"{_steps(window)}, {precision}" for window, precision in columns]
    lines = [
        "## Exactness",
        "",
        "Cosine with the unrolled oracle in float64 after removing the mean: by domain / by "
        f"trajectory. Medians of {exactness['seeds']} seeds, lowest in brackets; "
        f"{exactness['warm_steps']} steps of AdamW before; {_machine(exactness)}.",
        "",
        f"| estimator | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
    ]
    for key in dict.fromkeys((r["estimator"], r["meta_gradient_at"]) for r in rows):
        mine = {
            (r["window"], r["precision"]): r
            for r in rows
            if (r["estimator"], r["meta_gradient_at"]) == key
        }
        lines.append(f"| {', '.join(key)} | {' | '.join(_cell(mine[c]) for c in columns)} |")
    return [*lines, "", *_by_size(exactness["by_size"])]


def _by_size(rows: list[dict[str, Any]]) -> list[str]:
    sizes = list(dict.fromkeys((r["width"], r["parameters"]) for r in rows))
    heads = [f"width {width} ({parameters / 1e6:.2g} M)" for width, parameters in sizes]
    lines = [
        "One AdamW step on models of growing size with random weights; `bf16 parameters`: weights, "
        "gradients and moments in bf16, as the oracle's weights are rounded.",
        "",
        f"| estimator, precision | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
    ]
    fields = ("estimator", "meta_gradient_at", "precision")
    for key in dict.fromkeys(tuple(r[f] for f in fields) for r in rows):
        mine = {r["width"]: r for r in rows if tuple(r[f] for f in fields) == key}
        cells = [_cell(mine[width]) for width, _ in sizes]
        lines.append(f"| {', '.join(key)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(row: dict[str, Any]) -> str:
    return " / ".join(
        f"{_cosine(row[what]['median'])} [{_cosine(row[what]['lowest'])}]"
        for what in ("domains", "trajectories")
        if row[what] is not None
    )


def _cosine(value: float) -> str:
    return f"{value:.4f}" if value > 0.99 else f"{value:.2f}"


def _steps(window: int) -> str:
    return "one step" if window == 1 else f"window {window}"


def _machine(part: dict[str, Any]) -> str:
    return f"{part['device']}, {part['threads']} threads, torch {part['torch']}"
