"""Workers as processes of this machine, or as jobs of a cluster.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.study import StudyFolder
from speechbrain_ee.sweeps.training_run import leashed
from speechbrain_ee.sweeps.worker import join

LAUNCHERS = ("local", "submitit")


def launch_local(
    folder: StudyFolder,
    workers: int,
    run_options: Sequence[str],
    devices: Sequence[str] = (),
) -> None:
    """Run workers here until the study is finished.

    Arguments
    ---------
    folder : StudyFolder
        The study.
    workers : int
        How many.
    run_options : sequence of str
        Further arguments of the training script.
    devices : sequence of str
        GPUs, dealt out in turn; empty: as the environment says.
    """
    command = [sys.executable, "-m", "speechbrain_ee.sweeps.worker"]
    processes = []
    for number in range(workers):
        environment = dict(os.environ)
        if devices:
            device = devices[number % len(devices)]
            environment["CUDA_VISIBLE_DEVICES"] = device
        processes.append(
            subprocess.Popen(
                leashed([*command, str(folder.path), *run_options]),
                env=environment,
            )
        )
    _await(processes)


def launch_submitit(
    folder: StudyFolder, workers: int, run_options: Sequence[str]
) -> list[str]:
    """Submit workers as a job array; the study goes on without us.

    Arguments
    ---------
    folder : StudyFolder
        The study, with the parameters of submitit in ``launcher``.
    workers : int
        How many.
    run_options : sequence of str
        Further arguments of the training script.

    Returns
    -------
    list of str
        Numbers of the jobs.

    Raises
    ------
    InputError
        If submitit is missing or refuses the parameters.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "--launcher submitit: the package submitit is not installed; "
            "pip install submitit, or submit hparams/sweeps/slurm_array.sh."
        ) from None
    executor = submitit.AutoExecutor(folder=str(folder.path / "submitit"))
    try:
        executor.update_parameters(**folder.definition.launcher)
    except (TypeError, ValueError, NameError) as error:
        raise InputError(f"launcher: submitit refuses it: {error}.") from None
    jobs = executor.map_array(
        join,
        [str(folder.path)] * workers,
        [list(run_options)] * workers,
        [False] * workers,
    )
    return [str(job.job_id) for job in jobs]


def _await(processes: Sequence[subprocess.Popen]) -> None:
    """Wait for all; pass on a request to stop."""
    asked = threading.Event()

    def stop(*_: object) -> None:
        asked.set()
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        for process in processes:
            process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
