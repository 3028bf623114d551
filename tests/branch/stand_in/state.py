"""What the stand-in knows: branches, computes, operations; and what its API does to them."""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

from schema.access.trial import literal
from schema.postgres.embedded import OWNER, Embedded
from tests.branch.stand_in.compute import Compute

PROJECT = "stand-in-12345678"
DATABASE = "neondb"

type Object = dict[str, Any]

_ANON = (
    "CREATE SCHEMA IF NOT EXISTS anon",
    "CREATE OR REPLACE FUNCTION anon.dummy_uuidv4() RETURNS text LANGUAGE sql"
    " RETURN gen_random_uuid()::text",
)


class Refusal(Exception):  # noqa: N818  # Neon's word for it would be an error, which tests order
    """An answer that is no success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep what Neon's API answers."""
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Branch:
    """A branch, and the compute that holds its data."""

    api: Object
    compute: Compute
    password: str
    databases: list[tuple[str, str]]
    """The databases and their owners: Neon knows them without starting the compute."""
    endpoint: Object | None = None
    anonymised: str = ""
    """The state of the masking; "" for another branch."""


@dataclass
class Operation:
    """Something that takes time."""

    api: Object
    not_before: float
    done: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    @property
    def shown(self) -> Object:
        """The operation as it is now."""
        finished = self.done.is_set() and time.monotonic() >= self.not_before
        status = "running" if not finished else "failed" if self.failed else "finished"
        return self.api | {"status": status, "updated_at": now()}


