"""Try changed models before they are written: another process builds a database from a copy."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL, make_url

from schema.better_auth import found
from schema.better_auth.differences import ADDED, compare
from schema.better_auth.needs import Needs, parse
from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error
from schema.postgres.scratch import Server
from schema.project import ROOT


def lacking(server: Server, needs: Needs, files: Mapping[Path, str]) -> list[str]:
    """Return what Better Auth lacks in a database built from the models with these texts.

    Raises:
        CannotRunError: the models cannot be imported, or build no schema.

    """
    with (
        tempfile.TemporaryDirectory(prefix="schema-better-auth-") as folder,
        server.database() as url,
    ):
        copied = Path(folder, "models")
        shutil.copytree(ROOT / "models", copied, ignore=shutil.ignore_patterns("__pycache__"))
        for path, text in files.items():
            (copied / path.name).write_text(text, encoding="utf-8")
        search = os.pathsep.join((folder, str(ROOT / "scripts"), str(ROOT)))
        done = subprocess.run(
            [sys.executable, "-P", "-B", "-m", "schema.better_auth.trial"],
            input=json.dumps([url.render_as_string(hide_password=False), needs.document]),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": search},
        )
    if done.returncode != 0:
        raise CannotRunError(f"The models with these additions fail: {done.stderr.strip()}.")
    sentences: list[str] = json.loads(done.stdout)
    return sentences


def create(empty: URL) -> None:
    """Build the schema of the models in an empty database."""
    from models import metadata  # noqa: PLC0415  # the models may be what is broken

    with connect(empty) as connection:
        metadata.create_all(connection)
        connection.commit()


def main() -> None:
    """Build the models' schema in the database that standard input names, and compare it."""
    url, document = json.load(sys.stdin)
    database = make_url(url)
    try:
        create(database)
    except Exception as error:  # noqa: BLE001  # a model may raise whatever it likes
        sys.exit(describe_error(error))
    needs = parse(document)
    differences = compare(needs, found.read(database), found.declared())
    print(json.dumps([one.sentence for one in differences if one.kind in ADDED]))  # noqa: T201  # the answer


if __name__ == "__main__":
    main()
