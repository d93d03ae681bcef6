"""The Flower ServerApp: waits for sites, trains, measures, and publishes the aggregate."""

import json
import logging
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from cloister_shared import flower
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import FinalMetrics, ModelCard, RoundMetrics
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.service import load_settings
from cloister_shared.weights import LinearWeights
from cloister_trainer.events import EventHandler, EventLog, run_events
from cloister_trainer.plan import estimator_parameters, inputs_digest
from cloister_trainer.records import to_record, to_weights
from cloister_trainer.settings import Settings
from cloister_trainer.sites import wait_for_sites
from cloister_trainer.strategy import QuorumFedAvg, final_metrics

LIBRARIES = ("flwr", "numpy")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the settings in the environment say; whatever fails ends the run as failed."""
    settings = load_settings(Settings)
    events = run_events(settings.events_dir, context.run_id)
    log = logging.getLogger("cloister_trainer")
    log.setLevel(logging.INFO)
    log.addHandler(EventHandler(events))
    try:
        published = train(grid, settings, events)
    except Exception as error:
        events.write("failed", reason=str(error) or type(error).__name__)
        raise
    events.write("published", version=published)


def train(grid: Grid, settings: Settings, events: EventLog) -> int:
    """Run the whole training and return the number of the version published.

    Raises:
        CloisterError: too few sites, a round or the final evaluation without its quorum, or
            weights that did not move.
    """
    data, initial = schema(settings.dataset), LinearWeights.zeros(schema(settings.dataset))

    def await_sites() -> list[int]:
        return wait_for_sites(
            grid.get_node_ids,
            expected=settings.clients,
            minimum=settings.quorum,
            deadline=settings.start_deadline,
            settle=settings.settle_seconds,
        )

    def on_round(metrics: RoundMetrics) -> None:
        events.write("round", **metrics.model_dump())

    # The trainer gives up on a run of which it hears nothing, and waiting can take as long.
    events.write("waiting", expected=settings.clients)
    sites = await_sites()
    events.write("started", sites=len(sites), expected=settings.clients, rounds=settings.rounds)
    config = _config(settings)
    strategy = QuorumFedAvg(data, settings.quorum, await_sites, on_round)
    result = strategy.start(
        grid,
        to_record(initial),
        num_rounds=settings.rounds,
        timeout=settings.round_timeout,
        train_config=config,
    )
    weights = to_weights(result.arrays)
    weights.check(data)
    if np.array_equal(weights.coef, initial.coef):
        raise CloisterError("the weights did not move: nothing was learnt, nothing is published")

    record = RecordDict({flower.ARRAYS: result.arrays, flower.CONFIG: config})
    nodes = list(grid.get_node_ids())
    if len(nodes) < settings.quorum:
        nodes = await_sites()
    replies = grid.send_and_receive(
        [Message(record, dst_node_id=node, message_type=MessageType.EVALUATE) for node in nodes],
        timeout=settings.round_timeout,
    )
    final = final_metrics(replies, data, settings.quorum)
    events.write("final", **final.model_dump())
    return _publish(settings, weights, strategy.rounds, final)


def _config(settings: Settings) -> ConfigRecord:
    return ConfigRecord(
        {
            flower.SCHEMA_DIGEST: schema(settings.dataset).digest,
            flower.ESTIMATOR: settings.estimator,
            flower.PARAMETERS: json.dumps(estimator_parameters(settings)),
            flower.OUT_OF_BOUNDS: settings.out_of_bounds,
        }
    )


def _publish(
    settings: Settings, weights: LinearWeights, rounds: list[RoundMetrics], final: FinalMetrics
) -> int:
    card = ModelCard(
        name=settings.name,
        estimator=settings.estimator,
        parameters=estimator_parameters(settings),
        data=schema(settings.dataset),
        out_of_bounds=settings.out_of_bounds,
        rounds=tuple(rounds),
        final=final,
        libraries={library: version(library) for library in LIBRARIES},
        created=datetime.now(UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        weights.write(folder / WEIGHTS)
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
        return {}

    registry = Registry(settings.models_dir)
    return registry.publish(settings.name, inputs_digest(settings), write).manifest.version
