"""MNIST across ten sites in containers."""

import os

import pytest
from stack import Stack

pytestmark = pytest.mark.skipif(
    "MNIST_PATH" not in os.environ, reason="MNIST_PATH names no .npz with MNIST"
)


def test_ten_sites_and_two_hundred_encrypted_digits(stack: Stack) -> None:
    stack.settings(dataset="mnist", clients=10, evaluate_samples=200)
    stack.compose("up", "--detach")
    assert stack.exit_code("keyholder") == 0, stack.logs("keyholder")
    print(stack.logs("trainer"))
    report = stack.report()
    print(report)
    assert report["reference_scores"]["samples"] == 10_000
    assert report["reference_scores"]["float_model"] >= 0.92
    assert report["reference_scores"]["clear_quantised"] >= 0.92
    assert report["agreement"] == {"samples": 200, "equal_scores": 200, "equal_predictions": 200}
    assert "round 5 of 5: 10 sites, loss" in stack.logs("trainer")
