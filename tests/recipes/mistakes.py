"""What a user can get wrong, and what the answer must say.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    culprit: str
    way_out: str
    options: tuple[str, ...] = ()
    yaml: str = "hparams/demo.yaml"
    trained: bool = False


CORPUS = "--data_folder=ROOT/corpus"
PREPARED = (CORPUS, "--skip_prep=True", "--valid_csv=ROOT/fine.csv")
TESTED = "--test_csv=[ROOT/fine.csv]"


def manifest(name: str) -> tuple[str, ...]:
    return (*PREPARED, f"--train_csv=ROOT/{name}.csv", TESTED)


MISTAKES = {
    "missing data folder": Mistake(
        "data_folder: /no/such", "pass the one", ("--data_folder=/no/such",)
    ),
    "data folder not given": Mistake(
        "hparams/demo.yaml: ", "--data_folder=/path/to/LibriSpeech"
    ),
    "wrong layout": Mistake(
        "data_folder: ROOT/flat/train-clean",
        "<speaker>-<chapter>.trans.txt",
        ("--data_folder=ROOT/flat",),
    ),
    "unknown split": Mistake(
        "data_folder: ROOT/corpus has no split 'train-dirty'",
        "the splits there are",
        (CORPUS, "--train_splits=[train-dirty]"),
    ),
    "nothing but zero-length audio": Mistake(
        "data_folder: nothing of the split train-clean",
        "mend the files",
        ("--data_folder=ROOT/silent",),
    ),
    "no file, not prepared": Mistake(
        "ROOT/gone.csv: the audio of 100-1-0000, ROOT/bad/gone.wav, does not",
        "Mend the manifest",
        manifest("gone"),
    ),
    "NaN samples, not prepared": Mistake(
        "ROOT/bad/nan.wav: holds samples that are not finite",
        "repair",
        manifest("nan"),
    ),
    "manifest without a column": Mistake(
        "ROOT/column.csv: the column wrd is missing",
        "ID,duration,wav,wrd",
        manifest("column"),
    ),
    "more tokens than can be": Mistake(
        "output_neurons: 900",
        "another number",
        (CORPUS, "--output_neurons=900"),
    ),
    "unknown option": Mistake(
        "--exit_layer: hparams/demo.yaml has no such option",
        "Did you mean exit_layers?",
        (CORPUS, "--exit_layer=[2]"),
    ),
    "unknown option in the YAML": Mistake(
        "ROOT/unknown.yaml: the option `exit_layer` is unknown",
        "Did you mean exit_layers?",
        (CORPUS,),
        "ROOT/unknown.yaml",
    ),
    "YAML that is none": Mistake(
        "ROOT/broken.yaml: cannot be loaded",
        "Check the values",
        (CORPUS,),
        "ROOT/broken.yaml",
    ),
    "no YAML": Mistake(
        "hparams/demos.yaml: this YAML cannot be read",
        "lie in hparams/",
        (CORPUS,),
        "hparams/demos.yaml",
    ),
    "impossible exit": Mistake(
        "exit_layers: [9]", "between 1 and 6", (CORPUS, "--exit_layers=[9]")
    ),
    "heads that do not divide the width": Mistake(
        "hparams/demo.yaml: cannot be loaded",
        "divisible",
        (CORPUS, "--nhead=3"),
    ),
    "unknown checkpoint rule": Mistake(
        "checkpoint_rule: 'newest'",
        "last_exit, mean_of_exits, best_exit",
        (CORPUS, "--checkpoint_rule=newest"),
    ),
    "too few weights": Mistake(
        "exit_weights: [1.0, 1.0] must hold 3",
        "one per entry of exit_layers",
        (CORPUS, "--exit_weights=[1,1]"),
    ),
    "budget below the first exit": Mistake(
        "exit_budget: layers=0.5 is less than the first exit takes",
        "layers=1",
        (CORPUS, "--exit_budget=layers=0.5"),
    ),
    "dynamic batching misspelt": Mistake(
        "dynamic_batching: ",
        "max_batch_length",
        (CORPUS, "--dynamic_batching={max_length: 3}"),
    ),
    "output below a file": Mistake(
        "output_folder: ROOT/fine.csv/out cannot be written",
        "--output_folder=...",
        (CORPUS, "--output_folder=ROOT/fine.csv/out"),
    ),
    "another vocabulary than the checkpoint's": Mistake(
        "ROOT/trained/save: its checkpoints do not fit this model",
        "new output_folder",
        (CORPUS, "--output_neurons=30"),
        trained=True,
    ),
    "other exits than the checkpoint's, as many": Mistake(
        "ROOT/trained/save: its checkpoints do not fit this model: "
        "model.heads.exit_layers is [1, 4, 6], but was [1, 3, 6]",
        "new output_folder",
        (CORPUS, "--exit_layers=[1,4,6]"),
        trained=True,
    ),
    "other attention heads than the checkpoint's": Mistake(
        "ROOT/trained/save: its checkpoints do not fit this model: "
        "model.encoder.stack.nhead is 4, but was 2",
        "new output_folder",
        (CORPUS, "--nhead=4"),
        trained=True,
    ),
}
DEFAULTS = {"--exit_layers": "[1,3,6]", "--number_of_epochs": "1"}
