"""The table of estimators."""

import pytest
from sklearn.base import BaseEstimator

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, estimator, federated_estimator


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_row_names_a_class_of_scikit_learn(name: str) -> None:
    module, _, class_name = estimator(name).sklearn_class.rpartition(".")
    imported = getattr(__import__(module, fromlist=[class_name]), class_name)
    assert issubclass(imported, BaseEstimator)
    assert class_name == name


def test_an_unknown_estimator_lists_those_there_are() -> None:
    with pytest.raises(CloisterError, match=r"'GaussianNB' .*LogisticRegression"):
        estimator("GaussianNB")


def test_single_trees_and_forests_are_not_trained_across_sites() -> None:
    assert federated_estimator("LogisticRegression").family == "linear"
    assert federated_estimator("XGBClassifier").family == "tree"
    with pytest.raises(CloisterError, match=r"'DecisionTreeClassifier'.*XGBRegressor$"):
        federated_estimator("DecisionTreeClassifier")
    with pytest.raises(CloisterError, match="GaussianNB"):
        federated_estimator("GaussianNB")
