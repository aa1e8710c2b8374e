"""``--corpus`` on the command line stands for what follows from it.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import yaml

from speechbrain_ee.data.corpora import (
    preparation_of,
    prepare_librispeech,
    with_corpus,
)
from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import load_options


def test_splits_and_manifests_follow(repository: Path) -> None:
    """And what is given stays."""
    path = str(repository / "hparams/demo.yaml")
    given = "{corpus: tedlium3, output_folder: out, dev_splits: [test]}"
    assert yaml.safe_load(with_corpus(path, given)) == {
        "corpus": "tedlium3",
        "output_folder": "out",
        "train_splits": ["train"],
        "dev_splits": ["test"],
        "test_splits": ["test"],
        "train_csv": "out/train.csv",
        "valid_csv": "out/dev.csv",
        "test_csv": ["out/test.csv"],
        "system_name": "Conformer-CTC, 6 exits (TED-LIUM 3)",
    }


@pytest.mark.parametrize("given", ["", "{lr: 1}", "{corpus: librispeech}", "["])
def test_librispeech_is_as_the_yaml_has_it(
    given: str, repository: Path
) -> None:
    assert with_corpus(str(repository / "hparams/demo.yaml"), given) == given


def test_errors(repository: Path) -> None:
    path = str(repository / "hparams/demo.yaml")
    with pytest.raises(InputError, match="'ted' is unknown; use one of libri"):
        with_corpus(path, "{corpus: ted}")
    with pytest.raises(InputError, match="voxpopuli .* needs an output_folder"):
        with_corpus(path, "{corpus: voxpopuli}")
    with pytest.raises(InputError, match="corpus: 3 is unknown"):
        preparation_of(3, prepare_librispeech)
    assert preparation_of("librispeech", prepare_librispeech) is (
        prepare_librispeech
    )


def test_shards_take_the_place_of_training_splits(
    repository: Path, tmp_path: Path
) -> None:
    """So that these need not be there."""
    path = str(repository / "hparams/demo.yaml")
    given = f"{{data_folder: x, output_folder: {tmp_path}, train_shards: y}}"
    options = load_options(path, given)
    assert options["train_splits"] == [] and options["dev_splits"]
    assert options["corpus"] == "librispeech"
