"""Secure aggregation between the real trainer and the real sites, in this process."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from federation import Answer, Clock, LocalGrid, LostError, Site, deal_sites
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Scalar, bytes_to_ndarray, ndarray_to_bytes
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    factor_extract,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister_client.data.shard import read_shard
from cloister_client.training.fitting import Trained, train
from cloister_client.training.request import task_of
from cloister_client.training.secure_rules import secure_rules
from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared import flower
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.secure_aggregation import (
    MAX_SITES,
    MODULUS,
    mask,
    pack_tail,
    quantisation_range,
)
from cloister_shared.weights import LinearWeights
from cloister_trainer.exchange import Exchange
from cloister_trainer.records import weights_of
from cloister_trainer.secure_aggregation import Masking, SecureCollection, error_bound

PROTOCOL = "secaggplus_configs"
STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
NAMES = dict(zip(STAGES, ("setup", "share keys", "collect masked updates", "unmask"), strict=True))
"""What a halt calls the stages."""
NODES = (1, 2, 3, 4, 5)
RANGE = 8.0
MAX_EXAMPLES = 1000
MASKING = Masking(RANGE, MAX_EXAMPLES)
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Of five sites with digits."""
    return deal_sites(tmp_path_factory.mktemp("five"), DealerSettings(shards=5))


@pytest.fixture
def five(folders: dict[int, Path]) -> LocalGrid:
    return LocalGrid({node: Site(folder) for node, folder in folders.items()})


def config(dataset: DatasetName = "digits", **changes: Any) -> ConfigRecord:
    values: dict[str, Any] = {
        flower.SCHEMA_DIGEST: schema(dataset).digest,
        flower.ESTIMATOR: "LogisticRegression",
        flower.PARAMETERS: json.dumps(
            {"penalty": "l2", "C": 1.0, "max_iter": 20, "warm_start": True}
        ),
        flower.OUT_OF_BOUNDS: "refuse",
        flower.REPORT: True,
    }
    return ConfigRecord(values | changes)


def collection(
    grid: LocalGrid,
    *,
    quorum: int = 4,
    dataset: DatasetName = "digits",
    masking: Masking = MASKING,
    **changes: Any,
) -> SecureCollection:
    clock = Clock()
    return SecureCollection(
        Exchange(grid, clock=clock, sleep=clock.sleep),
        schema(dataset),
        config(dataset, **changes),
        lambda: list(grid.get_node_ids()),
        quorum=quorum,
        timeout=60,
        masking=masking,
    )


def trained_at(folders: dict[int, Path], received: LinearWeights) -> dict[int, Trained]:
    """What each site comes to, without any aggregation."""
    task = task_of(dict(config()))
    return {
        node: train(task, received, read_shard(folder, "refuse"))
        for node, folder in folders.items()
    }


def plain_mean(found: Sequence[Trained]) -> LinearWeights:
    rows = [trained.examples for trained in found]
    return LinearWeights(
        np.average([trained.weights.coef for trained in found], axis=0, weights=rows),
        np.average([trained.weights.intercept for trained in found], axis=0, weights=rows),
    )


def assert_near(result: LinearWeights, expected: LinearWeights, bound: float) -> None:
    assert np.abs(result.coef - expected.coef).max() < bound
    assert np.abs(result.intercept - expected.intercept).max() < bound


def some_weights() -> LinearWeights:
    generator = np.random.default_rng(5)
    return LinearWeights(0.1 * generator.normal(size=(10, 64)), np.zeros(10))


def stage_of(message: Message) -> str:
    return cast("str", message.content.config_records[PROTOCOL]["stage"])


class At:
    """Does something else than the site in one stage."""

    def __init__(self, stage: str, site: Answer, instead: Callable[[Message, Answer], Message]):
        self.stage = stage
        self.site = site
        self.instead = instead

    def __call__(self, message: Message) -> Message:
        if stage_of(message) == self.stage:
            return self.instead(message, self.site)
        return self.site(message)


def is_lost(_message: Message, _site: Answer) -> Message:
    raise LostError


