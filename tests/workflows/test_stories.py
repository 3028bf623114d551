"""Five stories of the workflows, by their own commands, in their order, with their environment.

The theory: the commands and variables of the workflow files do what the workflows are for. A pull
request is opened, pushed to and closed; one comes from a fork; one fails; one is merged and
deployed; a night finds drift. Neon and GitHub are stand-ins; everything else is what runs there.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schema.branch.branches import PREFIX
from schema.github.comment import MARKER
from schema.postgres.connection import connect
from schema.project import ROOT
from tests.branch.conftest import KEY, neon, project, scalar, url_of
from tests.branch.stand_in.server import StandIn
from tests.branch.stand_in.state import PROJECT
from tests.support.changes import CHANGES
from tests.support.github import REPOSITORY, GitHub, github
from tests.support.repo_copy import Checkout, copy_to, sql
from tests.support.workflows import Done, evaluate, run_steps, workflow

__all__ = ["neon", "project"]

pytestmark = pytest.mark.slow

NUMBER = 12
OWNER = "stranger"


@dataclass
class Repository:
    """A clone with a branch, and what surrounds its jobs."""

    copy: Checkout
    neon: StandIn
    hub: GitHub

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        done = subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments],
            cwd=self.copy.root,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def push(self) -> str:
        """Commit everything, as the pull request's head, and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-qm", "Change something", "--allow-empty")
        head = self.git("rev-parse", "HEAD")
        self.hub.pull_requests[NUMBER] = {
            "number": NUMBER,
            "state": "open",
            "head": {"sha": head, "label": f"{OWNER}:change"},
        }
        return head

    @property
    def environment(self) -> dict[str, str]:
        """What the runner gives every step."""
        own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return own | {
            "PYTHONPATH": f"{self.copy.root / 'scripts'}:{self.copy.root}",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_API_URL": self.hub.address,
            "NEON_API_URL": self.neon.address,
        }

    @property
    def values(self) -> dict[str, str]:
        """What the expressions of the workflow files are worth."""
        production = url_of(self.neon.state.main).set(drivername="postgresql")
        return {
            "github.event.pull_request.number": str(NUMBER),
            "github.event.workflow_run.head_sha": self.git("rev-parse", "HEAD"),
            "github.event.workflow_run.head_branch": "change",
            "github.event.workflow_run.head_repository.owner.login": OWNER,
            "github.event.pull_request.head.sha": self.git("rev-parse", "HEAD"),
            "github.token": "a-token",
            "vars.NEON_REVIEW_PARENT": "main",
            "vars.NEON_PRODUCTION_BRANCH": "main",
            "vars.NEON_PROJECT_ID": PROJECT,
            "vars.NEON_PROJECT_ID != ''": "true",
            "secrets.NEON_API_KEY": KEY,
            "secrets.DATABASE_URL": production.render_as_string(hide_password=False),
            "secrets.url": "",
        }

    def job(self, name: str, job: str, **values: str) -> tuple[list[Done], dict[str, str]]:
        """Run a job's commands, and assert that none shows the key."""
        given = self.values | values
        done, outputs = run_steps(name, job, given, self.copy.root, self.environment)
        for one in done:
            shown = [line for line in one.err.splitlines() if not line.startswith("::add-mask::")]
            assert KEY not in one.out + "\n".join(shown)
        return done, outputs

    def review(self) -> tuple[list[Done], str]:
        """Run the jobs of review.yml; return them, and the comment."""
        made, outputs = self.job("review", "branch")
        assert [one.code for one in made] == [0], made
        called = workflow("review")["jobs"]["review"]["secrets"]["url"]
        url = evaluate(called, {"needs.branch.outputs.url": outputs["url"]})
        ran, _ = self.job("review-run", "run", **{"secrets.url": url})
        return [*made, *ran], self.comment("review")

    def comment(self, file: str) -> str:
        """Run a workflow's job that comments on the page, and return the only comment."""
        page = self.copy.root / "page"
        shutil.rmtree(page, ignore_errors=True)
        page.mkdir()
        if (made := self.copy.root / "review.md").exists():
            shutil.copy(made, page)
        done, _ = self.job(file, "comment")
        assert [one.code for one in done] == [0], done
        (comment,) = self.hub.comments[NUMBER]
        return str(comment["body"])


