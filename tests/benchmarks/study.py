"""Measures what users of a federation choose by: privacy, skewed shards, poisoned sites.

Sites are simulated in this process with the product's own code (simulation.py says which), and
``check`` compares that with rounds of a real deployment. Every command prints a table and writes
its figures to build/study. Accuracy is that of the global model on the rows held out from all
sites: 360 of digits, 10,000 of MNIST, whose file MNIST_PATH names. Everything is seeded, so that
equal versions of the libraries give equal figures; another processor can differ in the last digit.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from simulation import Federation, Poison, Recipe, Update

from cloister_shared.datasets import DatasetName
from cloister_shared.strategies import STRATEGIES
from cloister_shared.weights import LinearWeights
from cloister_trainer.privacy import epsilon_after

RESULTS = Path("build/study")
Row = dict[str, Any]

DEPLOYED = (0.9147, 0.9213, 0.9227, 0.9234, 0.9244)
"""Rounds 1 to 5 of ten MNIST sites that ran as processes of their own, on the held-out digits. They
fitted all of their rows, where a site keeps a tenth for validation."""
CHECK_TOLERANCE = 0.001
"""Ten of the held-out digits: what a tenth fewer rows may change."""

AGGREGATED = [row.name for row in STRATEGIES.values() if not row.needs_proximal_term]
"""Strategies that the product does not refuse."""

DELTA = 1e-5
BUDGETS = (1, 2, 4, 8, 16, 32, 64)
"""Epsilons of the trade-off."""

SKEW_SITES = 10
SKEW_ALPHA = 0.3
SKEW_ROUNDS = 20
SKEW_PARAMETERS: dict[str, dict[str, float]] = {"FedAdam": {"eta": 0.07, "beta_1": 0.8}}
"""By strategy; the others have their defaults."""

POISON_SITES = 10
POISON_RECIPE = Recipe(rounds=5, local_iterations=5)
POISON_PARAMETERS: dict[str, dict[str, float]] = {
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
}
"""By strategy; the others have their defaults."""
GARBAGE_DEVIATION = 10.0
BOOST = 10.0


def noise_multiplier(budget: float, rounds: int) -> float:
    """Return the least noise, in hundredths, by which so many rounds stay within an epsilon."""
    low, high = 0.01, 100.0
    while high - low > 1e-4:
        middle = math.sqrt(low * high)
        low, high = (
            (low, middle) if epsilon_after(rounds, middle, DELTA) <= budget else (middle, high)
        )
    return math.ceil(100 * high) / 100


def check(_: argparse.Namespace) -> tuple[Table, list[Row]]:
    """Compare ten simulated MNIST sites with deployed ones, round by round."""
    federation = Federation("mnist", 10)
    rows: list[Row] = []
    table = Table("round", "deployed", "simulated", title="10 MNIST sites, FedAvg")
    for number, (deployed, weights) in enumerate(
        zip(DEPLOYED, federation.rounds(Recipe()), strict=True), 1
    ):
        simulated = federation.accuracy(weights)
        table.add_row(str(number), f"{deployed:.4f}", f"{simulated:.4f}")
        rows.append({"round": number, "deployed": deployed, "simulated": simulated})
    worst = max(abs(row["deployed"] - row["simulated"]) for row in rows)
    if worst > CHECK_TOLERANCE:
        raise SystemExit(f"simulation and deployment differ by {worst:.4f}")
    return table, rows


def noise(_: argparse.Namespace) -> tuple[Table, list[Row]]:
    """Show the noise multiplier that keeps so many rounds within an epsilon."""
    rows: list[Row] = []
    table = Table("rounds", *(f"epsilon {budget:g}" for budget in (0.5, *BUDGETS)))
    for rounds in (1, 3, 5, 10, 20):
        needed = {budget: noise_multiplier(budget, rounds) for budget in (0.5, *BUDGETS)}
        rows.append({"rounds": rounds, "delta": DELTA, "noise_multipliers": needed})
        table.add_row(str(rounds), *(f"{value:.2f}" for value in needed.values()))
    return table, rows


def final_accuracies(
    federation: Federation, recipe: Recipe, seeds: Iterable[int]
) -> Iterator[float]:
    """Yield the accuracy of the last model for every seed of the noise."""
    for seed in seeds:
        *_, weights = federation.rounds(recipe, seed=seed)
        yield federation.accuracy(weights)


def privacy(options: argparse.Namespace) -> tuple[Table, list[Row]]:
    """Measure accuracy for every epsilon, and with neither clipping nor noise."""
    federation = Federation(options.dataset, options.sites)
    table = Table(
        *("epsilon", "noise multiplier", "clipping norm", "rounds", "local iterations"),
        *("accuracy", "standard deviation"),
        title=f"{options.dataset}, {options.sites} sites, delta {DELTA:g}",
    )
    rows: list[Row] = []
    for budget in options.budgets:
        tried = []
        for rounds in options.rounds:
            multiplier = noise_multiplier(budget, rounds)
            for iterations in options.local_iterations:
                for norm in options.clipping_norm:
                    recipe = Recipe(
                        rounds=rounds,
                        local_iterations=iterations,
                        clipping_norm=norm,
                        noise_multiplier=multiplier,
                    )
                    seeds = range(options.first_seed, options.first_seed + options.seeds)
                    found = list(final_accuracies(federation, recipe, seeds))
                    tried.append((recipe, found))
        recipe, found = max(tried, key=lambda one: float(np.mean(one[1])))
        spent = epsilon_after(recipe.rounds, recipe.noise_multiplier, DELTA)
        rows.append({"epsilon": spent, "recipe": asdict(recipe), "accuracies": found})
        table.add_row(
            *(f"{spent:.2f}", f"{recipe.noise_multiplier:.2f}", f"{recipe.clipping_norm:g}"),
            *(str(recipe.rounds), str(recipe.local_iterations)),
            *(f"{np.mean(found):.3f}", f"{np.std(found):.3f}"),
        )
    if options.skip_plain:
        return table, rows
    plain = Recipe()
    (found_plain,) = final_accuracies(federation, plain, [0])
    rows.append({"epsilon": None, "recipe": asdict(plain), "accuracies": [found_plain]})
    table.add_row(
        *("none", "", "", str(plain.rounds), str(plain.local_iterations)),
        *(f"{found_plain:.3f}", ""),
    )
    return table, rows


def dirichlet(options: argparse.Namespace) -> tuple[Table, list[Row]]:
    """Measure every round of a recipe on label-skewed MNIST, over several deals."""
    recipe = Recipe(
        rounds=SKEW_ROUNDS,
        local_iterations=options.local_iterations,
        regularisation=options.regularisation,
        strategy=options.strategy,
        strategy_parameters=(
            SKEW_PARAMETERS.get(options.strategy, {})
            if options.parameters is None
            else options.parameters
        ),
    )
    rows: list[Row] = []
    for deal in options.deals:
        federation = Federation(
            "mnist", SKEW_SITES, partition="dirichlet", alpha=SKEW_ALPHA, seed=deal
        )
        found = [federation.accuracy(weights) for weights in federation.rounds(recipe)]
        rows.append({"recipe": asdict(recipe), "deal": deal, "accuracies": found})
    table = Table(
        *("round", *(f"deal {deal}" for deal in options.deals)),
        title=f"{SKEW_SITES} sites, Dirichlet({SKEW_ALPHA}) MNIST, {recipe.strategy}: accuracy",
    )
    for number in range(recipe.rounds):
        table.add_row(str(number + 1), *(f"{row['accuracies'][number]:.4f}" for row in rows))
    return table, rows


def garbage(random: np.random.Generator) -> Poison:
    """Make site 0 send normal noise."""

    def poison(site: int, received: LinearWeights, update: Update) -> Update:
        if site:
            return update
        drawn = LinearWeights(
            random.normal(0, GARBAGE_DEVIATION, received.coef.shape),
            random.normal(0, GARBAGE_DEVIATION, received.intercept.shape),
        )
        return replace(update, weights=drawn)

    return poison


def boosted(site: int, received: LinearWeights, update: Update) -> Update:
    """Make site 0 send a multiple of what it changed, to outweigh the others."""
    if site:
        return update
    sent = LinearWeights(
        received.coef + BOOST * (update.weights.coef - received.coef),
        received.intercept + BOOST * (update.weights.intercept - received.intercept),
    )
    return replace(update, weights=sent)


def poisoning(options: argparse.Namespace) -> tuple[Table, list[Row]]:
    """Measure every strategy with one site of ten that does not do as it should."""
    attacks: dict[str, Callable[[], Poison | None]] = {
        "none": lambda: None,
        "garbage": lambda: garbage(np.random.default_rng(0)),
        "flipped labels": lambda: None,
        "flipped, boosted": lambda: boosted,
    }
    federation = Federation(options.dataset, POISON_SITES)
    flipped = federation.with_flipped_labels(0)
    rows: list[Row] = []
    table = Table(
        *("strategy", *attacks),
        title=f"{options.dataset}, {POISON_SITES} sites, one of them poisoned: accuracy",
    )
    for strategy in AGGREGATED:
        recipe = replace(
            POISON_RECIPE,
            strategy=strategy,
            strategy_parameters=POISON_PARAMETERS.get(strategy, {}),
        )
        found = {}
        for attack, poison in attacks.items():
            sites = flipped if "flipped" in attack else federation
            *_, weights = sites.rounds(recipe, poison=poison())
            found[attack] = sites.accuracy(weights)
        rows.append({"recipe": asdict(recipe), "accuracies": found})
        table.add_row(strategy, *(f"{value:.3f}" for value in found.values()))
    return table, rows


def main() -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    studies = parser.add_subparsers(dest="study", required=True)
    datasets: tuple[DatasetName, ...] = ("digits", "mnist")

    studies.add_parser("check", help=check.__doc__).set_defaults(run=check, name="check")

    studies.add_parser("noise", help=noise.__doc__).set_defaults(run=noise, name="noise")

    one = studies.add_parser(
        "privacy",
        help=privacy.__doc__,
        description="With several values of a setting, the best of all combinations is shown.",
    )
    one.set_defaults(run=privacy, name="privacy-{dataset}-{sites}")
    one.add_argument("--dataset", choices=datasets, default="digits")
    one.add_argument("--sites", type=int, default=10)
    one.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="epsilons")
    one.add_argument("--rounds", type=int, nargs="+", default=[10])
    one.add_argument("--local-iterations", type=int, nargs="+", default=[3])
    one.add_argument("--clipping-norm", type=float, nargs="+", default=[0.5])
    one.add_argument("--seeds", type=int, default=3, help="draws of the noise")
    one.add_argument("--first-seed", type=int, default=100)
    one.add_argument("--skip-plain", action="store_true", help="not the default training too")

    two = studies.add_parser("dirichlet", help=dirichlet.__doc__)
    two.set_defaults(run=dirichlet, name="dirichlet-{strategy}-{local_iterations}")
    two.add_argument("--deals", type=int, nargs="+", default=[0, 1, 2], help="seeds of the dealer")
    two.add_argument("--strategy", choices=AGGREGATED, default="FedAdam")
    two.add_argument("--parameters", type=json.loads, help="of the strategy, as JSON")
    two.add_argument("--local-iterations", type=int, default=3)
    two.add_argument("--regularisation", type=float, default=1.0)

    three = studies.add_parser("poisoning", help=poisoning.__doc__)
    three.set_defaults(run=poisoning, name="poisoning-{dataset}")
    three.add_argument("--dataset", choices=datasets, default="digits")

    options = parser.parse_args()
    began = time.monotonic()
    table, rows = options.run(options)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (options.name.format_map(vars(options)) + ".json")
    path.write_text(json.dumps(rows, indent=2) + "\n")
    console = Console(width=140)
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s; written to {path}")


if __name__ == "__main__":
    main()
