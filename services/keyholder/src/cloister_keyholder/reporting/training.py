"""What a report says of a training: by the model's card, which holds no site's own figures."""

from cloister_keyholder.reporting.charts import chart
from cloister_keyholder.reporting.parts import Chart, Fact, Note, Table
from cloister_keyholder.reporting.text import count, moment, number, yes_no
from cloister_shared.card import FinalMetrics, ModelCard, RoundMetrics

ROUNDS_SHOWN = 30
"""Above which the table of rounds is folded."""


def training_facts(card: ModelCard) -> list[Fact]:
    """Return how the model was trained, and what is left of the sites' privacy."""
    told = [("Trained", moment(card.created)), *_federation(card)]
    if card.rounds:
        seconds = [one.seconds for one in card.rounds]
        told += [
            ("Rounds", count(len(card.rounds))),
            ("Sites in a round", _range([one.sites for one in card.rounds])),
            ("Replies that failed", count(sum(one.failures for one in card.rounds))),
            ("Seconds a round", f"{number(sum(seconds) / len(seconds))} on average"),
        ]
    return [*told, ("Measured at the end, on validation rows", _final(card.final))]


def training_note(card: ModelCard) -> Note | None:
    """Say why there are no curves, where that is so."""
    if card.federation is None and not card.rounds:
        return Note("plain", "Trained in one place: there were no rounds across sites.")
    if not card.rounds:
        return Note("plain", "The card of this model tells of no rounds.")
    if all(one.loss is None for one in card.rounds) and card.final is None:
        return Note(
            "plain",
            "Under differential privacy sites report no accuracy and no loss: there are no curves "
            "of them.",
        )
    return None


def training_charts(card: ModelCard) -> list[Chart]:
    """Return the curves of a training, as far as its rounds were measured."""
    rounds = card.rounds
    if not rounds:
        return []
    measured: list[RoundMetrics | FinalMetrics] = [*rounds]
    if card.final:
        measured.append(card.final)
    regression = card.data.task == "regression"
    if regression:
        name, scores = "Mean absolute error", [one.absolute_error for one in measured]
    else:
        name, scores = "Accuracy", [one.accuracy for one in measured]
    losses = [one.loss for one in measured]
    # What a round received is the model of the rounds before it.
    found = [
        chart(name, scores, across="rounds completed", first=0, from_zero=regression),
        chart("Loss", losses, across="rounds completed", first=0, from_zero=True),
        chart("Seconds", [one.seconds for one in rounds], across="rounds", from_zero=True),
        chart("Epsilon", [one.epsilon for one in rounds], across="rounds", from_zero=True),
    ]
    return [one for one in found if one]


def rounds_table(card: ModelCard) -> Table | None:
    """Return every round; None where there were none."""
    if not card.rounds:
        return None
    score = "mean absolute error" if card.data.task == "regression" else "accuracy"
    return Table(
        title="Rounds",
        columns=("round", "sites", "failed", "rows", score, "loss", "epsilon", "seconds"),
        rows=[_round(one) for one in card.rounds],
        remark="Accuracy or error, and loss, are of the model that the sites received in that "
        "round, on the rows that each keeps for validation, averaged over the sites. A site's own "
        "figures are not published with the model.",
        folded=len(card.rounds) > ROUNDS_SHOWN,
    )


def privacy_spent(card: ModelCard) -> tuple[str, str]:
    """Return the epsilon spent, or "none", and what it means."""
    spent = card.federation and card.federation.differential_privacy
    if spent:
        return number(spent.epsilon, ".3g"), f"at delta {spent.delta:g}"
    return "none", "no differential privacy"


def _federation(card: ModelCard) -> list[Fact]:
    federation = card.federation
    if federation is None:
        return [
            ("Where", "in one place"),
            ("Secure aggregation", "no"),
            ("Differential privacy", "none"),
        ]
    given = ", ".join(f"{name} {value}" for name, value in federation.parameters.items())
    privacy, spent = "none", federation.differential_privacy
    if spent:
        privacy = (
            f"of sites: epsilon {spent.epsilon:.3g} at delta {spent.delta:g} spent by all rounds "
            f"(noise multiplier {spent.noise_multiplier:g}, clipping norm "
            f"{spent.clipping_norm:g})"
        )
    return [
        ("Where", "across sites, whose rows stayed with them"),
        ("Strategy", federation.strategy + (f" ({given})" if given else "")),
        ("Secure aggregation", yes_no(federation.secure_aggregation)),
        ("Differential privacy", privacy),
    ]


def _final(final: FinalMetrics | None) -> str:
    if final is None:
        return "not reported"
    by = f"at {count(final.sites)} site{'' if final.sites == 1 else 's'}"
    loss = f"loss {number(final.loss)}"
    if final.accuracy is not None:
        return f"accuracy {final.accuracy:.4f}, {loss}, {by}"
    return f"mean absolute error {number(final.absolute_error)}, {loss}, {by}"


def _round(one: RoundMetrics) -> tuple[str, ...]:
    score = number(one.accuracy, ".4f") if one.absolute_error is None else None
    return (
        count(one.round),
        count(one.sites),
        count(one.failures),
        count(one.examples),
        score or number(one.absolute_error),
        number(one.loss),
        number(one.epsilon, ".3g"),
        number(one.seconds, ".2f"),
    )


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} to {count(high)}"
