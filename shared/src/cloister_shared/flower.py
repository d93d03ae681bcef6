"""What trainer and client agree on in the messages they exchange through Flower."""

import os

from cloister_shared.estimators import Task

SERVER_APP = "cloister_trainer.app:app"
CLIENT_APP = "cloister_client.app:app"
"""Serves every kind of message; what is secure aggregation's shows in the message itself."""

BUNDLE = f"""\
[project]
name = "cloister"
version = "1.0.0"
description = "Names what is installed in the images; carries no code."

[tool.flwr.app]
publisher = "cloister"

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
"""
"""The pyproject.toml that is all of the bundle (FAB) a run is submitted with: a site refuses any
other."""

ARRAYS = "arrays"
"""Record of the model's arrays, under the names ``COEF`` and ``INTERCEPT``; or, in the reply of a
site whose estimator is trained by sums, of those alone, as ``SUMS``; or, in that of a site that is
asked to sum its inputs, of ``MOMENTS``."""
CONFIG = "config"
METRICS = "metrics"

COEF = "coef"
INTERCEPT = "intercept"
SUMS = "sums"
MOMENTS = "moments"

SCHEMA_DIGEST = "schema-digest"
"""Digest of the schema the run is for: a site whose data has another one refuses."""
ESTIMATOR = "estimator"
PARAMETERS = "parameters"
"""The estimator's parameters as JSON."""
OUT_OF_BOUNDS = "out-of-bounds"
STANDARDISATION = "standardisation"
"""Means and deviations by which a site standardises its inputs, as JSON; absent: it does not."""
ROUND = "server-round"
"""Number of the round, from 1."""
TASK = "task"
"""What a site is to do under secure aggregation, where every message is of type train."""
TASK_TRAIN = "train"
TASK_EVALUATE = "evaluate"
TASK_MOMENTS = "moments"
CLIPPING_NORM = "clipping-norm"
"""Largest l2 norm of the update a site may send; absent: it is not clipped."""
MAX_EXAMPLES = "max-examples"
"""Most rows of one site whose sums are masked, which they are sent as a share of."""
REPORT = "report"
"""Whether a site says how many rows it has and how the received model does on them. If not, its
weight in the average is 1."""

EXAMPLES = "num-examples"
"""Rows the site fitted; the weight of its arrays in the average."""
VALIDATION_EXAMPLES = "validation-examples"
"""Rows the site measured on; the weight of its metrics."""
ACCURACY = "accuracy"
ABSOLUTE_ERROR = "absolute_error"
LOSS = "loss"
QUALITY: dict[Task, str] = {"classification": ACCURACY, "regression": ABSOLUTE_ERROR}
"""What a site tells beside the loss; the card has it under the same name."""

_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def flower_environment() -> dict[str, str]:
    """Return the environment for Flower's programs: this process's, with nothing sent home."""
    return os.environ | _FLOWER
