"""A check in a process of its own, beside the others.

It uses the second core, and shares no state with Alembic, which keeps its context in a module.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL

from schema.checks.result import CheckResult, Failure
from schema.errors import CannotRunError
from schema.project import ROOT

type Result = Callable[[], tuple[CheckResult, float]]


@contextmanager
def start_check_process(module: str, url: URL) -> Iterator[Result]:
    """Start the module on that database; the function that is yielded waits for its outcome.

    The URL goes in by standard input, where no list of processes shows its password.
    """
    # The other process runs this checkout's code, whatever the working folder holds, and whatever
    # else is installed.
    path = os.pathsep.join(map(str, (ROOT / "scripts", ROOT, os.environ.get("PYTHONPATH", ""))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this program; it then ends the other
    )

    def result() -> tuple[CheckResult, float]:
        output, errors = process.communicate()
        if process.returncode != 0:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise CannotRunError(f"{module} ended before it was done: {last}")
        return _read(json.loads(output))

    try:
        if process.stdin is not None:
            process.stdin.write(url.render_as_string(hide_password=False) + "\n")
            process.stdin.close()
            process.stdin = None  # or communicate() would write to it
        yield result
    finally:
        process.kill()
        process.wait()


def write_result(outcome: CheckResult, seconds: float) -> None:
    """Hand the outcome to the process that started this one."""
    failures = [vars(failure) for failure in outcome.failures]
    json.dump({"covered": outcome.covered, "failures": failures, "seconds": seconds}, sys.stdout)


def _read(document: dict[str, Any]) -> tuple[CheckResult, float]:
    failures = [Failure(**failure) for failure in document["failures"]]
    return CheckResult(document["covered"], failures), document["seconds"]