@pytest.fixture
def hub() -> Iterator[GitHub]:
    """A stand-in for GitHub."""
    with github() as started:
        yield started


@pytest.fixture
def repository(tmp_path: Path, neon: StandIn, hub: GitHub) -> Repository:
    """A clone of this checkout whose origin has main, on a branch of its own."""
    copy = copy_to(tmp_path / "checkout")
    (copy.root / ".venv").mkdir()
    (copy.root / ".venv" / "bin").symlink_to(ROOT / ".venv" / "bin")
    (copy.root / ".gitignore").write_text(".venv\nreview.md\npage\ndrift.json\n.output\n")
    found = Repository(copy, neon, hub)
    found.git("init", "-q", "--initial-branch=main")
    found.git("add", "-A")
    found.git("commit", "-qm", "Begin")
    found.git("update-ref", "refs/remotes/origin/main", "HEAD")
    found.git("checkout", "-qb", "change")
    return found


def change(repository: Repository) -> None:
    """Add a column, as an author does: the model, the revision, and what follows from them."""
    (column,) = (one for one in CHANGES if one.name == "nullable column")
    column.apply(repository.copy, formatted=True)
    write_files(repository)


def write_files(repository: Repository) -> None:
    """Write the generated files anew: without them a deploy is not what was reviewed."""
    done = subprocess.run(
        [".venv/bin/schema", "snapshot"],
        cwd=repository.copy.root,
        env=repository.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_opened_pushed_to_and_closed(repository: Repository) -> None:
    """Each push runs on the parent's state; one comment is kept up to date; the branch goes."""
    change(repository)
    repository.push()
    done, comment = repository.review()
    assert "the given database's rows: " in comment, done
    for words in ("upgrade of a0b1c2d3e4f5", "downgrade of a0b1c2d3e4f5", "exact"):
        assert words in comment, comment
    assert comment.startswith(f"{MARKER}\n<sub>"), comment
    assert "\n### ✓ " in comment
    assert "+     column added  bigint" in comment, comment
    made = repository.neon.state.named(f"{PREFIX}pr-{NUMBER}")
    assert made is not None
    assert made.password not in comment
    assert made.password != repository.neon.state.main.password
    (repository.copy.root / "review.md").unlink()
    assert "The review could not run" in repository.comment("review")
    head = repository.push()
    _, comment = repository.review()
    assert head[:12] in comment
    repository.hub.pull_requests[NUMBER]["state"] = "closed"  # while the branch is made
    late, _ = repository.job("review", "branch")
    assert (late[0].code, "is closed" in late[0].err) == (2, True), late
    assert repository.neon.state.named(f"{PREFIX}pr-{NUMBER}") is None
    repository.hub.pull_requests[NUMBER]["state"] = "open"
    repository.job("review", "branch")
    closed, _ = repository.job("clean-up", "delete")
    assert [one.code for one in closed] == [0], closed
    assert repository.neon.state.named(f"{PREFIX}pr-{NUMBER}") is None


def test_from_a_fork(repository: Repository) -> None:
    """Without a secret the page is made on generated rows, and says so."""
    change(repository)
    repository.push()
    called = workflow("review")["jobs"]["without-a-secret"]
    assert "secrets" not in called
    assert called["uses"] == workflow("review")["jobs"]["review"]["uses"]
    repository.job("review-run", "run")
    assert "generated rows: " in repository.comment("comment")
    assert len(repository.neon.state.branches) == 1


def test_a_migration_that_fails(repository: Repository) -> None:
    """The job fails, and the comment says what failed."""
    repository.copy.add(sql("CREATE INDEX ON todo (no_such)"), sql("SELECT 1"))
    repository.push()
    done, comment = repository.review()
    assert done[-1].code == 1
    assert "### ✗ Blocked: the upgrade of a0b1c2d3e4f5 fails" in comment
    assert 'column "no_such" does not exist' in comment


def test_merged_and_deployed(repository: Repository) -> None:
    """A restore point, the upgrade, no drift; a revision that fails says what to do."""
    change(repository)
    main = repository.neon.state.main
    try:
        done, _ = repository.job("deploy", "deploy")
        assert [one.code for one in done] == [0, 0, 0], done
        again, _ = repository.job("deploy", "deploy")
        assert "there is nothing to go back from" in again[0].out
        points = [one for one in repository.neon.state.branches.values() if one is not main]
        assert [one.endpoint for one in points] == [None]
        assert scalar(url_of(main), "SELECT version_num FROM alembic_version") == "a0b1c2d3e4f5"
        # It builds on an empty database, and fails on rows.
        repository.copy.add(
            sql("ALTER TABLE todo ADD CONSTRAINT todo_one CHECK (title = 'one')"),
            sql("ALTER TABLE todo DROP CONSTRAINT todo_one"),
            revision="b0b1c2d3e4f5",
            parents="a0b1c2d3e4f5",
            name="2099_01_02_0000_b0b1c2d3e4f5_fail.py",
        )
        write_files(repository)
        done, _ = repository.job("deploy", "deploy")
        assert [one.code for one in done][:2] == [0, 1], done
        assert "doctor" in done[-1].command
        assert "a0b1c2d3e4f5" in done[-1].out, done[-1]
    finally:
        with connect(url_of(main), autocommit=True) as connection:
            connection.exec_driver_sql("ALTER TABLE todo DROP COLUMN added")
            connection.exec_driver_sql(
                f"UPDATE alembic_version SET version_num = '{repository.copy.head}'"
            )


def test_a_night(repository: Repository) -> None:
    """One issue is opened, brought up to date and closed; closed pull requests lose branches."""
    main = url_of(repository.neon.state.main)

    def night() -> None:
        done, _ = repository.job("drift", "drift")
        assert done[-1].code == 0, done

    night()
    assert repository.hub.issues == []
    for number in (1, 2):
        with connect(main, autocommit=True) as connection:
            connection.exec_driver_sql(f"CREATE INDEX extra_{number} ON todo (title)")
        night()
        (issue,) = repository.hub.issues
        assert f"extra_{number}" in issue["body"]
        assert issue["state"] == "open"
    with connect(main, autocommit=True) as connection:
        connection.exec_driver_sql("DROP INDEX extra_1, extra_2")
    night()
    assert repository.hub.issues[0]["state"] == "closed"
    repository.job("review", "branch")
    repository.hub.pull_requests[NUMBER] = {"number": NUMBER, "state": "closed"}
    done, _ = repository.job("drift", "prune")
    assert [one.code for one in done] == [0], done
    assert repository.neon.state.named(f"{PREFIX}pr-{NUMBER}") is None


def test_a_release(repository: Repository) -> None:
    """The wheel installs alone, suits a database at head, and is attached with its section."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (repository.copy.root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    environment = repository.environment | {"GITHUB_REF_NAME": "v0.1.0"}
    folder, values = repository.copy.root, repository.values
    done, _ = run_steps("release", "build", values, folder, environment)
    assert done[0].code == 2
    assert "CHANGELOG.md has no section 0.1.0" in done[0].err
    (repository.copy.root / "CHANGELOG.md").write_text(
        changelog.replace("## Unreleased", "## 0.1.0"), encoding="utf-8"
    )
    for job in ("build", "release"):
        done, _ = run_steps("release", job, values, folder, environment | {"GITHUB_SHA": "b" * 40})
        assert [one.code for one in done] == [0], done
    (name,) = repository.hub.uploads
    assert name.startswith("todo_schema-0.1.0")
    (release,) = repository.hub.releases
    assert release["draft"] is False
    assert "### Added" in release["body"]
    assert release["target_commitish"] == "b" * 40
    wrong = environment | {"GITHUB_REF_NAME": "v9.9.9"}
    done, _ = run_steps("release", "build", values, folder, wrong)
    assert "is not the version in models/version.py" in done[0].err
