"""What trainer and client agree on in the messages they exchange through Flower."""

import os

SERVER_APP = "cloister_trainer.app:app"
CLIENT_APP = "cloister_client.app:app"

ARRAYS = "arrays"
"""Record of the model's arrays, under the names ``COEF`` and ``INTERCEPT``."""
CONFIG = "config"
METRICS = "metrics"

COEF = "coef"
INTERCEPT = "intercept"

SCHEMA_DIGEST = "schema-digest"
"""Digest of the schema the run is for: a site whose data has another one refuses."""
ESTIMATOR = "estimator"
PARAMETERS = "parameters"
"""The estimator's parameters as JSON."""
OUT_OF_BOUNDS = "out-of-bounds"

EXAMPLES = "num-examples"
"""Rows the site fitted; the weight of its arrays in the average."""
VALIDATION_EXAMPLES = "validation-examples"
"""Rows the site measured on; the weight of its metrics."""
ACCURACY = "accuracy"
LOSS = "loss"

_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def flower_environment() -> dict[str, str]:
    """Return the environment for Flower's programs: this process's, with nothing sent home."""
    return os.environ | _FLOWER
