"""The sampling error of a temperature: by hand, and by drawing calibration sets again and again."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration.calibrate import Temperature, tempered_mean
from credibly.uncertainty.calibration.sampling_error import TemperatureError, temperature_error
from uncertainty.cases import examples


def record(log_odds, labels):
    """A record of M members that give the second class these log-odds, (M, N)."""
    log_odds = np.atleast_2d(log_odds)
    given = examples(log_odds.shape[1], 2, np.asarray(labels))
    return Predictions.from_logits(np.stack([np.zeros_like(log_odds), log_odds], axis=-1), given)


def test_rows_that_are_all_alike_by_hand():
    # 100 rows of log-odds 2, of which 80 are right: T makes them logit(0.8), and the error of a share of
    # 0.8 among 100 is binomial, 0.04; that of ln T is the error of the log-odds over the log-odds.
    labels = np.repeat([1, 0], [80, 20])
    calibration, test = record(np.full(100, 2.0), labels), record([2.0, -2.0], [1, 0])
    fitted = Temperature.fit(calibration).temperature
    assert fitted == pytest.approx(2 / logit(0.8), rel=1e-4)
    found = temperature_error(calibration, test, fitted)
    assert found.rows == 100
    assert found.standard_error == pytest.approx(1 / np.sqrt(100 * 0.8 * 0.2) / logit(0.8), rel=1e-3)
    assert found.confidence_error == pytest.approx(0.04 * np.sqrt(2 / np.pi), rel=1e-3)
    assert found.rows_for(found.confidence_error / 2) == pytest.approx(400, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize(("members", "rows"), [(1, 200), (1, 1000), (4, 400)])
def test_it_is_the_spread_of_temperatures_over_calibration_sets(members, rows):
    random = np.random.default_rng(members * rows)

    def drawn(count):
        truth = random.normal(0, 2, count)
        labels = (random.random(count) < 1 / (1 + np.exp(-truth))).astype(int)
        return record(1.7 * truth + random.normal(0, 0.7 * (members > 1), (members, count)), labels)

    test = drawn(2000)
    best = Temperature.fit(drawn(100_000)).temperature
    held = tempered_mean(test.log_probs.astype(float), best)
    errors, moved, said, covered = [], [], [], []
    for _ in range(300):
        calibration = drawn(rows)
        fitted = Temperature.fit(calibration).temperature
        errors.append(np.log(fitted / best))
        moved.append(np.abs(tempered_mean(test.log_probs.astype(float), fitted) - held)[:, 0].mean())
        said.append(temperature_error(calibration, test, fitted))
        low, high = said[-1].interval(0.9)
        covered.append(low <= best <= high)
    # Of 300, 270 +- 5.2 are to be expected.
    assert 254 <= sum(covered) <= 286
    # A spread of 300 draws is known to 4 %; first order leaves some more.
    assert np.std(errors) == pytest.approx(np.mean([own.standard_error for own in said]), rel=0.12)
    assert np.mean(moved) == pytest.approx(np.mean([own.confidence_error for own in said]), rel=0.12)


def test_rows_of_unknown_class_say_nothing():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 300)
    labels = (random.random(300) < 1 / (1 + np.exp(-odds))).astype(int)
    test = record([1.0], [1])
    fitted = Temperature.fit(record(odds, labels)).temperature
    found = temperature_error(record(odds, labels), test, fitted)
    unknown = record(np.r_[odds, 5.0], np.r_[labels, -1])
    assert temperature_error(unknown, test, fitted) == found
    with pytest.raises(InputError, match="two rows or more"):
        temperature_error(unknown.take([0, 300]), test, 1.0)


def test_copies_that_belong_together_say_no_more_than_one_of_them():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 300)
    labels = (random.random(300) < 1 / (1 + np.exp(-odds))).astype(int)
    once = record(odds, labels)
    fitted = Temperature.fit(once).temperature

    def error(rows):
        return temperature_error(rows, once, fitted).standard_error

    three = record(np.tile(odds, 3), np.tile(labels, 3))
    together = replace(three, groups=np.tile(np.arange(300), 3))
    assert error(together) == pytest.approx(error(once), rel=1e-6)
    assert error(three) == pytest.approx(error(once) / np.sqrt(3), rel=1e-6)
    assert temperature_error(replace(three, groups=np.zeros(900, dtype=int)), once, fitted) is None


def test_nothing_is_said_where_the_temperature_is_not_where_the_loss_is_least():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 300)
    # All right: the lower the temperature the better, down to the lowest that is tried.
    right = record(odds, (odds > 0).astype(int))
    assert temperature_error(right, right, Temperature.fit(right).temperature) is None
    # And one that is far from the least.
    labels = (random.random(300) < 1 / (1 + np.exp(-odds))).astype(int)
    assert temperature_error(record(odds, labels), right, 5.0) is None


def test_the_json_is_read_back():
    error = TemperatureError(1.5, 400, 0.1, 0.02)
    assert TemperatureError(**error.as_json()) == error
    assert error.rows_for(0.02) == 400
