"""What a team would write first: stock Concrete ML behind one FastAPI endpoint.

The lock is there because FHEModelServer gives wrong answers when threads share it.

usage: baseline.py ARTIFACT_FOLDER PORT
"""

import sys
import threading

import uvicorn
from concrete.ml.deployment import FHEModelServer
from fastapi import FastAPI, Request, Response

app = FastAPI()
server = FHEModelServer(sys.argv[1])
lock = threading.Lock()
evaluation_keys = open(f"{sys.argv[1]}/evaluation_keys.bin", "rb").read()  # noqa: PTH123, SIM115


def run(ciphertext: bytes) -> bytes:
    """Evaluate one ciphertext."""
    with lock:
        result: bytes = server.run(ciphertext, evaluation_keys)
        return result


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer one ciphertext with one."""
    from starlette.concurrency import run_in_threadpool  # noqa: PLC0415

    return Response(await run_in_threadpool(run, await request.body()))


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
