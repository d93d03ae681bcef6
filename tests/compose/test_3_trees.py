"""Boosted trees of three sites in containers, whose circuit needs evaluation keys."""

from stack import Stack


def test_sites_grow_trees_together_and_they_answer_encrypted(stack: Stack) -> None:
    stack.settings(
        dataset="breast_cancer",
        estimator="XGBClassifier",
        clients=3,
        rounds=2,
        evaluate_samples=3,
        verification_samples=1,
    )
    stack.compose("up", "--detach")
    assert stack.exit_code("keyholder") == 0, stack.logs("keyholder")
    report = stack.report()
    print(report)
    assert "round 2 of 2: 3 sites, loss" in stack.logs("trainer")
    assert report["reference_scores"]["samples"] == 114
    assert report["reference_scores"]["float_model"] >= 0.85
    assert report["agreement"] == {"samples": 3, "equal_scores": 3, "equal_predictions": 3}
