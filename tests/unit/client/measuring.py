"""What a site would say of a logistic regression."""

from cloister_client.data.shard import Sample
from cloister_shared.measuring import Metrics, measure
from cloister_shared.weights import LinearWeights


def metrics_of(weights: LinearWeights, sample: Sample) -> Metrics:
    """Measure a logistic regression."""
    return measure(
        weights,
        sample.features,
        sample.answers,
        "logistic" if len(weights.coef) == 1 else "softmax",
    )