def fails(_message: Message, _site: Answer) -> Message:
    raise RuntimeError("the disk is full")


def test_the_mean_is_that_of_plain_averaging_within_the_bound(
    five: LocalGrid, folders: dict[int, Path]
) -> None:
    received = some_weights()
    collected = collection(five).train(1, received)
    found = list(trained_at(folders, received).values())
    rows = sum(trained.examples for trained in found)
    (reply,) = collected.replies
    assert_near(weights_of(reply), plain_mean(found), error_bound(5, RANGE, MAX_EXAMPLES, rows))
    assert error_bound(5, RANGE, MAX_EXAMPLES, rows) < 1e-6
    assert (collected.asked, collected.sites, collected.examples) == (5, 5, None)
    # Weighted by the rows fitted, for those validated on are as hidden.
    weights = [trained.examples for trained in found]
    metrics = [trained.metrics for trained in found]
    accuracy = np.average([m.quality for m in metrics if m], weights=weights)
    loss = np.average([m.loss for m in metrics if m], weights=weights)
    assert collected.metrics is not None
    assert collected.metrics["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert collected.metrics["loss"] == pytest.approx(loss, abs=1e-5)


def test_an_evaluation_gives_the_mean_of_the_metrics(
    five: LocalGrid, folders: dict[int, Path]
) -> None:
    received = some_weights()
    final = collection(five).evaluate(received)
    assert final is not None
    assert final.sites == 5
    metrics = [trained.metrics for trained in trained_at(folders, received).values()]
    weights = [m.examples for m in metrics if m]
    accuracy = np.average([m.quality for m in metrics if m], weights=weights)
    assert final.accuracy == pytest.approx(accuracy, abs=1e-5)
    loss = np.average([m.loss for m in metrics if m], weights=weights)
    assert final.loss == pytest.approx(loss, abs=1e-4)


def test_where_sites_report_nothing_all_count_the_same_and_nothing_is_evaluated(
    five: LocalGrid, folders: dict[int, Path]
) -> None:
    received = some_weights()
    changes: dict[str, Any] = {flower.REPORT: False, flower.CLIPPING_NORM: 100.0}
    quiet = collection(five, **changes)
    collected = quiet.train(1, received)
    assert (collected.examples, collected.metrics) == (None, None)
    found = trained_at(folders, received).values()
    expected = LinearWeights(
        np.mean([trained.weights.coef for trained in found], axis=0),
        np.mean([trained.weights.intercept for trained in found], axis=0),
    )
    assert_near(weights_of(collected.replies[0]), expected, error_bound(5, RANGE, 1, 5))
    sent = len(five.sent)
    assert quiet.evaluate(received) is None
    assert len(five.sent) == sent


@pytest.mark.parametrize("how", [is_lost, fails])
@pytest.mark.parametrize("stage", STAGES)
def test_a_site_that_is_lost_at_any_stage_stops_nothing(
    five: LocalGrid,
    folders: dict[int, Path],
    stage: str,
    how: Callable[[Message, Answer], Message],
) -> None:
    five.sites[3] = At(stage, five.sites[3], how)
    received = some_weights()
    collected = collection(five).train(1, received)
    found = trained_at(folders, received)
    # Once it has sent its masked update the others can take its mask off.
    if stage != "unmask":
        del found[3]
    assert (collected.asked, collected.sites) == (5, len(found))
    rows = sum(trained.examples for trained in found.values())
    assert_near(
        weights_of(collected.replies[0]),
        plain_mean(list(found.values())),
        error_bound(5, RANGE, MAX_EXAMPLES, rows),
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_reply_that_is_lost_on_its_way_is_not_asked_for_again(
    five: LocalGrid, stage: str
) -> None:
    # A second answer of other masks or shares could give away what the first hides.
    def lose(message: Message, site: Answer) -> Message:
        site(message)
        return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "unavailable"), reply_to=message)

    five.sites[3] = At(stage, five.sites[3], lose)
    collected = collection(five).train(1, some_weights())
    assert collected.sites == (5 if stage == "unmask" else 4)
    asked = [(message.metadata.dst_node_id, stage_of(message)) for message in five.sent]
    assert len(asked) == len(set(asked))


