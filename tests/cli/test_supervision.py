"""A part of a command runs in a process of its own: its status comes back, its end is told."""

import subprocess
import sys

CODE = """
import argparse, os
from cnnsvm.cli.supervision import supervised

def wrong():
    raise ValueError("a wrong value")

actions = [
    lambda: 2,
    wrong,
    lambda: {}["key"],
    lambda: os._exit(1),
    lambda: os.kill(os.getpid(), 9),
]
for action in actions:
    try:
        print(supervised(action, argparse.Namespace(subcommand="predict", flags={})))
    except ConnectionError as error:
        print(str(error)[:15])
"""


def test_what_became_of_the_child_is_told():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["2", "3", "70", "the part of Ray", "the part of Ray"]
    said = run.stderr.splitlines()
    assert said[0] == "cnnsvm predict: a wrong value"
    assert said[-1] == "KeyError: 'key'"
