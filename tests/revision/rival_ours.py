"""What `schema revision` makes of a change: the files that it writes, run on rows."""

from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.revision.author import Written
from schema.revision.decisions import UndecidedError
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import run, upgrade_step
from tests.revision.answers import answers_to
from tests.revision.rival_ground import Case, Ground, Outcome, first_line
from tests.revision.workshop import SCHEMA, Workshop
from tests.snapshot.test_snapshot import Change


def ours(shop: Workshop, ground: Ground, case: Case) -> Outcome:
    """Write the revisions for a change, and run them on a copy of the history with rows."""
    outcome = Outcome()
    try:
        written = _written(shop, case.change, outcome)
        outcome.detected = bool(written.paths)
        with ground.clone(case.history) as url:
            _upgrade(shop, url)
            ground.judge(case, url, outcome)
    except CannotRunError as error:  # a refusal names the difference
        outcome.detected = True
        outcome.operations = [str(error)]
    except Exception as error:  # noqa: BLE001  # a crash is a result
        outcome.crash, outcome.crashes = first_line(error), 1
    finally:
        shop.clear()
    return outcome


def is_alarmed(shop: Workshop, change: Change) -> bool:
    """Whether statements that change no schema lead to a revision."""
    try:
        return bool(_written(shop, change, Outcome()).paths)
    finally:
        shop.clear()


def _written(shop: Workshop, change: Change, outcome: Outcome) -> Written:
    models = f"{SCHEMA}\n{change.sql}"
    try:
        return shop.write(models)
    except UndecidedError as error:
        outcome.asked = True
        return shop.write(models, answers_to(error))


def _upgrade(shop: Workshop, url: URL) -> None:
    directory = shop.scripts()
    names = {path.name for path in shop.written}
    new = [one for one in revisions_oldest_first(directory) if one.path.endswith(tuple(names))]
    with connect(url) as connection:
        run(connection, directory, lambda _: [upgrade_step(directory, one) for one in new])
        connection.commit()
