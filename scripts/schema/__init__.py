"""The `schema` command and what it is made of; CONTRIBUTING.md says what belongs where."""

import time

STARTED = time.perf_counter()
"""When this process began, without the interpreter's own start; `seconds` count from here."""
