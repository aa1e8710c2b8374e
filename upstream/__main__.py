"""Command line: ``python -m upstream OUT``.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import sys
from pathlib import Path

from speechbrain_ee.errors import exits_on_input_error
from upstream.assemble import assemble
from upstream.gates import check_tree

logger = logging.getLogger("upstream")


@exits_on_input_error
def main() -> None:
    """Assemble the tree, and check it if that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m upstream",
        description="Write the contribution as files of a SpeechBrain checkout",
    )
    parser.add_argument(
        "out", type=Path, help="folder to be made; OUT/speechbrain is the tree"
    )
    parser.add_argument(
        "--check", action="store_true", help="run SpeechBrain's gates over it"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    assembled = assemble(arguments.out)
    for name, reason in assembled.left_out.items():
        logger.info("left out: %s (%s)", name, reason)
    logger.info("%d files in %s", len(assembled.files), assembled.root)
    if arguments.check:
        problems = check_tree(assembled.root)
        for problem in problems:
            logger.error("%s", problem)
        logger.info("%d problems found by SpeechBrain's gates", len(problems))
        if problems:
            sys.exit(1)


if __name__ == "__main__":
    main()
