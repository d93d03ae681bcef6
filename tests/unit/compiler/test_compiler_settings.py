"""Bits and tolerance from the environment."""

import pytest

from cloister_compiler.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.service import load_settings


@pytest.mark.parametrize(
    ("text", "bits"), [("2", 2), ("8", 8), ("auto", "auto"), ("Auto", "auto"), ("", None)]
)
def test_bits_are_a_number_or_auto(
    text: str, bits: int | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_BITS", text)
    assert load_settings(Settings).bits == bits


@pytest.mark.parametrize("text", ["1", "9", "-8", "8.5", "all", "²"])
def test_other_bits_are_refused_in_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_BITS", text)
    with pytest.raises(CloisterError, match=r"CLOISTER_BITS: .*must be 2 to 8, or auto$") as caught:
        load_settings(Settings)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CLOISTER_BITS_INPUTS", "1"),
        ("CLOISTER_BITS_INPUTS", "auto"),
        ("CLOISTER_BITS_WEIGHTS", "9"),
        ("CLOISTER_TOLERANCE", "-0.1"),
        ("CLOISTER_TOLERANCE", "2"),
        ("CLOISTER_TOLERANCE", "nan"),
    ],
)
def test_what_is_out_of_range_is_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(CloisterError, match=name):
        load_settings(Settings)


def test_without_settings_bits_are_left_to_the_model_and_two_percent_may_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CLOISTER_BITS", "CLOISTER_BITS_INPUTS", "CLOISTER_BITS_WEIGHTS"):
        monkeypatch.setenv(name, "")
    settings = load_settings(Settings)
    assert (settings.bits, settings.bits_inputs, settings.bits_weights) == (None, None, None)
    assert settings.tolerance == 0.02
