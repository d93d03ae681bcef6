"""Requests and answers for the OpenAPI document to show."""

import json
from typing import Any

from cloister_shared.open_inference import CLIENT_DIGEST_PARAMETER, INPUT_NAME, OUTPUT_NAME

DIGEST = "b7e23ec29af22b0b4e41da31e868d57226121c84c0c5cf28cad7e7a7a3c0f1d5"
KEY_DIGEST = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"

SERVER = {
    "name": "cloister",
    "version": "0.1.0",
    "extensions": [
        "binary_tensor_data",
        "model_repository",
        "model_repository(unload_dependents)",
        "cloister_client",
    ],
}
LIVE = {"live": True}
READY = {"ready": True}
MODEL_READY = {"name": "digits", "ready": True}
MODEL = {
    "name": "digits",
    "versions": ["1", "2"],
    "platform": "concrete_fhe",
    "inputs": [{"name": INPUT_NAME, "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": OUTPUT_NAME, "datatype": "BYTES", "shape": [-1]}],
    "parameters": {
        "version": "2",
        "client_digest": DIGEST,
        "input_bytes": 1800,
        "output_bytes": 108264,
        "compact": {"body_bits": 34, "word_bits": 30, "input_bytes": 267, "output_bytes": 50850},
        "reference": True,
        "evaluation_key_bytes": 0,
        "evaluator": "native",
        "evaluator_reason": "avx512: equal to Concrete's run on 4 inputs",
    },
}
INDEX = [
    {"name": "digits", "version": "1", "state": "READY", "reason": ""},
    {"name": "digits", "version": "2", "state": "READY", "reason": ""},
    {
        "name": "digits",
        "version": "3",
        "state": "UNAVAILABLE",
        "reason": "/artifacts/digits/3/server.zip is not what was published: ...",
    },
]
KEY = {
    "sha256": KEY_DIGEST,
    "client_digest": DIGEST,
    "bytes": 63121248,
    "created": "2026-01-05T09:00:00Z",
    "used": "2026-01-06T17:00:00Z",
}
INDEX_REQUESTS = {
    "all": {"summary": "All versions", "value": {}},
    "ready": {"summary": "Those that are loaded", "value": {"ready": True}},
}
VERSIONS = {
    "name": "digits",
    "serving": "1",
    "registered": "1",
    "versions": [
        {
            "version": "1",
            "state": "READY",
            "reason": "",
            "evaluator": "native",
            "evaluator_reason": "avx512: equal to Concrete's run on 4 inputs",
            "created": "2026-01-05T09:00:00Z",
            "model_version": 1,
            "training": {
                "estimator": "LogisticRegression",
                "dataset": "digits",
                "task": "classification",
                "accuracy": 0.95,
                "absolute_error": None,
                "loss": 0.21,
                "sites": 3,
                "rounds": 5,
                "strategy": "FedAvg",
                "secure_aggregation": False,
                "epsilon": None,
                "delta": None,
            },
            "cost": {
                "input_bytes": 1680,
                "output_bytes": 108264,
                "compact_input_bytes": 252,
                "compact_output_bytes": 47740,
                "evaluation_key_bytes": 0,
                "floor_ms": 0.07,
                "features": 59,
                "outputs": 10,
                "bits_inputs": 8,
                "bits_weights": 8,
                "lwe_dimension": 1352,
            },
            "proof": {"verified": 64, "probes": 4096, "differing": 12},
        }
    ],
}
DETAILS = {
    "model_version": 1,
    "model_digest": "4f" * 32,
    "client_digest": "0a" * 32,
    "circuit": {
        "n_features": 59,
        "n_card_features": 64,
        "n_outputs": 10,
        "bits_inputs": 8,
        "bits_weights": 8,
        "width": 20,
        "signed": True,
        "lwe_dimension": 1352,
        "input_bytes": 1680,
        "input_data_offset": 200,
        "input_data_bytes": 1416,
        "output_bytes": 108264,
        "compact": None,
        "evaluation_keys": None,
    },
    "verification": {"extreme": 20, "boundary": 3, "random": 16},
    "agreement": {"probes": 4096, "differing": 12, "share": 0.0029296875},
    "floor_ms": 0.07,
    "libraries": {"concrete-ml": "1.9.0", "concrete-python": "2.10.0"},
}
PROMOTE_REQUESTS = {
    "version": {"summary": "A version", "value": {"parameters": {"version": "1"}}},
}
LOAD_REQUESTS = {
    "current": {"summary": "The current version", "value": {}},
    "version": {"summary": "A version", "value": {"parameters": {"version": "1"}}},
}
UNLOAD_REQUESTS = {
    "plain": {"summary": "The model", "value": {}},
    "triton": {
        "summary": "As Triton's client says it",
        "value": {"parameters": {"unload_dependents": False}},
    },
}
INFERENCE_HEADER = {
    "id": "42",
    "inputs": [
        {
            "name": INPUT_NAME,
            "shape": [2],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 3608},
        }
    ],
    "outputs": [{"name": OUTPUT_NAME, "parameters": {"binary_data": True}}],
    "parameters": {CLIENT_DIGEST_PARAMETER: DIGEST},
}
FRAMED_REQUEST = json.dumps(INFERENCE_HEADER) + "<3608 bytes>"
HEADER_BYTES = len(json.dumps(INFERENCE_HEADER))
INFERENCE_ANSWER = {
    "model_name": "digits",
    "model_version": "2",
    "id": "42",
    "outputs": [
        {
            "name": OUTPUT_NAME,
            "shape": [2],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 216536},
        }
    ],
}
FRAMED_ANSWER = json.dumps(INFERENCE_ANSWER) + "<216536 bytes>"

