"""The `schema` command and what it is made of; CONTRIBUTING.md says what belongs where."""

import time

STARTED = time.perf_counter()
"""When this process began, but for the interpreter's own start: what a person waits from."""
