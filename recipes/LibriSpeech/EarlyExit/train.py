#!/usr/bin/env python3
"""Train and evaluate a multi-exit (early-exit) speech recogniser.

One encoder with a CTC head after every few layers is trained jointly. The
development set then teaches when an utterance may stop, and every exit, every
exit-selection criterion and the policies that the model ships are measured on
the test sets.

> python train.py hparams/conformer_ctc.yaml --data_folder=/path/LibriSpeech

Any key of the YAML can be given on the command line; a single-exit model of
depth 6, for example, is ``--exit_layers=[6]``. SpeechBrain's ``--hpopt`` and
``--hpopt_mode=orion`` report the best validation WER to a search.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import ends_on_interrupt, exits_on_input_error

with ends_on_interrupt():  # importing takes seconds
    import speechbrain as sb
    import torch
    import yaml
    from librispeech_prepare import prepare_librispeech
    from speechbrain.utils import hpopt as hp
    from speechbrain.utils.distributed import if_main_process, run_on_main

    from speechbrain_ee.data.batches import make_datasets, train_loader_options
    from speechbrain_ee.data.corpora import preparation_of, with_corpus
    from speechbrain_ee.data.preparation import (
        dev_set_manifest,
        test_set_manifests,
    )
    from speechbrain_ee.data.shards import write_training_manifest
    from speechbrain_ee.data.tokens import make_tokenizer
    from speechbrain_ee.evaluation.report import (
        console_tables,
        study_options,
        write_report,
    )
    from speechbrain_ee.inference.folder.training_run import (
        choose_default,
        export_training,
    )
    from speechbrain_ee.training.options import (
        check_run_options,
        literal,
        load_options,
        make_output_folder,
        refused_in_one_sentence,
    )


@exits_on_input_error
def main() -> None:
    """Train, and tell a search what came out if one asked for it."""
    arguments = literal(sys.argv[1:])
    if not any(word.startswith("--hpopt") for word in arguments):
        with refused_in_one_sentence():
            parsed = sb.parse_arguments(arguments)
        train(*parsed)
        return
    with hp.hyperparameter_optimization(objective_key="WER") as context:
        with refused_in_one_sentence():
            hparams_file, run_opts, overrides = context.parse_arguments(
                arguments, pass_trial_id=False
            )
        for key in hp.HPOPT_KEYS:
            overrides.pop(key, None)
        train(hparams_file, run_opts, yaml.safe_dump(overrides))


def train(hparams_file: str, run_opts: Any, overrides: str) -> None:
    """Prepare, train, evaluate, report."""
    overrides = with_corpus(hparams_file, overrides)
    hparams = load_options(hparams_file, overrides)
    hparams["valid_csv"] = dev_set_manifest(hparams)
    hparams["test_csv"] = test_set_manifests(hparams)
    run_opts = check_run_options(run_opts, hparams)
    sb.utils.distributed.ddp_init_group(run_opts)
    make_output_folder(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    run_on_main(
        preparation_of(hparams["corpus"], prepare_librispeech),
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["output_folder"],
            "tr_splits": hparams["train_splits"],
            "dev_splits": hparams["dev_splits"],
            "te_splits": hparams["test_splits"],
            "merge_lst": hparams["train_splits"],
            "merge_name": "train.csv",
            "skip_prep": hparams["skip_prep"],
        },
    )
    run_on_main(write_training_manifest, args=[hparams])
    tokenizer = make_tokenizer(hparams)
    frames = hparams["modules"]["model"].encoder.frames
    datasets = make_datasets(hparams, tokenizer, frames)
    study = study_options(hparams, datasets.tests)

    brain = hparams["brain_class"](
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        tokenizer=tokenizer,
    )
    brain.fit(
        hparams["epoch_counter"],
        datasets.train,
        datasets.valid,
        train_loader_kwargs=train_loader_options(hparams, datasets.train),
        valid_loader_kwargs=hparams["valid_dataloader_opts"],
    )

    evaluator = brain.evaluator
    evaluator.learn(
        Path(hparams["valid_csv"]).stem,
        datasets.valid,
        loader_options=hparams["test_dataloader_opts"],
        texts=[row["wrd"] for row in datasets.train.data.values()],
    )
    traces = [
        evaluator.evaluate(
            name, dataset, loader_options=hparams["test_dataloader_opts"]
        )
        for name, dataset in datasets.tests.items()
    ]
    if if_main_process():
        debug = brain.debug and not brain.debug_persistently
        default = choose_default(
            hparams, evaluator.policies, evaluator.dev_trace, debug
        )
        report = write_report(
            traces,
            hparams["report_folder"],
            title=hparams["system_name"],
            extra=evaluator.selection_facts(),
            policies=list(evaluator.policies.values()),
            decoded=evaluator.decoded,
            dev=evaluator.dev_trace,
            default=default,
            **study,
        )
        sys.stdout.write(console_tables(report) + "\n")
        export_training(hparams, debug)
    best = brain.checkpointer.find_checkpoint(min_key="WER")
    # processes other than the main one report nothing
    told = best is not None and if_main_process()
    hp.report_result({"WER": best.meta["WER"]} if told else None)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
