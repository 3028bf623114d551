"""A check in its own process, parallel to the other checks.

It uses a second core. Parallel checks need processes: Alembic keeps its context in a module.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL

from schema.checks.result import CheckResult, Failure
from schema.errors import CannotRunError
from schema.project import own_environment

type Result = Callable[[], tuple[CheckResult, float]]


@contextmanager
def start_check_process(module: str, url: URL) -> Iterator[Result]:
    """Start the module on that database; the yielded function waits for its result and seconds.

    The URL goes through standard input, because `ps` would show the password in an argument.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env=own_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C goes to this program only, which then kills the process
    )

    def result() -> tuple[CheckResult, float]:
        output, errors = process.communicate()
        if process.returncode != 0:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise CannotRunError(f"{module} failed: {last}")
        return _read(json.loads(output))

    try:
        if process.stdin is not None:
            process.stdin.write(url.render_as_string(hide_password=False) + "\n")
            process.stdin.close()
            process.stdin = None  # otherwise communicate() writes to it
        yield result
    finally:
        process.kill()
        process.wait()


def write_result(result: CheckResult, seconds: float) -> None:
    """Write the result for the process that started this one."""
    failures = [vars(failure) for failure in result.failures]
    json.dump({"covered": result.covered, "failures": failures, "seconds": seconds}, sys.stdout)


def _read(document: dict[str, Any]) -> tuple[CheckResult, float]:
    failures = [Failure(**failure) for failure in document["failures"]]
    return CheckResult(document["covered"], failures), document["seconds"]
