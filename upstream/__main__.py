"""Command line: ``python -m upstream OUT``.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import sys
from pathlib import Path

from speechbrain_ee.errors import exits_on_input_error
from upstream.checkout import write
from upstream.gates import check_tree

logger = logging.getLogger("upstream")


@exits_on_input_error
def main() -> None:
    """Write the contribution, and check it if that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m upstream",
        description="Write the contribution to SpeechBrain",
    )
    parser.add_argument(
        "out", type=Path, help="a SpeechBrain checkout, or a folder to be made"
    )
    parser.add_argument(
        "--check", action="store_true", help="run SpeechBrain's gates over it"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = write(arguments.out)
    logger.info("%d files in %s", len(names), arguments.out)
    if arguments.check:
        problems = check_tree(arguments.out, names)
        for problem in problems:
            logger.error("%s", problem)
        logger.info("%d problems found by SpeechBrain's gates", len(problems))
        if problems:
            sys.exit(1)


if __name__ == "__main__":
    main()
