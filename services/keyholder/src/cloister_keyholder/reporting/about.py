"""What a report says of a model and its schema."""

import json

from cloister_keyholder.reporting.parts import Fact, Table
from cloister_keyholder.reporting.sources import Published
from cloister_keyholder.reporting.text import count, number, shown, yes_no
from cloister_shared.schema import AnyFeature, Category, DatasetSchema

FEATURES_SHOWN = 100


def model_facts(published: Published) -> list[Fact]:
    """Return what the model is."""
    card = published.card
    return [
        ("Estimator", card.estimator),
        (
            "Parameters",
            json.dumps(card.parameters, ensure_ascii=False) if card.parameters else "defaults",
        ),
        ("Task", card.data.task),
        ("Standardised inputs", yes_no(card.standardised)),
        ("Pruned", f"{100 * card.pruned:.3g} % of the inputs" if card.pruned else "no"),
        ("Digest of client.zip", published.client_digest),
    ]


def schema_facts(data: DatasetSchema, out_of_bounds: str) -> list[Fact]:
    """Return what rows are like, as it was declared."""
    facts = [("Data", data.dataset), ("Features", count(data.n_features))]
    if data.image_shape:
        height, width = data.image_shape
        pooled = f", pooled by {data.pool} x {data.pool}" if data.pool > 1 else ""
        facts.append(("Image", f"{height} x {width} pixels{pooled}, {_pixels(data)}"))
    facts.append(("Inputs in [0, 1] that a row becomes", count(data.n_inputs)))
    if data.target:
        predicted = ("Target", f"{data.label}, from {data.target.low:g} to {data.target.high:g}")
    else:
        names = ", ".join(map(str, data.classes[:FEATURES_SHOWN]))
        predicted = ("Classes", f"{len(data.classes):,}: {names}")
    return [*facts, predicted, ("Values out of bounds", out_of_bounds)]


def features(data: DatasetSchema) -> Table | None:
    """Return the features with their bounds; None of an image, whose features are its pixels."""
    if data.image_shape:
        return None
    rows = [(one.name, _declared(one), _missing(one)) for one in data.features[:FEATURES_SHOWN]]
    hidden = data.n_features - len(rows)
    return Table(
        title="Features, as declared",
        columns=("feature", "values", "missing ones"),
        rows=rows,
        remark=f"And {hidden:,} more." if hidden else "",
        folded=len(rows) > 40,
    )


def _pixels(data: DatasetSchema) -> str:
    lows, highs = data.bounds.lows, data.bounds.highs
    same = (lows == lows[0]).all() and (highs == highs[0]).all()
    if same:
        return f"each in [{lows[0]:g}, {highs[0]:g}]"
    return f"each within bounds of its own, [{lows.min():g}, {highs.max():g}] at most"


def _declared(feature: AnyFeature) -> str:
    if isinstance(feature, Category):
        labels = ", ".join(shown(str(label), 40) for label in feature.categories[:20])
        more = len(feature.categories) - 20
        others = "; others are ignored" if feature.unknown == "ignore" else ""
        return labels + (f" and {more:,} more" if more > 0 else "") + others
    return f"[{feature.low:g}, {feature.high:g}]"


def _missing(feature: AnyFeature) -> str:
    if feature.missing is None:
        return "refused"
    if isinstance(feature, Category):
        return f"count as {shown(str(feature.missing), 40)}"
    return f"count as {number(feature.missing)}"
