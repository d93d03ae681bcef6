"""What is worth choosing among all that was scored."""

from cloister_shared.schema import DatasetSchema
from cloister_trainer.tuning.scoring import Scored


def pareto_front(scored: list[Scored], data: DatasetSchema) -> list[Scored]:
    """Return those that nothing beats in both score and cost, the cheapest first.

    The cost is what a key holder's encryption takes; bytes and the server's time go with it.
    """
    front: list[Scored] = []
    for one in sorted(scored, key=lambda of: (of.cost.client_ms, loss(of, data))):
        if not front or loss(one, data) < loss(front[-1], data):
            front.append(one)
    return front


def within(front: list[Scored], data: DatasetSchema, tolerance: float) -> list[Scored]:
    """Return those whose score is within the tolerance of the best, the cheapest first.

    Args:
        front: as ``pareto_front`` has it; the best is its last.
        data: the schema.
        tolerance: of accuracy, or of a regression the share by which the error may be larger.
    """
    best = loss(front[-1], data)
    most = best + tolerance if data.classes else best * (1 + tolerance)
    return [one for one in front if loss(one, data) <= most]


def loss(one: Scored, data: DatasetSchema) -> float:
    """Return the score as what is to be small: a share of errors, or the mean absolute error."""
    return 1.0 - one.score if data.classes else one.score
