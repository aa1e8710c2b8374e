#!/usr/bin/env python3
"""Recipe for training an early-exit CTC system with LibriSpeech.

One encoder with a CTC head (an exit) after every few layers is trained jointly.
Every test set is then decoded once at full depth. From what the exits say, WER
and depth are computed of every exit and of every threshold of every criterion
by which an utterance may stop early.

To run this recipe, do the following:
> python train.py hparams/conformer_ctc.yaml --data_folder=/path/to/LibriSpeech

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import gzip
import json
import sys
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.lobes.models.early_exit import (
    CRITERIA,
    cross_entropy,
    entropy,
    exit_scores,
    max_prob,
)
from speechbrain.tokenizers.SentencePiece import SentencePiece
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

LAGS = (1, 2)  # exits that patience compares an exit with
THRESHOLDS = 20  # of every criterion, at equal shares of its scores


# Define training procedure
class ASR(sb.Brain):
    """Joint training of all exits."""

    def compute_forward(self, batch, stage):
        """Waveforms to the outputs of all exits."""
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        if stage == sb.Stage.TRAIN and hasattr(self.hparams, "wav_augment"):
            wavs, wav_lens = self.hparams.wav_augment(wavs, wav_lens)
        return self.modules.model(wavs, wav_lens)

    def compute_objectives(self, outputs, batch, stage):
        """The weighted sum of the exits' CTC losses."""
        tokens, token_lens = batch.tokens
        if stage == sb.Stage.TRAIN and hasattr(self.hparams, "wav_augment"):
            tokens, token_lens = (
                self.hparams.wav_augment.replicate_multiple_labels(
                    tokens, token_lens
                )
            )
        losses = [
            self.hparams.ctc_cost(
                output.log_probs, tokens, output.relative_lengths, token_lens
            )
            for output in outputs
        ]
        weights = self.hparams.exit_weights or [1.0] * len(losses)
        loss = sum(w * loss for w, loss in zip(weights, losses))
        if stage != sb.Stage.TRAIN:
            self.append_words(batch, outputs)
        if stage == sb.Stage.TEST:
            self.append_scores(batch, outputs)
        return loss

    def append_words(self, batch, outputs):
        """Adds what the exits recognise to their error rates."""
        pieces = self.tokenizer.sp.get_piece_size()
        target = [words.split() for words in batch.wrd]
        for metric, output in zip(self.wer_metrics, outputs):
            found = ctc_greedy_decode(
                output.log_probs,
                output.relative_lengths,
                blank_id=self.hparams.blank_index,
            )
            # A vocabulary of characters may be smaller than the model's.
            found = [[t for t in tokens if t < pieces] for tokens in found]
            texts = [self.tokenizer.sp.decode_ids(tokens) for tokens in found]
            metric.append(batch.id, [text.split() for text in texts], target)

    def append_scores(self, batch, outputs):
        """Keeps how sure the exits are, and which scores that gives."""
        measured, scores = [], {name: [] for name in CRITERIA}
        for k, output in enumerate(outputs):
            evidence = {
                "entropy": entropy(output),
                "max_prob": max_prob(output),
            }
            for lag in LAGS:
                if lag <= k:
                    value = cross_entropy(output, outputs[k - lag])
                    evidence[f"cross_entropy_{lag}"] = value
            measured.append({n: v.tolist() for n, v in evidence.items()})
            for name in CRITERIA:
                score = exit_scores(name, outputs[: k + 1])
                scores[name].append(score.double().cpu())
        for name in CRITERIA:
            self.scores[name].append(torch.stack(scores[name], dim=1))
        samples = (batch.sig.lengths * batch.sig.data.shape[1]).round()
        for row, words in enumerate(batch.wrd):
            exits = [{"layer": output.layer} for output in outputs]
            for exit, evidence in zip(exits, measured):
                exit["evidence"] = {n: v[row] for n, v in evidence.items()}
            seconds = samples[row].item() / self.hparams.sample_rate
            self.measured.append(
                {
                    "id": batch.id[row],
                    "ref": words,
                    "duration_s": seconds,
                    "speaker": batch.spk_id[row],
                    "exits": exits,
                }
            )

    def init_optimizers(self):
        """One optimizer, or a second one for a pre-trained encoder."""
        self.schedules = {"opt_class": self.hparams.lr_annealing}
        if not hasattr(self.hparams, "encoder_opt_class"):
            super().init_optimizers()
            return
        encoder, heads = self.hparams.model.encoder, self.hparams.model.heads
        learned = [p for p in encoder.parameters() if p.requires_grad]
        encoder_optimizer = self.hparams.encoder_opt_class(learned)
        self.optimizer = self.opt_class(heads.parameters())
        self.optimizers_dict = {
            "opt_class": self.optimizer,
            "encoder_opt_class": encoder_optimizer,
        }
        self.schedules["encoder_opt_class"] = self.hparams.encoder_lr_annealing
        self.checkpointer.add_recoverable("optimizer", self.optimizer)
        self.checkpointer.add_recoverable(
            "encoder_optimizer", encoder_optimizer
        )

    def on_fit_start(self):
        """Fits the schedules to the length of the run."""
        super().on_fit_start()
        total = max(1, self.hparams.number_of_epochs * self.steps_per_epoch)
        self.schedules = {
            name: schedule(
                total_steps=total,
                warmup=max(1, round(self.hparams.warmup_share * total)),
                cooldown=max(1, round(self.hparams.cooldown_share * total)),
            )
            for name, schedule in self.schedules.items()
        }

    def on_fit_batch_start(self, batch, should_step):
        """Sets the learning rates of the coming step."""
        if should_step:
            for name, schedule in self.schedules.items():
                schedule(self.optimizers_dict[name], self.optimizer_step + 1)

    def on_stage_start(self, stage, epoch=None):
        """Empties the metrics."""
        layers = self.hparams.exit_layers
        if stage != sb.Stage.TRAIN:
            self.wer_metrics = [self.hparams.error_rate() for _ in layers]
        if stage == sb.Stage.TEST:
            self.measured, self.scores = [], {name: [] for name in CRITERIA}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs loss and error rates; after validation saves a checkpoint."""
        stats = {"loss": float(stage_loss)}
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
            return
        for layer, metric in zip(self.hparams.exit_layers, self.wer_metrics):
            stats[f"WER L{layer}"] = metric.summarize("error_rate")
        wer = self.wer_metrics[-1].summarize("error_rate")
        if stage == sb.Stage.VALID:
            self.hparams.train_logger.log_stats(
                stats_meta={
                    "epoch": epoch,
                    "lr": self.optimizer.param_groups[0]["lr"],
                },
                train_stats=self.train_stats,
                valid_stats=stats,
            )
            self.checkpointer.save_and_keep_only(
                meta={"WER": wer, "epoch": epoch},
                min_keys=["WER"],
                num_to_keep=self.hparams.keep_checkpoints,
            )
        elif stage == sb.Stage.TEST:
            self.hparams.train_logger.log_stats(
                stats_meta={"Epoch loaded": self.hparams.epoch_counter.current},
                test_stats=stats,
            )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the average of the best checkpoints."""
        checkpoints = self.checkpointer.find_checkpoints(
            max_key=max_key,
            min_key=min_key,
            max_num_checkpoints=self.hparams.average_checkpoints,
        )
        if not checkpoints:
            logger.warning("No checkpoint: the model as it is is evaluated.")
            return
        weights = sb.utils.checkpoints.average_checkpoints(
            checkpoints, recoverable_name="model"
        )
        self.hparams.model.load_state_dict(weights, strict=True)

    def evaluate_exits(self, name, test_set, loader_options):
        """Evaluates a set; writes its alignments, trace, and rows of a table.

        The table, ``exits.csv``, is also logged.
        """
        self.evaluate(
            test_set, min_key="WER", test_loader_kwargs=loader_options
        )
        if not if_main_process():
            return
        folder = Path(self.hparams.output_folder)
        with open(folder / f"wer_{name}.txt", "w", encoding="utf-8") as stream:
            self.wer_metrics[-1].write_stats(stream)
        self.write_trace(folder / "traces" / f"{name}.jsonl.gz", name)
        self.table += [{"set": name, **r} for r in self.operating_points()]
        with open(folder / "exits.csv", "w", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self.table[0]))
            writer.writeheader()
            writer.writerows(self.table)

    def operating_points(self):
        """WER and mean layer of every exit and of every threshold.

        The threshold of ``fixed`` is the number of the exit.
        """
        errors = torch.tensor(
            [
                [score["num_edits"] for score in metric.scores]
                for metric in self.wer_metrics
            ]
        ).t()
        words = sum(
            score["num_ref_tokens"] for score in self.wer_metrics[0].scores
        )
        layers = torch.tensor(self.hparams.exit_layers, dtype=torch.float64)
        exits = torch.arange(1, len(layers) + 1).double().expand(errors.shape)
        scores = {n: torch.cat(rows) for n, rows in self.scores.items()}
        rows = []
        for name, score in {"fixed": exits, **scores}.items():
            early = score[:, :-1].flatten()
            early = early[early.isfinite()]
            if name == "fixed":
                thresholds = exits[0]
            elif len(early):
                shares = torch.linspace(0, 1, THRESHOLDS + 1).double()
                thresholds = early.quantile(shares).unique()
            else:
                continue
            for threshold in thresholds.tolist():
                stop = score >= threshold
                stop[:, -1] = True
                chosen = stop.int().argmax(dim=1)
                found = errors.gather(1, chosen.unsqueeze(1)).sum().item()
                rows.append(
                    {
                        "criterion": name,
                        "threshold": threshold,
                        "mean_layer": round(layers[chosen].mean().item(), 3),
                        "WER": round(100 * found / max(words, 1), 2),
                    }
                )
        return rows

    def write_trace(self, path, name):
        """Writes what every exit made of every utterance, as JSON Lines."""
        lines = [
            {
                "schema": "exit-trace/1",
                "name": self.hparams.system_name,
                "decoding": "greedy",
                "exit_layers": list(self.hparams.exit_layers),
                "vocab_size": self.hparams.output_neurons,
            }
        ]
        for place, utterance in enumerate(self.measured):
            for exit, metric in zip(utterance["exits"], self.wer_metrics):
                score = metric.scores[place]
                exit["hyp"] = " ".join(score["hyp_tokens"])
                exit["errors"] = score["num_edits"]
            lines.append({"set": name, **utterance})
        path.parent.mkdir(exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as stream:
            for line in lines:
                stream.write(json.dumps(line) + "\n")


def dataio_prepare(hparams, tokenizer):
    """Datasets, those of the test by name, and the training loader's options."""
    replacements = {"data_root": hparams["data_folder"]}

    def read(path):
        """A dataset, the longest utterance first."""
        return sb.dataio.dataset.DynamicItemDataset.from_csv(
            csv_path=path, replacements=replacements
        )

    train_data = read(hparams["train_csv"])
    valid_data = read(hparams["valid_csv"])
    valid_data = valid_data.filtered_sorted(sort_key="duration", reverse=True)
    test_datasets = {
        Path(path).stem: read(path).filtered_sorted(
            sort_key="duration", reverse=True
        )
        for path in hparams["test_csv"]
    }
    datasets = [train_data, valid_data, *test_datasets.values()]

    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio_pipeline(wav):
        """Reads the audio."""
        return sb.dataio.dataio.read_audio(wav)

    sb.dataio.dataset.add_dynamic_item(datasets, audio_pipeline)

    @sb.utils.data_pipeline.takes("wrd")
    @sb.utils.data_pipeline.provides("tokens")
    def text_pipeline(wrd):
        """Encodes the transcript."""
        return torch.LongTensor(tokenizer.sp.encode_as_ids(wrd))

    sb.dataio.dataset.add_dynamic_item(datasets, text_pipeline)
    sb.dataio.dataset.set_output_keys(
        datasets, ["id", "sig", "wrd", "tokens", "spk_id"]
    )

    train_loader = dict(hparams["train_dataloader_opts"])
    if hparams["dynamic_batching"]:
        train_loader["batch_sampler"] = sb.dataio.sampler.DynamicBatchSampler(
            train_data,
            length_func=lambda row: float(row["duration"]),
            seed=hparams["seed"],
            **hparams["dynamic_batch_sampler"],
        )
    return train_data, valid_data, test_datasets, train_loader


if __name__ == "__main__":
    # CLI:
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])

    # create ddp_group with the right communication protocol
    sb.utils.distributed.ddp_init_group(run_opts)

    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)

    # Create experiment directory
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Dataset prep (parsing Librispeech)
    from librispeech_prepare import prepare_librispeech  # noqa

    run_on_main(
        prepare_librispeech,
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

    # Defining tokenizer and loading it
    tokenizer = SentencePiece(
        model_dir=hparams["save_folder"],
        vocab_size=hparams["output_neurons"],
        annotation_train=hparams["train_csv"],
        annotation_read="wrd",
        model_type=hparams["token_type"],
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
    )

    # here we create the datasets objects as well as tokenization and encoding
    train_data, valid_data, test_datasets, train_loader = dataio_prepare(
        hparams, tokenizer
    )

    # Trainer initialization
    asr_brain = ASR(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    asr_brain.tokenizer = tokenizer
    train_loader = asr_brain.make_dataloader(
        train_data, stage=sb.Stage.TRAIN, **train_loader
    )
    asr_brain.steps_per_epoch = (
        len(train_loader) // asr_brain.grad_accumulation_factor
    )

    # Training
    asr_brain.fit(
        hparams["epoch_counter"],
        train_loader,
        valid_data,
        valid_loader_kwargs=hparams["valid_dataloader_opts"],
    )

    # Testing; the development set is for choosing thresholds
    asr_brain.table = []
    valid_name = Path(hparams["valid_csv"]).stem
    for name, dataset in {valid_name: valid_data, **test_datasets}.items():
        asr_brain.evaluate_exits(name, dataset, hparams["test_dataloader_opts"])
    columns = "{set:12} {criterion:10} {threshold:12.6g} {mean_layer:6} {WER}"
    lines = [columns.format(**row) for row in asr_brain.table]
    logger.info(
        "Set, criterion, threshold, mean layer, WER:\n" + "\n".join(lines)
    )