class State:
    """A project of Neon's."""

    def __init__(self, parent: Embedded) -> None:
        """Make the default branch's data from a running server."""
        self.lock = threading.RLock()
        self.folder = parent.folder / "branches"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.programs = parent.binaries
        self.keys = {"key-of-the-tests": "all"}
        self.limit = 10
        self.page_size = 100
        self.seconds = 0.1
        """How long an operation takes at least."""
        self.refusals = 1
        """How many connections to a new compute fail while it is cold."""
        self.failing = 0
        """How many of the next operations fail."""
        self.branches: dict[str, Branch] = {}
        self.operations: list[Operation] = []
        self.main = self._add("main", None, default=True)
        self.main.compute.copy(parent.superuser)
        self._set_password(self.main, "p@ss/word:of main")
        self.main.compute.execute("postgres", f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        self.main.databases = self.main.compute.databases()
        self._give_compute(self.main)

    def close(self) -> None:
        """Stop every server."""
        for branch in self.branches.values():
            branch.compute.close()

    def named(self, name: str) -> Branch | None:
        """Return the branch of that name."""
        return next((one for one in self.branches.values() if one.api["name"] == name), None)

    # ── requests that change something ────────────────────────────────────────────────────────────

    def create(self, body: Object, rules: list[Object] | None = None) -> Object:
        """Create a branch."""
        wanted = body.get("branch") or {}
        self._require_idle()
        if len(self.branches) >= self.limit:
            raise Refusal(
                422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded for this project"
            )
        name = wanted.get("name") or f"br-{secrets.token_hex(4)}"
        if self.named(name):
            raise Refusal(409, "BRANCH_ALREADY_EXISTS", "a branch with that name exists already")
        parent = self.get(wanted["parent_id"]) if wanted.get("parent_id") else self.main
        if parent.api.get("expires_at"):
            raise Refusal(400, "", "an expiring branch cannot have children")
        expires = self._expiry(wanted.get("expires_at"))
        made = self._add(name, parent, expires=expires, source=wanted.get("init_source"))
        made.anonymised = "" if rules is None else "created"
        if rules is not None:
            made.api["restricted_actions"] = [
                {"name": one, "reason": "the branch is anonymized"}
                for one in ("restore", "delete-rw-endpoint")
            ]
        if body.get("endpoints"):
            self._give_compute(made)

        def work() -> None:
            self._copy(parent, made)
            if wanted.get("init_source") == "schema-only":
                self._empty(made)
            if rules is not None:
                self._mask(made, rules)
            made.api["current_state"] = "ready"

        actions = ["create_branch", *(["start_compute"] if made.endpoint else [])]
        operations = self._begin(made, actions, work)
        return {
            "branch": made.api,
            "endpoints": [made.endpoint] if made.endpoint else [],
            "operations": operations,
            "roles": self.roles(made),
            "databases": self.databases(parent, made.api["id"]),
        }

    def restore(self, branch: Branch, body: Object) -> Object:
        """Bring a branch to the newest state of another one."""
        self._require_idle()
        if branch.api["protected"] or branch.anonymised:
            raise Refusal(400, "", "this branch cannot be restored")
        source = self.get(body["source_branch_id"])
        if source is branch:
            raise Refusal(400, "", "source_lsn or source_timestamp is required")
        kept = body.get("preserve_under_name")
        identity = branch.api["id"]
        children = [one for one in self.branches.values() if one.api.get("parent_id") == identity]
        if not kept and (source is branch or children):
            raise Refusal(400, "", "preserve_under_name is required")
        old = self._add(kept, branch) if kept else None
        for child in children:
            child.api["parent_id"] = old.api["id"] if old else None
        branch.api |= {"current_state": "resetting", "last_reset_at": now()}
        if branch.api.get("ttl_interval_seconds"):
            ttl = timedelta(seconds=branch.api["ttl_interval_seconds"])
            branch.api["expires_at"] = stamp(datetime.now(UTC) + ttl)

        def work() -> None:
            if old is not None:
                self._copy(branch, old)
                old.api["current_state"] = "ready"
            self._copy(source, branch)
            branch.api["current_state"] = "ready"

        return {"branch": branch.api, "operations": self._begin(branch, ["create_branch"], work)}

    def update(self, branch: Branch, body: Object) -> Object:
        """Change a branch's expiry, name or protection."""
        self._require_idle()
        changes = body["branch"]
        branch.api |= {name: changes[name] for name in ("name", "protected") if name in changes}
        if "expires_at" in changes:
            if branch.api["protected"] or branch.api["default"]:
                raise Refusal(400, "", "this branch cannot expire")
            branch.api |= self._expiry(changes["expires_at"])
        return {"branch": branch.api, "operations": []}

    def delete(self, branch: Branch) -> Object:
        """Delete a branch."""
        self._require_idle()
        if branch.api["default"] or branch.api["protected"]:
            raise Refusal(400, "", "this branch cannot be deleted")
        identity = branch.api["id"]
        if any(one.api.get("parent_id") == identity for one in self.branches.values()):
            raise Refusal(400, "", "a branch with children cannot be deleted")
        del self.branches[identity]
        operations = self._begin(branch, ["delete_timeline"], branch.compute.close)
        return {"branch": branch.api, "operations": operations}

    def add_endpoint(self, body: Object) -> Object:
        """Give a branch a compute."""
        self._require_idle()
        branch = self.get(body["endpoint"]["branch_id"])
        if branch.endpoint:
            raise Refusal(409, "", "the branch has a read-write endpoint")
        self._give_compute(branch)
        operations = self._begin(branch, ["start_compute"], lambda: None)
        return {"endpoint": branch.endpoint, "operations": operations}

    def reset_password(self, branch: Branch, role: str) -> Object:
        """Give a role another password."""
        self._require_idle()
        (found,) = (one for one in self.roles(branch) if one["name"] == role)
        password = f"r3set: {secrets.token_hex(6)}+@%"
        branch.password = password
        operations = self._begin(
            branch, ["apply_config"], lambda: self._set_password(branch, password)
        )
        return {"role": found | {"password": password}, "operations": operations}

    # ── requests that read ────────────────────────────────────────────────────────────────────────

    def get(self, identity: str) -> Branch:
        """Return a branch."""
        try:
            return self.branches[identity]
        except KeyError:
            raise Refusal(404, "", "branch not found") from None

    def roles(self, branch: Branch) -> list[Object]:
        """List the roles that the API knows."""
        return [
            {
                "branch_id": branch.api["id"],
                "name": OWNER,
                "protected": False,
                "created_at": branch.api["created_at"],
                "updated_at": branch.api["updated_at"],
            }
        ]

    def databases(self, branch: Branch, identity: str = "") -> list[Object]:
        """List the databases of a branch."""
        return [
            {
                "id": number,
                "branch_id": identity or branch.api["id"],
                "name": name,
                "owner_name": owner,
                "created_at": branch.api["created_at"],
                "updated_at": branch.api["updated_at"],
            }
            for number, (name, owner) in enumerate(branch.databases, start=1)
        ]

    def uri(self, branch: Branch, database: str, role: str) -> str:
        """Return the URI of a database, as that role."""
        if branch.endpoint is None:
            raise Refusal(404, "", "endpoint not found")
        if (database, role) not in branch.databases:
            raise Refusal(404, "", "database or role not found")
        password = quote(branch.password, safe="")
        return f"postgresql://{role}:{password}@127.0.0.1:{branch.compute.port}/{database}"

    # ── parts ─────────────────────────────────────────────────────────────────────────────────────

    def _require_idle(self) -> None:
        if any(one.shown["status"] == "running" for one in self.operations):
            raise Refusal(
                423,
                "",
                "project already has running conflicting operations, scheduling of new"
                " ones is prohibited",
            )

    def _expiry(self, text: str | None) -> Object:
        if text is None:
            return {}
        then = datetime.fromisoformat(text)
        left = then - datetime.now(UTC)
        if not timedelta(0) < left <= timedelta(days=30):
            raise Refusal(400, "", "expires_at must lie in the next 30 days")
        return {"expires_at": stamp(then), "ttl_interval_seconds": round(left.total_seconds())}

    def _add(
        self,
        name: str,
        parent: Branch | None,
        *,
        default: bool = False,
        expires: Object | None = None,
        source: str | None = None,
    ) -> Branch:
        identity = f"br-{secrets.token_hex(6)}"
        api: Object = {
            "id": identity,
            "project_id": PROJECT,
            "name": name,
            "current_state": "ready" if parent is None else "init",
            "state_changed_at": now(),
            "creation_source": "console",
            "default": default,
            "protected": False,
            "cpu_used_sec": 0,
            "active_time_seconds": 0,
            "compute_time_seconds": 0,
            "written_data_bytes": 0,
            "data_transfer_bytes": 0,
            "created_at": now(),
            "updated_at": now(),
            "init_source": source or "parent-data",
            **(expires or {}),
        }
        if parent is not None and source != "schema-only":
            api |= {"parent_id": parent.api["id"], "parent_lsn": "0/1E19478"}
        compute = Compute(self.programs, self.folder / identity)
        password = parent.password if parent else ""
        if parent is not None and parent.api["protected"]:
            password = f"n3w: {secrets.token_hex(6)}+@%"
        made = Branch(api, compute, password, list(parent.databases) if parent else [])
        self.branches[identity] = made
        return made

    def _give_compute(self, branch: Branch) -> None:
        branch.endpoint = {
            "host": "127.0.0.1",
            "id": f"ep-{secrets.token_hex(6)}",
            "project_id": PROJECT,
            "branch_id": branch.api["id"],
            "region_id": "aws-eu-central-1",
            "autoscaling_limit_min_cu": 0.25,
            "autoscaling_limit_max_cu": 2,
            "type": "read_write",
            "current_state": "idle",
            "pooler_enabled": False,
            "pooler_mode": "transaction",
            "disabled": False,
            "passwordless_access": True,
            "creation_source": "console",
            "created_at": now(),
            "updated_at": now(),
            "settings": {},
            "proxy_host": "127.0.0.1",
            "suspend_timeout_seconds": 0,
            "provisioner": "k8s-neonvm",
        }

    def _begin(
        self, branch: Branch, actions: list[str], work: Callable[[], object]
    ) -> list[Object]:
        """Begin operations, and do their work in the background."""
        begun = [
            Operation(
                {
                    "id": f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}",
                    "project_id": PROJECT,
                    "branch_id": branch.api["id"],
                    "action": action,
                    "failures_count": 0,
                    "created_at": now(),
                    "total_duration_ms": 0,
                },
                time.monotonic() + self.seconds,
            )
            for action in actions
        ]
        for one in begun:
            if self.failing:
                self.failing -= 1
                one.failed = True
        self.operations += begun

        def run() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001  # the operation failed, and says so
                begun[0].failed = True
            for one in begun:
                one.done.set()

        threading.Thread(target=run, daemon=True).start()
        return [one.shown for one in begun]

    def _copy(self, source: Branch, target: Branch) -> None:
        source.compute.start()
        target.compute.copy(source.compute.superuser)
        target.compute.refusals = self.refusals
        if target.password != source.password:
            self._set_password(target, target.password)
            target.compute.stop()

    @staticmethod
    def _set_password(branch: Branch, password: str) -> None:
        branch.password = password
        branch.compute.execute(
            "postgres", f"ALTER ROLE {OWNER} PASSWORD {literal(password)}".replace("%", "%%")
        )

    @staticmethod
    def _empty(branch: Branch) -> None:
        """Remove the rows of every table, Alembic's too: only the schema is copied."""
        for name, _ in branch.compute.databases():
            branch.compute.execute(
                name,
                "DO $$ DECLARE tables text; BEGIN"
                " SELECT string_agg(c.oid::regclass::text, ', ') INTO tables FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_|^information_schema';"
                " IF tables IS NOT NULL THEN EXECUTE 'TRUNCATE ' || tables; END IF; END $$",
            )
        branch.compute.stop()

    @staticmethod
    def _mask(branch: Branch, rules: list[Object]) -> None:
        """Apply the rules as PostgreSQL Anonymizer does: one UPDATE of each table."""
        branch.anonymised = "anonymizing"
        try:
            for rule in rules:
                value = rule.get("masking_function") or rule["masking_value"]
                table = f'"{rule["schema_name"]}"."{rule["table_name"]}"'
                statement = f'UPDATE {table} SET "{rule["column_name"]}" = {value}'
                branch.compute.execute(rule["database_name"], *_ANON, statement.replace("%", "%%"))
        except DBAPIError:
            branch.anonymised = "error"
        else:
            branch.anonymised = "anonymized"
        branch.compute.stop()


def now() -> str:
    """Return this moment, as the API writes it."""
    return stamp(datetime.now(UTC))


def stamp(then: datetime) -> str:
    """Return a time, as the API writes it."""
    return then.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
