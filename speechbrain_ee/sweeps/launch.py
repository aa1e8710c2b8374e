"""Workers as processes of this machine, or as jobs of a cluster.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.study import StudyFolder
from speechbrain_ee.sweeps.training_run import leashed
from speechbrain_ee.sweeps.worker import join, told_to_stop

LAUNCHERS = ("local", "submitit")


def launch_local(
    folder: StudyFolder,
    workers: int,
    run_options: Sequence[str],
    devices: Sequence[str] = (),
) -> bool:
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

    Returns
    -------
    bool
        False if the workers were told to stop.

    Raises
    ------
    InputError
        If none of them came to its end.
    KeyboardInterrupt
        After Ctrl-C, once they have left.
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
    with told_to_stop(partial(_pass_on, processes)) as stop:
        statuses = [process.wait() for process in processes]
    if all(statuses) and not stop.is_set():
        raise InputError(
            f"sweep: all {workers} workers died (exit status "
            f"{', '.join(map(str, statuses))}); what they said is above. The "
            "same command goes on with the points that are left."
        )
    return not stop.is_set()


def _pass_on(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


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
