"""its_hub's best-of-N, beam search and particle filter on a policy and a reward model of ours.

The embedded policy answers a question about a picture. Needs its_hub 1.2 (`pip install its_hub`,
which brings no weights), and takes half a minute on one core:

    python examples/its_hub_search.py --prm FOLDER

Without --prm the reward model is not trained, and chooses by chance.
"""

from __future__ import annotations

import argparse

from its_hub import BestOfN
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.step_generation import StepGeneration

import dreamprm as dp
from dreamprm.peers import HubORM, HubPolicy, HubPRM
from dreamprm.tiny.world import WorldSize, build_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prm", help="folder of a trained reward model of the embedded world")
    folder = parser.parse_args().prm
    prm = dp.PRM.from_pretrained(folder) if folder else dp.PRM.from_backbone("tiny")
    question = build_world(7, WorldSize(per_domain=1, meta=30, per_benchmark=1)).test[0]
    policy = HubPolicy(dp.Policy("tiny", max_new_tokens=48), question.images)
    judge = HubPRM(prm, question.images)
    steps = StepGeneration(step_token="\n", max_steps=8, stop_token="Final answer:")
    algorithms = {
        "best-of-8": (BestOfN(HubORM(prm, question.images)), 8),
        "beam search": (BeamSearch(steps, judge, beam_width=2), 8),
        "particle filter": (ParticleFiltering(steps, judge), 8),
    }
    print(f"{question.text} The answer is {question.answer}.")
    for name, (algorithm, budget) in algorithms.items():
        result = algorithm.infer(policy, question.text, budget, return_response_only=False)
        print(f"\n{name}:\n{result.the_one['content']}")


if __name__ == "__main__":
    main()
