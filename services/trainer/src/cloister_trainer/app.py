"""The Flower ServerApp: waits for sites, trains, measures, and publishes the aggregate."""

import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from cloister_shared import flower
from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import federated_estimator
from cloister_shared.models import Model, initial_model, linear
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema
from cloister_shared.service import load_settings
from cloister_shared.standardising import Standardisation
from cloister_shared.strategies import strategy
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights
from cloister_trainer.checkpoint import Checkpoint, Checkpoints
from cloister_trainer.collection import Collection
from cloister_trainer.events import EventHandler, EventLog, run_events
from cloister_trainer.exchange import Exchange
from cloister_trainer.plain import OnSites, PlainCollection
from cloister_trainer.plan import estimator_parameters, federation, inputs_digest, rounds
from cloister_trainer.privacy import GaussianPrivacy
from cloister_trainer.progress import Replies, seconds_left
from cloister_trainer.publication import publish
from cloister_trainer.rounds import Aggregating, Course, Privacy, Training, run_rounds
from cloister_trainer.secure_aggregation import Masking, SecureCollection
from cloister_trainer.settings import Settings
from cloister_trainer.sites import wait_for_sites
from cloister_trainer.strategies import Aggregation, Bagging, Totals

LIBRARIES = ("flwr", "numpy")

log = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the settings in the environment say; whatever fails ends the run as failed."""
    settings = load_settings(Settings)
    events = run_events(settings.events_dir, context.run_id)
    package_log = logging.getLogger("cloister_trainer")
    package_log.setLevel(logging.INFO)
    package_log.addHandler(EventHandler(events))
    # Never closed: the trainer notices by it when this process has ended.
    events.hold()
    try:
        published = train(grid, settings, events)
    except Exception as error:
        events.write("failed", reason=str(error) or type(error).__name__)
        raise
    events.write("published", version=published)


def train(grid: Grid, settings: Settings, events: EventLog) -> int:
    """Run the whole training, or the rest of it, and return the number of the version published.

    Raises:
        CloisterError: too few sites, a round or the final evaluation without its quorum, or
            weights that did not move.
    """
    data, registry = settings.data, Registry(settings.models_dir)
    row, digest = federated_estimator(settings.estimator), inputs_digest(settings)
    initial = initial_model(row, data)
    total = rounds(settings)
    published = registry.published_from(settings.name, digest)
    before = published.manifest.version if published else 0
    checkpoints = Checkpoints(settings.checkpoints_dir, settings.name, digest, before)

    replies = Replies(events)
    exchange = Exchange(grid, replies)

    def await_sites() -> list[int]:
        return wait_for_sites(
            exchange.get_node_ids,
            expected=settings.clients,
            minimum=settings.quorum,
            deadline=settings.start_deadline,
            settle=settings.settle_seconds,
        )

    # The trainer gives up on a run of which it hears nothing, and waiting can take as long.
    events.write(
        "waiting",
        expected=settings.clients,
        rounds=total,
        quorum=settings.quorum,
        round_timeout=settings.round_timeout,
        **_told(settings),
    )
    sites = await_sites()
    events.write("started", sites=len(sites), expected=settings.clients, rounds=total)
    config = _config(settings)

    def on_sites(server_round: int | None, measured: Sequence[dict[str, Any]]) -> None:
        events.write("sites", round=server_round, sites=measured)

    collection = _collection(exchange, settings, config, await_sites, on_sites)
    checkpoint = checkpoints.load(data, private=settings.noise_multiplier is not None)
    course = Course(initial)
    if settings.standardise:
        replies.round = 0
        course.standardisation = _standardisation(collection, checkpoint)
    fit_config = _fit_config(config, course.standardisation)
    training = Training(
        data=data,
        rounds=total,
        collection=_collection(exchange, settings, fit_config, await_sites, on_sites),
        aggregation=_aggregation(settings, data, course.standardisation),
        privacy=_privacy(settings),
    )
    if checkpoint is not None:
        _restore(training, course, checkpoint)
        events.write("resumed", after=len(course.rounds), rounds=total)
    replies.round = len(course.rounds) + 1

    def after_round(reached: Course) -> None:
        checkpoints.save(_checkpoint(training, reached))
        done = len(reached.rounds)
        events.write(
            "round",
            **reached.rounds[-1].model_dump(),
            rounds=total,
            seconds_left=seconds_left(reached.rounds, total),
        )
        replies.round = done + 1

    run_rounds(training, course, after_round)
    if isinstance(initial, LinearWeights):
        _check_moved(initial, linear(course.weights))
    replies.round = None
    model = course.model(settings.prune)
    final = collection.evaluate(model)
    if final is not None:
        events.write("final", **final.model_dump())
    number = _publish(settings, digest, course, model, final)
    checkpoints.discard()
    return number


def _told(settings: Settings) -> dict[str, Any]:
    """Return what is trained, for those who follow it."""
    private = settings.noise_multiplier is not None
    return {
        "model": settings.name,
        "dataset": settings.data.dataset,
        "task": settings.data.task,
        "estimator": settings.estimator,
        "strategy": settings.strategy,
        "secure_aggregation": settings.secure_aggregation,
        "delta": settings.delta if private else None,
        "epsilon_budget": settings.epsilon_budget,
    }


def _check_moved(initial: LinearWeights, reached: LinearWeights) -> None:
    if np.array_equal(reached.coef, initial.coef):
        raise CloisterError("the weights did not move: nothing was learnt, nothing is published")


def _checkpoint(training: Training, course: Course) -> Checkpoint:
    return Checkpoint(
        weights=course.weights,
        rounds=tuple(course.rounds),
        strategy=training.aggregation.state(),
        privacy=training.privacy.state() if training.privacy is not None else None,
        standardisation=course.standardisation,
    )


def _standardisation(
    collection: Collection, checkpoint: Checkpoint | None
) -> Standardisation | None:
    # The weights that a training goes on from are for the inputs that it began with.
    if checkpoint is not None:
        return checkpoint.standardisation
    moments = collection.moments()
    log.info("inputs are standardised by %.0f rows", moments.rows)
    return Standardisation.of(moments)


def _fit_config(config: ConfigRecord, standardisation: Standardisation | None) -> ConfigRecord:
    """Return what sites are told where they fit, and measure what they fit from."""
    row = federated_estimator(str(config[flower.ESTIMATOR]))
    # Of rows that are summed for the fit the sums are standardised, and here.
    if standardisation is None or row.aggregation == "statistics":
        return config
    return ConfigRecord({**config, flower.STANDARDISATION: standardisation.model_dump_json()})


def _restore(training: Training, course: Course, checkpoint: Checkpoint) -> None:
    course.weights, course.rounds = checkpoint.weights, list(checkpoint.rounds)
    training.aggregation.restore(checkpoint.strategy)
    if training.privacy is not None:
        training.privacy.restore(checkpoint.privacy or {})


def _collection(
    grid: Exchange,
    settings: Settings,
    config: ConfigRecord,
    await_sites: Callable[[], list[int]],
    on_sites: OnSites,
) -> Collection:
    data = settings.data
    if settings.secure_aggregation:
        return SecureCollection(
            grid,
            data,
            config,
            await_sites,
            quorum=settings.quorum,
            timeout=settings.round_timeout,
            masking=Masking(settings.clipping_range, settings.max_examples),
        )
    return PlainCollection(
        grid,
        data,
        config,
        await_sites,
        quorum=settings.quorum,
        timeout=settings.round_timeout,
        on_sites=on_sites,
    )


def _aggregation(
    settings: Settings, data: DatasetSchema, standardisation: Standardisation | None
) -> Aggregating:
    row = federated_estimator(settings.estimator)
    if row.aggregation == "statistics":
        return Totals(row, estimator_parameters(settings), data, standardisation)
    if row.aggregation == "bagging":
        return Bagging(settings.clients)
    return Aggregation(strategy(settings.strategy), settings.strategy_values)


def _privacy(settings: Settings) -> Privacy | None:
    if settings.noise_multiplier is None:
        return None
    return GaussianPrivacy(
        settings.noise_multiplier, settings.clipping_norm, settings.delta, settings.epsilon_budget
    )


def _config(settings: Settings) -> ConfigRecord:
    config = ConfigRecord(
        {
            flower.SCHEMA_DIGEST: settings.data.digest,
            flower.ESTIMATOR: settings.estimator,
            flower.PARAMETERS: json.dumps(estimator_parameters(settings)),
            flower.OUT_OF_BOUNDS: settings.out_of_bounds,
            flower.REPORT: settings.noise_multiplier is None,
        }
    )
    if settings.noise_multiplier is not None:
        config[flower.CLIPPING_NORM] = settings.clipping_norm
    return config


def _publish(
    settings: Settings,
    digest: str,
    course: Course,
    model: Model,
    final: FinalMetrics | None,
) -> int:
    parameters = estimator_parameters(settings)
    if isinstance(model, Trees):
        # Of all rounds and sites, as of a model that was grown in one place.
        parameters["n_estimators"] = model.n_rounds
    card = ModelCard(
        name=settings.name,
        estimator=settings.estimator,
        parameters=parameters,
        data=settings.data,
        out_of_bounds=settings.out_of_bounds,
        federation=federation(settings, course.rounds[-1].epsilon),
        rounds=tuple(course.rounds),
        final=final,
        pruned=settings.prune,
        standardised=settings.standardise,
        libraries={library: version(library) for library in LIBRARIES},
        created=datetime.now(UTC),
    )

    registry = Registry(settings.models_dir)
    return publish(registry, card, model, digest).manifest.version
