import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.errors import InputError
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.promises.reasons import QUANTILES, Reasons
from uncertainty.cases import predictions_of, random_predictions


def test_the_part_of_the_higher_quantile_is_the_reason():
    reasons = Reasons.fit([0.4, 0.1, 0.2, 0.3], [0.01, 0.02, 0.03, 0.04])
    # Shares below: (1/4, 3/4), (3/4, 1/4), (1/2, 1/2), (0, 0), (1, 1).
    assert reasons.of([0.2, 0.35, 0.3, 0.0, 9.0], [0.035, 0.02, 0.03, 0.0, 9.0]) == (
        "unfamiliar", "ambiguous", "unfamiliar", "ambiguous", "unfamiliar",
    )  # fmt: skip


def test_a_single_member_is_never_unfamiliar_with_a_text():
    uncertainty = decompose(random_predictions(M=1))
    reasons = Reasons.fit(uncertainty.aleatoric, uncertainty.epistemic)
    assert set(reasons.of(uncertainty.aleatoric, uncertainty.epistemic)) == {"ambiguous"}


def test_members_that_differ_are_unfamiliar_and_members_that_all_doubt_are_ambiguous():
    calibration = decompose(random_predictions(N=500, M=2, C=2))
    reasons = Reasons.fit(calibration.aleatoric, calibration.epistemic)
    new = decompose(predictions_of([[[0.99, 0.01], [0.5, 0.5]], [[0.01, 0.99], [0.5, 0.5]]]))
    assert reasons.of(new.aleatoric, new.epistemic) == ("unfamiliar", "ambiguous")


@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_reasons_do_not_hang_on_scales_or_the_order_of_rows(seed, factor):
    random = np.random.default_rng(seed)
    aleatoric, epistemic = random.random(50), random.random(50)
    new = random.random((2, 20))
    plain = Reasons.fit(aleatoric, epistemic).of(*new)
    order = random.permutation(50)
    assert Reasons.fit(aleatoric[order] * factor, epistemic).of(new[0] * factor, new[1]) == plain


def test_many_calibration_rows_are_thinned_without_another_answer():
    random = np.random.default_rng(0)
    aleatoric, epistemic = random.random((2, 20000))
    reasons = Reasons.fit(aleatoric, epistemic)
    assert len(reasons.aleatoric) == QUANTILES
    new = random.random((2, 500))
    expected = [
        (epistemic < one).mean() >= (aleatoric < other).mean() for other, one in zip(*new, strict=True)
    ]
    same = [(reason == "unfamiliar") == flag for reason, flag in zip(reasons.of(*new), expected, strict=True)]
    assert np.mean(same) > 0.995


def test_json_goes_there_and_back():
    reasons = Reasons.fit([0.3, 0.1], [0.0, 0.02])
    assert Reasons.from_json(json.loads(json.dumps(reasons.as_json()))) == reasons


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="rising order"):
        Reasons.fit([], [])
    with pytest.raises(InputError, match="rising order"):
        Reasons((0.2, 0.1), (0.0,))
    with pytest.raises(InputError, match="epistemic as finite numbers"):
        Reasons.fit([0.1], [np.nan])
    with pytest.raises(InputError, match="both uncertainties of each row, got 1 and 2"):
        Reasons.fit([0.1], [0.0]).of([0.1], [0.1, 0.2])
    with pytest.raises(InputError, match="expected aleatoric and epistemic"):
        Reasons.from_json({"aleatoric": [0.1]})
