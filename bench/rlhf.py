"""Does the reward rise, and how far does a model go from its start for it? SFT → reward → PPO, SFT → DPO, and PPO by rules.

    python bench/rlhf.py --data FOLDER [--seeds 3] [--base FOLDER]
        [--out FOLDER] [--mlflow URI] [--only preferences|rules]

The chains are those of examples/rlhf, run by modeling.training.tune as a run does it. Preferences: FOLDER/hh_rlhf, the base that
ships; a reward model learns from the pairs, PPO from its scores, DPO from the pairs. Rules: tickets of the helpdesk, and whether
an answer is JSON and the right one.

What is reported is measured on test prompts that no training saw; answers are drawn at temperature 1, by the same chances.
`own` is the score by the reward model that PPO was trained on, `other` by that of another seed, which it was not: what rises in
the first alone is a flaw of the judge. Scores are differences from SFT's, prompt by prompt, in units of the judge's spread over
SFT's answers; intervals are over prompts, of means over seeds (95 %).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rlhf_chains import Measured, Settings, Trained, helpdesk_rows, hh_rows

SHOWN = ("reward", "kl", "entropy", "length", "repetition", "clipped", "value_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that hh_rlhf lies in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep splits, adapters and curves there; finished stages are not repeated")
    parser.add_argument("--mlflow", help="also send curves to this MLflow")
    parser.add_argument("--base", type=Path, help="learn preferences on this base, without a chat template of its own")
    parser.add_argument("--only", choices=("preferences", "rules"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, bench in (("preferences", preferences), ("rules", rules)):
            if arguments.only in (None, name):
                rows = hh_rows(arguments.data) if name == "preferences" else helpdesk_rows()
                settings = Settings(out / name, rows, arguments.mlflow, arguments.base if name == "preferences" else None)
                bench(settings, range(1, arguments.seeds + 1))


def preferences(settings: Settings, seeds: Sequence[int]) -> None:
    ppo = [Trained(settings, "params-ppo.yaml", seed) for seed in seeds]
    dpo = [Trained(settings, "params-dpo.yaml", seed) for seed in seeds]
    for one in (*ppo, *dpo):
        one.run()
    print("\nThe reward model, on held pairs: is it better than 'the longer answer wins'?")
    for one in ppo:
        said = one.results["judge"]["measures"]
        print(
            f"  seed {one.seed}: {said['pair_accuracy']:.1%} right, the longer answer {said['longer_wins_accuracy']:.1%}, "
            f"p = {said['longer_wins_p']:.3f}"
        )
    print_curves(ppo)
    found: dict[str, list[Measured]] = {name: [] for name in ("sft", "dpo", "ppo")}
    for place, (one, other) in enumerate(zip(ppo, dpo, strict=True)):
        judges = {"own": one.adapter("judge"), "other": ppo[(place + 1) % len(ppo)].adapter("judge")}
        subjects = {"sft": one.adapter("sft"), "dpo": other.adapter("dpo"), "ppo": one.adapter("ppo")}
        for name, answers in one.answers(subjects, judges).items():
            found[name].append(answers)
    print_preferences(found)


def rules(settings: Settings, seeds: Sequence[int]) -> None:
    trained = [Trained(settings, "params-rules.yaml", seed) for seed in seeds]
    for one in trained:
        one.run()
    print_curves(trained)
    found: dict[str, list[Measured]] = {"sft": [], "ppo": []}
    for one in trained:
        for name, answers in one.answers({name: one.adapter(name) for name in found}, {}).items():
            found[name].append(answers)
    print("\nTickets answered on test, by rules, beside SFT:")
    print(f"  {'':4} {'right':>8} {'more than SFT':>24} {'JSON':>8} {'more than SFT':>24} {'KL from SFT':>12} {'tokens':>7}")
    for name, seen in found.items():
        cells = []
        for rule in ("exact_match", "json_valid"):
            own, start = (mean_over(some, rule) for some in (seen, found["sft"]))
            cells.append(f"{own.mean():>8.1%} {interval(own - start, '+.1%'):>24}")
        print(f"  {name:4} {' '.join(cells)} {mean_over(seen, 'kl').mean():>12.2f} {mean_over(seen, 'length').mean():>7.1f}")


def print_curves(trained: Sequence[Trained]) -> None:
    """PPO's curves, means over seeds, at the rollouts that were noted."""
    curves = [one.curve() for one in trained]
    print(f"\nPPO, means over {len(curves)} seeds (reward: range over seeds):")
    print(f"  {'step':>5} " + " ".join(f"{name:>22}" if name == "reward" else f"{name:>11}" for name in SHOWN))
    every = max(1, len(curves[0]) // 12)
    for place in [*range(0, len(curves[0]) - 1, every), len(curves[0]) - 1]:
        points = [curve[place] for curve in curves]
        rewards = [point["reward"] for point in points]
        cells = [f"{np.mean(rewards):>7.3f} [{min(rewards):.3f}, {max(rewards):.3f}]".rjust(22)]
        cells += [f"{np.mean([point[name] for point in points]):>11.3f}" for name in SHOWN[1:]]
        print(f"  {points[0]['step']:>5.0f} " + " ".join(cells))


def print_preferences(found: dict[str, list[Measured]]) -> None:
    print("\nAnswers to test prompts; scores beside SFT's, in spreads of the judge over SFT's answers:")
    print(f"  {'':4} {'own judge':>24} {'other judge':>24} {'KL from SFT':>12} {'tokens':>7} {'repetition':>10}")
    for name, seen in found.items():
        cells = []
        for judge in ("own", "other"):
            gains = [
                (one.values[judge] - start.values[judge]) / start.values[judge].std()
                for one, start in zip(seen, found["sft"], strict=True)
            ]
            cells.append(f"{interval(np.mean(gains, axis=0), '+.2f'):>24}")
        other = [f"{mean_over(seen, 'kl').mean():>12.2f}", f"{mean_over(seen, 'length').mean():>7.1f}"]
        print(f"  {name:4} {' '.join(cells)} {' '.join(other)} {mean_over(seen, 'repetition').mean():>10.1%}")


def mean_over(seen: Sequence[Measured], name: str) -> np.ndarray:
    """Of each prompt, the mean over seeds."""
    return np.asarray(np.mean([one.values[name] for one in seen], axis=0), dtype=float)


def interval(values: np.ndarray, form: str) -> str:
    """Mean with the interval of the mean over prompts, by the normal distribution."""
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


if __name__ == "__main__":
    main()