def test_one_site_is_lost_at_every_stage(five: LocalGrid, folders: dict[int, Path]) -> None:
    for node, stage in zip((1, 2, 4), STAGES, strict=False):
        five.sites[node] = At(stage, five.sites[node], is_lost)
    with pytest.raises(CloisterError, match="2 of 5 sites are left, and 3 are needed"):
        collection(five, quorum=3).train(1, some_weights())
    five.sites[4] = Site(folders[4])
    collected = collection(five, quorum=3).train(1, some_weights())
    found = trained_at(folders, some_weights())
    assert_near(weights_of(collected.replies[0]), plain_mean([found[n] for n in (3, 4, 5)]), 1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_a_halt_tells_the_stage_how_many_are_left_and_why(five: LocalGrid, stage: str) -> None:
    five.sites[2] = At(stage, five.sites[2], is_lost)
    five.sites[3] = At(stage, five.sites[3], fails)
    expected = (
        f"halted at the stage {NAMES[stage]}: 3 of 5 sites are left, and 4 are needed; "
        r"why: the disk is full \(1 site\)"
    )
    with pytest.raises(CloisterError, match=expected):
        collection(five).train(1, some_weights())


def test_a_halted_evaluation_is_told_too(five: LocalGrid) -> None:
    five.silent = {1, 2}
    with pytest.raises(CloisterError, match="halted at the stage setup: 3 of 5"):
        collection(five).evaluate(some_weights())


@pytest.mark.parametrize("sites", [1, 2])
def test_fewer_than_three_sites_are_refused_before_anything_is_sent(
    five: LocalGrid, sites: int
) -> None:
    five.online = set(range(1, sites + 1))
    with pytest.raises(CloisterError, match=f"3 to 1023 sites, and these are {sites}"):
        collection(five, quorum=1).train(1, some_weights())
    assert five.sent == []


def test_more_than_half_must_be_left_whatever_the_quorum(five: LocalGrid) -> None:
    five.silent = {1, 2, 3}
    with pytest.raises(CloisterError, match="2 of 5 sites are left, and 3 are needed"):
        collection(five, quorum=1).train(1, some_weights())


def with_answer(change: Callable[[dict[str, Any]], None]) -> Callable[[Message, Answer], Message]:
    """A site that changes its honest answer."""

    def instead(message: Message, site: Answer) -> Message:
        reply = site(message)
        values = dict(reply.content.config_records[PROTOCOL])
        change(values)
        reply.content.config_records[PROTOCOL] = ConfigRecord(values)
        return reply

    return instead


def has_no_records(message: Message, _site: Answer) -> Message:
    return Message(RecordDict(), reply_to=message)


def truncates_vectors(values: dict[str, Any]) -> None:
    values["masked_params"] = values["masked_params"][:-1]


def widens_vectors(values: dict[str, Any]) -> None:
    values["masked_params"] = [
        ndarray_to_bytes(np.append(bytes_to_ndarray(array), 0)) for array in values["masked_params"]
    ]


def leaves_the_modulus(values: dict[str, Any]) -> None:
    values["masked_params"] = [
        ndarray_to_bytes(bytes_to_ndarray(array) + MODULUS) for array in values["masked_params"]
    ]


def sends_floats(values: dict[str, Any]) -> None:
    values["masked_params"] = [
        ndarray_to_bytes(bytes_to_ndarray(array).astype(float)) for array in values["masked_params"]
    ]


@pytest.mark.parametrize(
    ("stage", "instead"),
    [
        *((stage, has_no_records) for stage in STAGES),
        ("setup", with_answer(lambda values: values.update(pk1=b"none"))),
        ("setup", with_answer(lambda values: values.pop("pk2"))),
        ("share_keys", with_answer(lambda values: values.update(dsts=[1, 1, 2, 5]))),
        ("share_keys", with_answer(lambda values: values.update(ctxts=[b"", b""]))),
        ("share_keys", with_answer(lambda values: values.update(ctxts=[b"0" * 5000] * 4))),
        ("collect_masked_vectors", with_answer(truncates_vectors)),
        ("collect_masked_vectors", with_answer(widens_vectors)),
        ("collect_masked_vectors", with_answer(leaves_the_modulus)),
        ("collect_masked_vectors", with_answer(sends_floats)),
        ("unmask", with_answer(lambda values: values.update(nids=[9] * 5))),
        ("unmask", with_answer(lambda values: values["shares"].pop())),
    ],
)
def test_a_site_that_sends_nonsense_is_as_one_that_is_lost(
    five: LocalGrid, folders: dict[int, Path], stage: str, instead: Any
) -> None:
    five.sites[3] = At(stage, five.sites[3], instead)
    collected = collection(five).train(1, some_weights())
    found = trained_at(folders, some_weights())
    if stage != "unmask":
        del found[3]
    assert collected.sites == len(found)
    assert_near(weights_of(collected.replies[0]), plain_mean(list(found.values())), 1e-6)


def adds_a_mask(values: dict[str, Any]) -> None:
    arrays = [bytes_to_ndarray(array) for array in values["masked_params"]]
    masks = mask(b"of another version", MODULUS, [array.shape for array in arrays])
    values["masked_params"] = [
        ndarray_to_bytes((array + more) % MODULUS)
        for array, more in zip(arrays, masks, strict=True)
    ]


def test_a_sum_from_which_a_mask_does_not_come_off_is_noticed(five: LocalGrid) -> None:
    instead = with_answer(adds_a_mask)
    five.sites[3] = At("collect_masked_vectors", five.sites[3], instead)
    secure = collection(five)
    with pytest.raises(CloisterError, match="no mean of updates"):
        secure.train(1, some_weights())
    with pytest.raises(CloisterError, match="no mean of updates"):
        secure.evaluate(some_weights())


def moves_the_constant(values: dict[str, Any]) -> None:
    tail = bytes_to_ndarray(values["masked_params"][-1])
    tail[0] = (tail[0] - quantisation_range(5) // 50) % MODULUS
    values["masked_params"] = [*values["masked_params"][:-1], ndarray_to_bytes(tail)]


def test_a_sum_is_noticed_too_where_all_values_could_be(five: LocalGrid) -> None:
    """Of few values under a mask, all may be within the range by chance."""
    instead = with_answer(moves_the_constant)
    five.sites[3] = At("collect_masked_vectors", five.sites[3], instead)
    with pytest.raises(CloisterError, match="no mean of updates"):
        collection(five).evaluate(some_weights())


def test_wrong_shares_fail_with_the_stage(five: LocalGrid) -> None:
    def spoil(values: dict[str, Any]) -> None:
        values["shares"] = [share[:4] + bytes(len(share) - 4) for share in values["shares"]]

    five.sites[3] = At("unmask", five.sites[3], with_answer(spoil))
    with pytest.raises(CloisterError, match=r"failed at the stage unmask|no mean of updates"):
        collection(five).train(1, some_weights())


def test_a_value_beyond_the_range_fails_with_what_to_set(five: LocalGrid) -> None:
    narrow = collection(five, masking=Masking(0.01, MAX_EXAMPLES))
    with pytest.raises(CloisterError, match=r"0 of 5 sites .*CLOISTER_SECAGG_CLIPPING_RANGE"):
        narrow.train(1, some_weights())


# What the server receives.


class Recorded:
    """Keeps what a site replies."""

    def __init__(self, site: Answer, replies: list[Message]) -> None:
        self.site = site
        self.replies = replies

    def __call__(self, message: Message) -> Message:
        reply = self.site(message)
        self.replies.append(reply)
        return reply


@pytest.fixture
def heard(five: LocalGrid) -> list[Message]:
    """All that the sites of ``five`` reply."""
    replies: list[Message] = []
    five.sites = {node: Recorded(site, replies) for node, site in five.sites.items()}
    return replies


def answers(heard: list[Message], key: str) -> dict[int, dict[str, Any]]:
    """Of the stage whose answers have this key, by node."""
    return {
        reply.metadata.src_node_id: dict(reply.content.config_records[PROTOCOL])
        for reply in heard
        if key in reply.content.config_records[PROTOCOL]
    }


def masked_vectors(heard: list[Message]) -> dict[int, npt.NDArray[np.int64]]:
    return {
        node: np.concatenate([bytes_to_ndarray(a).ravel() for a in answer["masked_params"]])
        for node, answer in answers(heard, "masked_params").items()
    }


def assert_uniform(words: npt.NDArray[np.int64]) -> None:
    """Neither the high nor the low bits tell anything: chi-square of 16 equally likely values."""
    for shift in (0, 28):
        counts = np.bincount(words >> shift & 15, minlength=16)
        chi_square = np.sum((counts - len(words) / 16) ** 2 / (len(words) / 16))
        # With 15 degrees of freedom, exceeded once in a billion.
        assert chi_square < 75


def seeds_that_were_given(heard: list[Message]) -> dict[int, bytes]:
    """What the server puts together from the shares: the seed of every site's own mask."""
    shares: dict[int, list[bytes]] = {node: [] for node in NODES}
    for answer in answers(heard, "shares").values():
        for node, share in zip(answer["nids"], answer["shares"], strict=True):
            shares[node].append(share)
    return {node: combine_shares(given_) for node, given_ in shares.items()}


def test_a_sites_update_stays_masked_even_without_the_mask_that_the_server_can_take_off(
    five: LocalGrid, heard: list[Message], folders: dict[int, Path]
) -> None:
    received = some_weights()
    collection(five).train(1, received)
    masked, seeds = masked_vectors(heard), seeds_that_were_given(heard)
    own = {node: mask(seeds[node], MODULUS, [vector.shape])[0] for node, vector in masked.items()}
    for node in NODES:
        assert_uniform(masked[node])
        assert_uniform((masked[node] - own[node]) % MODULUS)
        # Nor does a part of the sites give anything.
        others = [other for other in NODES if other != node]
        part = np.sum([masked[other] - own[other] for other in others], axis=0)
        assert_uniform(part % MODULUS)
    # All together do: the sum of weights, then of weighted and quantised values.
    total = np.sum([masked[node] - own[node] for node in NODES], axis=0) % MODULUS
    steps = quantisation_range(5)
    found = trained_at(folders, received)
    ratios = {node: round(found[node].examples / MAX_EXAMPLES * steps) for node in NODES}
    assert total[0] == sum(ratios.values())
    expected = sum(
        (ratios[n] / steps * found[n].update.coef.ravel() + RANGE) * steps / (2 * RANGE)
        for n in NODES
    )
    assert np.abs(total[1:641] - expected).max() < 5


def test_who_knows_a_sites_update_finds_no_trace_of_it_in_what_the_site_sent(
    five: LocalGrid, heard: list[Message], folders: dict[int, Path]
) -> None:
    received = some_weights()
    collection(five).train(1, received)
    found = trained_at(folders, received)
    for node, vector in masked_vectors(heard).items():
        update = found[node].update.coef.ravel()
        correlation = np.corrcoef(vector[1:641].astype(float), update)[0, 1]
        # Of 640 independent values it is below 0.25 but once in 10 billion.
        assert abs(correlation) < 0.25


def test_masks_are_new_in_every_round(five: LocalGrid, heard: list[Message]) -> None:
    secure = collection(five)
    secure.train(1, some_weights())
    first = masked_vectors(heard)
    heard.clear()
    secure.train(2, some_weights())
    for node, vector in masked_vectors(heard).items():
        # The same update under other masks; their difference is uniform, and no small number.
        assert_uniform((vector - first[node]) % MODULUS)


def test_neither_rows_nor_metrics_of_a_site_are_sent(five: LocalGrid, heard: list[Message]) -> None:
    secure = collection(five)
    secure.train(1, some_weights())
    secure.evaluate(some_weights())
    assert len(heard) == 2 * 4 * 5
    for reply in heard:
        content = reply.content
        for name, metrics in content.metric_records.items():
            assert (name, dict(metrics)) == ("fitres.num_examples", {"num_examples": 1})
        assert all(not dict(arrays) for arrays in content.array_records.values())
        texts = {
            name: dict(record)
            for name, record in content.config_records.items()
            if name != PROTOCOL
        }
        assert texts in (
            {},
            {"fitres.metrics": {}, "fitres.status": {"code": 0, "message": "Success"}},
        )
        assert set(content.config_records[PROTOCOL]) <= {
            "pk1",
            "pk2",
            "dsts",
            "ctxts",
            "masked_params",
            "nids",
            "shares",
        }


def test_of_a_site_that_is_lost_the_server_learns_its_key_and_not_its_own_mask(
    five: LocalGrid, heard: list[Message]
) -> None:
    """Both would take every mask off what it sent late."""
    five.sites[3] = At("collect_masked_vectors", five.sites[3], is_lost)
    collection(five).train(1, some_weights())
    asked = [m for m in five.sent if stage_of(m) == "unmask"]
    assert len(asked) == 4
    for message in asked:
        lists = message.content.config_records[PROTOCOL]
        assert sorted(cast("list[int]", lists["active_nids"])) == [1, 2, 4, 5]
        assert lists["dead_nids"] == [3]


# The form of the numbers.


class Fixed(NumPyClient):
    """A site that sends these values."""

    def __init__(self, arrays: list[Floats], weight: int) -> None:
        self.arrays = arrays
        self.weight = weight

    def fit(
        self,
        parameters: list[Floats],  # noqa: ARG002 - Flower gives it by name
        config: dict[str, Scalar],  # noqa: ARG002
    ) -> tuple[list[Floats], int, dict[str, Scalar]]:
        return self.arrays, self.weight, {}


def fixed(update: Floats, weight: int, clipping_range: float) -> Answer:
    """A site with this update of two classes' weights, behind the real protocol."""
    tail = pack_tail(clipping_range, (0.5, 1.0), schema("breast_cancer"))

    def client(context: Context) -> Client:
        return Fixed([update[None, :-1], update[-1:], tail], weight).to_client()

    app = ClientApp(client, mods=[secure_rules, secaggplus_mod])
    context = Context(1, 1, {}, RecordDict(), {})
    return lambda message: app(message, context)


@settings(max_examples=15)
@given(data=st.data(), sites=st.integers(3, 6), clipping_range=st.sampled_from([0.5, 8.0, 100.0]))
def test_any_values_and_weights_come_out_within_the_bound(
    data: st.DataObject, sites: int, clipping_range: float
) -> None:
    n_features = schema("breast_cancer").n_features
    values = st.floats(-1, 1, allow_subnormal=False)
    updates = [
        clipping_range
        * np.array(data.draw(st.lists(values, min_size=n_features + 1, max_size=n_features + 1)))
        for _ in range(sites)
    ]
    rows = data.draw(
        st.lists(st.integers(1, MAX_EXAMPLES), min_size=sites, max_size=sites), label="rows"
    )
    grid = LocalGrid(
        {
            node + 1: fixed(update, weight, clipping_range)
            for node, (update, weight) in enumerate(zip(updates, rows, strict=True))
        }
    )
    masking = Masking(clipping_range, MAX_EXAMPLES)
    secure = collection(grid, quorum=2, dataset="breast_cancer", masking=masking)
    received = LinearWeights.zeros(schema("breast_cancer"))
    collected = secure.train(1, received)
    after = weights_of(collected.replies[0])
    mean = np.average(updates, axis=0, weights=rows)
    bound = error_bound(sites, clipping_range, MAX_EXAMPLES, sum(rows))
    assert_near(after, LinearWeights(mean[None, :-1], mean[-1:]), bound)
    assert collected.metrics is not None
    assert collected.metrics["accuracy"] == pytest.approx(0.5, abs=2 * bound / clipping_range)


def through_the_sum(values: Floats, rows: npt.NDArray[np.int64], clipping_range: float) -> Floats:
    """Flower's own functions as its client and server call them, without masks."""
    steps, total = quantisation_range(len(rows)), None
    for value, weight in zip(values, rows, strict=True):
        ratio = round(int(weight) / MAX_EXAMPLES * steps)
        weighted = parameters_multiply([value], ratio / steps)
        vector = factor_combine(ratio, quantize(weighted, clipping_range, steps))
        total = vector if total is None else parameters_addition(total, vector)
    assert total is not None
    ratio, summed = factor_extract(parameters_mod(total, MODULUS))
    (mean,) = dequantize(summed, clipping_range, steps)
    return (mean - (len(rows) - 1) * clipping_range) * (steps / ratio)


@settings(max_examples=30)
@given(
    sites=st.integers(3, MAX_SITES),
    seed=st.integers(0, 2**32 - 1),
    most=st.integers(1, MAX_EXAMPLES),
    clipping_range=st.floats(1e-3, 1e3),
)
def test_any_number_of_sites_stays_within_the_bound(
    sites: int, seed: int, most: int, clipping_range: float
) -> None:
    generator = np.random.default_rng(seed)
    values = clipping_range * generator.uniform(-1, 1, size=(sites, 20))
    rows = generator.integers(1, most + 1, size=sites)
    mean = through_the_sum(values, rows, clipping_range)
    bound = error_bound(sites, clipping_range, MAX_EXAMPLES, int(rows.sum()))
    assert np.abs(mean - np.average(values, axis=0, weights=rows)).max() < bound


@pytest.mark.parametrize("sites", [3, 4, 16, 1023])
@pytest.mark.parametrize("sign", [-1, 1])
def test_nothing_overflows_where_all_are_at_the_end_of_every_range(sites: int, sign: int) -> None:
    values = np.full((sites, 5), sign * RANGE)
    rows = np.full(sites, MAX_EXAMPLES)
    mean = through_the_sum(values, rows, RANGE)
    np.testing.assert_allclose(mean, sign * RANGE, rtol=1e-9)


def test_clipped_updates_stay_within_the_norm_when_they_are_rounded(five: LocalGrid) -> None:
    """The noise of differential privacy is made for that norm."""
    changes: dict[str, Any] = {flower.REPORT: False, flower.CLIPPING_NORM: 1.0}
    collection(five, masking=Masking(1.0, MAX_EXAMPLES), **changes).train(1, some_weights())
    asked = [m for m in five.sent if stage_of(m) == "collect_masked_vectors"]
    norm = cast("float", asked[0].content.config_records["fitins.config"][flower.CLIPPING_NORM])
    step = 2 / quantisation_range(5)
    # Every one of 650 values can move by a step.
    assert norm + step * 650**0.5 == pytest.approx(1.0, abs=1e-15)
    assert norm < 1
    with pytest.raises(CloisterError, match="too large beside CLOISTER_CLIPPING_NORM"):
        collection(five, masking=Masking(1e9, MAX_EXAMPLES), **changes).train(1, some_weights())


# Two classes, and classes that a site lacks.


def test_two_classes_and_a_site_that_lacks_one(tmp_path: Path) -> None:
    dealt = deal_sites(tmp_path, DealerSettings(shards=3, dataset="breast_cancer"))
    with np.load(dealt[2] / "shard.npz") as arrays:
        kept = arrays["y"] == schema("breast_cancer").classes[0]
        features, labels = arrays["X"][kept], arrays["y"][kept]
    np.savez(dealt[2] / "shard.npz", X=features, y=labels)
    grid = LocalGrid({node: Site(folder) for node, folder in dealt.items()})
    received = LinearWeights.zeros(schema("breast_cancer"))
    collected = collection(grid, quorum=2, dataset="breast_cancer").train(1, received)
    task = task_of(dict(config("breast_cancer")))
    found = [train(task, received, read_shard(f, "refuse")) for f in dealt.values()]
    # The site that knows one class only leaves everything as it was.
    assert not found[1].update.coef.any()
    assert_near(weights_of(collected.replies[0]), plain_mean(found), 1e-5)
    assert collected.sites == 3
