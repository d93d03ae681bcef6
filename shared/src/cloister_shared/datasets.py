"""The datasets that Cloister knows by name, as their public schemas."""

from pathlib import Path
from typing import Literal, get_args

from cloister_shared.errors import CloisterError
from cloister_shared.files import given_file
from cloister_shared.schema import DatasetSchema, Feature, Target, read_schema

DatasetName = Literal["digits", "mnist", "breast_cancer", "diabetes"]
DATASETS: tuple[DatasetName, ...] = get_args(DatasetName)

# Minimum and maximum as published in the dataset's description (scikit-learn's breast_cancer.rst,
# after Street, Wolberg and Mangasarian, 1993), each widened by one unit of its last printed digit
# to hold the value it was rounded from, and never below zero: all are lengths, areas and ratios.
_BREAST_CANCER: tuple[tuple[str, float, float], ...] = (
    ("mean radius", 6.98, 28.12),
    ("mean texture", 9.7, 39.29),
    ("mean perimeter", 43.78, 188.6),
    ("mean area", 143.4, 2501.1),
    ("mean smoothness", 0.052, 0.164),
    ("mean compactness", 0.018, 0.346),
    ("mean concavity", 0, 0.428),
    ("mean concave points", 0, 0.202),
    ("mean symmetry", 0.105, 0.305),
    ("mean fractal dimension", 0.04, 0.098),
    ("radius error", 0.111, 2.874),
    ("texture error", 0.35, 4.886),
    ("perimeter error", 0.756, 21.99),
    ("area error", 6.801, 542.3),
    ("smoothness error", 0.001, 0.032),
    ("compactness error", 0.001, 0.136),
    ("concavity error", 0, 0.397),
    ("concave points error", 0, 0.054),
    ("symmetry error", 0.007, 0.08),
    ("fractal dimension error", 0, 0.04),
    ("worst radius", 7.92, 36.05),
    ("worst texture", 12.01, 49.55),
    ("worst perimeter", 50.4, 251.3),
    ("worst area", 185.1, 4254.1),
    ("worst smoothness", 0.07, 0.224),
    ("worst compactness", 0.026, 1.059),
    ("worst concavity", 0, 1.253),
    ("worst concave points", 0, 0.292),
    ("worst symmetry", 0.155, 0.665),
    ("worst fractal dimension", 0.054, 0.209),
)

# Ages, measurements and serum values of adult patients (Efron, Hastie, Johnstone and Tibshirani,
# 2004, https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html), with bounds that such quantities
# have: none is taken from the rows. The target measures how the disease progressed in a year.
_DIABETES: tuple[tuple[str, float, float], ...] = (
    ("age", 18, 80),
    ("sex", 1, 2),
    ("bmi", 15, 45),
    ("bp", 60, 140),
    ("s1", 90, 320),
    ("s2", 40, 250),
    ("s3", 20, 100),
    ("s4", 1, 10),
    ("s5", 3, 6.5),
    ("s6", 50, 130),
)


def _image(dataset: str, height: int, width: int, high: float) -> DatasetSchema:
    return DatasetSchema(
        dataset=dataset,
        features=tuple(
            Feature(name=f"pixel_{row}_{column}", low=0, high=high)
            for row in range(height)
            for column in range(width)
        ),
        image_shape=(height, width),
        classes=tuple(range(10)),
    )


def schema(name: DatasetName) -> DatasetSchema:
    """Return the public schema of a dataset known by name.

    Raises:
        CloisterError: no such dataset; the message lists those there are.
    """
    match name:
        case "digits":
            return _image("digits", 8, 8, 16)
        case "mnist":
            return _image("mnist", 28, 28, 255)
        case "breast_cancer":
            return DatasetSchema(
                dataset="breast_cancer",
                features=tuple(
                    Feature(name=feature, low=low, high=high)
                    for feature, low, high in _BREAST_CANCER
                ),
                classes=("malignant", "benign"),
            )
        case "diabetes":
            return DatasetSchema(
                dataset="diabetes",
                task="regression",
                features=tuple(
                    Feature(name=feature, low=low, high=high) for feature, low, high in _DIABETES
                ),
                target=Target(low=1, high=360),
            )
    raise CloisterError(f"there is no dataset {name!r}; use one of: {', '.join(DATASETS)}")


def chosen_schema(name: DatasetName, path: Path | None) -> DatasetSchema:
    """Return the schema in a file, or where there is none that of a dataset known by name.

    Args:
        name: of the dataset.
        path: a JSON file, or none as ``given_file`` says.

    Raises:
        CloisterError: the file is missing, or holds no schema.
    """
    file = given_file(path)
    return read_schema(file) if file else schema(name)
