"""What views give their readers beyond what these reach themselves."""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from schema.review.access.attempts import Acting, Attempts, Relation, more
from schema.rows.tables import quote


@dataclass(frozen=True)
class Views:
    """The trial of views."""

    attempts: Attempts
    actings: Sequence[Acting]
    privileges: Set[tuple[str, int, int, str]]

    def given(self, one: Relation, role: str) -> Iterator[tuple[str, str]]:
        """Yield each command that reaches more than its own query would, with how much."""
        readable = [
            quote(name)
            for number, name, _ in one.columns
            if (role, one.oid, number, "SELECT") in self.privileges
        ]
        if readable:
            yield from self._shown(one, role, f"ROW({', '.join(readable)})::text")
        may = {
            (at, what) for who, oid, at, what in self.privileges if (who, oid) == (role, one.oid)
        }
        if one.kind == "v":
            yield from self._written(one, role, may)

    def _shown(self, one: Relation, role: str, row: str) -> Iterator[tuple[str, str]]:
        for acting in self.actings:
            shown, again = (
                self.attempts.query(role, acting, f"SELECT {row} FROM {one.sql}") for _ in range(2)
            )
            if not shown:
                continue
            own = self.attempts.query(role, acting, f"SELECT {row} FROM ({one.query}) AS own") or []
            # What is not the same twice, random() or a clock, cannot be compared with another run.
            differs = Counter(shown) - Counter(own) if shown == again else len(shown) > len(own)
            if differs:
                yield "SELECT", more(len(shown), len(own))
                return

    def _written(
        self, one: Relation, role: str, may: Set[tuple[int, str]]
    ) -> Iterator[tuple[str, str]]:
        """Try to write through the view with its owner's rights, and with the writer's."""
        invoker = f"ALTER VIEW {one.sql} SET (security_invoker = true)"
        commands = sorted({what for _, what in may} & {"INSERT", "UPDATE", "DELETE"})
        sample = self.attempts.sample(one, self.actings) if "INSERT" in commands else {}
        for command in commands:
            for acting in self.actings:
                if command == "INSERT":
                    shown, own = (
                        len(list(self.attempts.inserted(one, role, acting, sample, prepare)))
                        for prepare in ("", invoker)
                    )
                else:
                    shown, own = (
                        self.attempts.count(role, acting, one.statement(command, may), prepare)
                        for prepare in ("", invoker)
                    )
                if shown > own:
                    yield command, more(shown, own)
                    break
