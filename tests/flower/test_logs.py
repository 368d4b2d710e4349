"""Flower's log is quiet also if Flower is imported later, and sets its level then."""

import subprocess
import sys


def test_what_flower_says_below_the_level_is_not_heard():
    code = (
        "import logging\n"
        "from byzflower.flower.logs import quiet\n"
        "quiet(logging.ERROR)\n"
        "import flwr.common\n"
        "log = logging.getLogger('flwr')\n"
        "log.warning('of no account')\n"
        "log.error('of account')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    )
    assert "of account" in done.stderr
    assert "of no account" not in done.stderr
