"""Options of the search with attention heads: what is refused.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace
from typing import Any

import pytest
from speechbrain.decoders.scorer import LengthScorer

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding.search_options import SearchOptions


@pytest.mark.parametrize(
    "wrong, key",
    [
        ({"beam_size": 0}, "beam_size: 0"),
        ({"beam_size": 2.5}, "beam_size: 2.5"),
        ({"ctc_weight": 1.0}, "ctc_weight: 1.0"),
        ({"ctc_weight": "0.4"}, "ctc_weight: 0.4"),
        ({"max_decode_ratio": 0}, "max_decode_ratio: 0"),
        ({"temperature": -1.0}, "temperature: -1.0"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"eos_threshold": "1.5"}, "eos_threshold: '1.5'"),
        ({"scorer_beam_scale": 0.0}, "scorer_beam_scale: 0.0"),
        ({"scorer_weights": {"kenlm": 0.5}}, "scorer_weights: {'kenlm'"),
        (
            {"scorers": [LengthScorer(7)], "scorer_weights": {"length": 0.1}},
            "scorers: length",
        ),
    ],
)
def test_wrong_options(wrong: dict[str, Any], key: str) -> None:
    """The message names the key and its value."""
    with pytest.raises(InputError, match="search: ") as caught:
        replace(SearchOptions(), **wrong)
    assert key in str(caught.value)