PROBLEMS: dict[int, dict[str, Any]] = {
    400: {"detail": "element 0 has 1799 bytes; an encrypted input of this model has 1800"},
    401: {"detail": "this API key is not known here"},
    403: {"detail": "models are not loaded and unloaded by clients here (CLOISTER_MODEL_CONTROL)"},
    404: {"detail": "there is no version 7 of digits"},
    408: {"detail": "the body did not arrive within 30 s"},
    409: {
        "detail": "the input was encrypted for another client.zip than that of version 2 of "
        "digits: download /v2/models/digits/versions/2/client and encrypt again"
    },
    411: {
        "detail": "state the length of the body in Content-Length instead of sending it in chunks"
    },
    413: {"detail": "65 elements are too many: at most 64 go in one request"},
    415: {"detail": "send the body without a Content-Encoding: ciphertexts do not compress"},
    429: {"detail": "the rate limit of this API key is used up: wait as Retry-After says"},
    500: {"detail": "the service failed to answer this request; its log says why"},
    503: {
        "detail": "version 3 of digits cannot be served: the circuit cannot be compiled: ...",
        "ready": False,
    },
}
"""What a problem of a status says, beside what all problems do."""
REPOSITORY_PROBLEMS = PROBLEMS | {
    400: {
        "detail": "the body is not a request of this kind: parameters.config: Extra inputs are not "
        "permitted"
    },
    404: {"detail": "there is no model digits; POST /v2/repository/index lists what there is"},
    413: {"detail": "the body is larger than the 16384 bytes that are taken here"},
    415: {"detail": "send the body without a Content-Encoding"},
}
_STORE_DETAIL = "the service's store of evaluation keys cannot be used; its log says why"
KEY_PROBLEMS = PROBLEMS | {
    400: {"detail": "path.sha256: String should match pattern '^[0-9a-f]{64}$'"},
    404: {
        "detail": f"you have no evaluation keys {KEY_DIGEST}: they were never uploaded, were "
        f"deleted, or were not used for long; PUT them to /v2/keys/{KEY_DIGEST}"
    },
    503: {"detail": _STORE_DETAIL, "ready": False},
}
UPLOAD_PROBLEMS = KEY_PROBLEMS | {
    400: {
        "detail": "these are not evaluation keys of version 2 of digits: make them with this "
        "version's client.zip"
    },
    404: {
        "detail": f"no model has the client.zip '{DIGEST}'; GET /v2/models/{{name}} states the "
        "digest of each version's"
    },
    408: {"detail": "the body did not arrive within 600 s"},
    409: {
        "detail": f"these evaluation keys belong to the client.zip {DIGEST}, not to {'0' * 64}: "
        "make keys with this version's client.zip and upload them"
    },
    413: {"detail": "the body is larger than the 268435456 bytes that are taken here"},
    415: {"detail": "send evaluation keys without a Content-Encoding: they do not compress"},
    507: {
        "detail": "the service's disk for evaluation keys is full: try again later, or tell "
        "whoever runs it"
    },
}
