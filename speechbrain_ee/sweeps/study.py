"""The folder of a study: all that any worker on any node needs to join.

``sweep.json`` (the search), ``base.yaml`` (the YAML that is varied, as it was
when the study began), ``journal.log`` (Optuna), ``workers/`` (signs of life)
and ``trials/`` (a folder per point).

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.sweeps.base_yaml import BaseYAML
from speechbrain_ee.sweeps.definition import OUTPUT, Definition
from speechbrain_ee.sweeps.journal import alone, open_journal

NAME = "sweep"
JOURNAL = "journal.log"
_DEFINITION, _BASE = "sweep.json", "base.yaml"


class StudyFolder:
    """A study that is there.

    Arguments
    ---------
    path : Path
        The folder.

    Raises
    ------
    InputError
        If there is no study.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            content = (self.path / _DEFINITION).read_text(encoding="utf-8")
            data = json.loads(content)
            self.definition = Definition.parse(data["definition"])
            # where relative paths of the YAML start from
            self.start = Path(data["start"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: holds no study ({error}); start one with "
                "`sweep hpopt.yaml --study-folder ...`."
            ) from None
        self.base = BaseYAML.read(self.path / _BASE)

    @classmethod
    def make(cls, path: Path, definition: Definition) -> "StudyFolder":
        """Begin a study, or join one that is the same.

        Arguments
        ---------
        path : Path
            The folder; made if missing.
        definition : Definition
            The search.

        Returns
        -------
        StudyFolder

        Raises
        ------
        InputError
            If the search cannot be, or the study there is another one.
        """
        base = BaseYAML.read(Path(definition.base))
        definition.check(base)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--study-folder: {path} cannot be made ({error.strerror})."
            ) from None
        with alone(path / "claim"):
            if (path / _DEFINITION).is_file():
                there = cls(path)
                there._check_same(definition, base)
                definition = _longer(there.definition, definition)
                start = str(there.start)
            else:
                start = os.getcwd()
                _write(path / _BASE, base.text)
            data = {"definition": definition.plain(), "start": start}
            _write(path / _DEFINITION, json.dumps(data, indent=1, default=str))
        return cls(path)

    @cached_property
    def storage(self) -> BaseStorage:
        """Optuna's."""
        return open_journal(self.path / JOURNAL)

    def open(self) -> tuple[optuna.Study, int]:
        """Optuna's study.

        Returns
        -------
        study : optuna.Study
        study_id : int
            Of the storage.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        objectives = self.definition.objectives
        prune = self.definition.prune
        with alone(self.path / "claim"):
            study = optuna.create_study(
                storage=self.storage,
                study_name=NAME,
                directions=["minimize"] * len(objectives),
                pruner=prune.pruner() if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            if not study.metric_names:
                # Experimental only in name: there since Optuna 3.2.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.set_metric_names([o.label for o in objectives])
        return study, self.storage.get_study_id_from_name(NAME)

    def trial(self, point: int) -> Path:
        """The ``output_folder`` of a point's training."""
        return self.path / "trials" / f"{point:04d}"

    def yaml(self, values: dict[str, Any], output: Path) -> str:
        """The YAML of a training, complete.

        Arguments
        ---------
        values : dict of str to object
            Of the point.
        output : Path
            Its output folder.

        Returns
        -------
        str
        """
        settings = dict(self.definition.overrides)
        for parameter in self.definition.space:
            settings |= parameter.settings(values[parameter.key])
        return self.base.with_values({**settings, OUTPUT: str(output)})

    def _check_same(self, definition: Definition, base: BaseYAML) -> None:
        old, new = self.definition.what_counts(), definition.what_counts()
        other = [key for key in new if new[key] != old[key]]
        if base.text != self.base.text:
            other.append("base (its content)")
        if other:
            raise InputError(
                f"{self.path}: the study there was begun with another "
                f"{', '.join(other)}. Give the same to join it, or choose "
                "another --study-folder."
            )


def _longer(old: Definition, new: Definition) -> Definition:
    return new if new.trials >= old.trials else old


def _write(path: Path, text: str) -> None:
    with whole_file(path) as stream:
        stream.write(text.encode())
