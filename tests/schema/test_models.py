"""An application's login can read and write through the models."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import URL, create_engine, not_, text
from sqlalchemy.pool import NullPool
from sqlmodel import Session, select

from models import Todo, User
from tests.support.todos import new_todo

USER = UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")


@pytest.fixture(autouse=True)
def _user(better_auth: URL) -> None:
    """Insert a user through the model, as Better Auth's login."""
    with Session(create_engine(better_auth, poolclass=NullPool)) as session:
        session.add(User(id=USER, name="Alice", email="alice@example.invalid"))
        session.commit()


@pytest.fixture
def session(application: URL) -> Iterator[Session]:
    """A session of the application, which acts for the user until it commits."""
    with Session(create_engine(application, poolclass=NullPool)) as session:
        act(session)
        yield session


def act(session: Session) -> None:
    """Set the user of the current transaction."""
    session.execute(text(f"SELECT set_config('app.user_id', '{USER}', true)"))


def test_a_todo_is_written_and_read_back(session: Session) -> None:
    """The model has the generated id and times without another query."""
    todo = new_todo(user_id=USER, title="buy milk")
    session.add(todo)
    session.flush()
    assert todo.id.version == 7
    assert todo.created_at == todo.updated_at
    assert todo.created_at.tzinfo is not None


def test_completed_means_the_same_in_python_and_in_sql(session: Session) -> None:
    """In a query `completed` is the condition of the partial indexes."""
    session.add_all(
        [
            new_todo(user_id=USER, title="open"),
            new_todo(user_id=USER, title="done", completed_at=datetime.now(UTC)),
        ]
    )
    session.flush()
    done = session.exec(select(Todo).where(Todo.completed)).one()
    assert (done.title, done.completed) == ("done", True)
    still_open = select(Todo).where(not_(Todo.completed))
    assert "completed_at IS NULL" in str(still_open)
    found = session.exec(still_open).one()
    assert (found.title, found.completed) == ("open", False)


def test_updated_at_is_refreshed_after_a_change(session: Session) -> None:
    """After a change the model has the trigger's value, not the old one."""
    todo = new_todo(user_id=USER, title="buy milk")
    session.add(todo)
    session.commit()
    act(session)
    before = todo.updated_at
    todo.title = "buy oat milk"
    session.flush()
    assert todo.updated_at > before


def test_relationships_lead_both_ways(session: Session) -> None:
    """A user's todos and a todo's user can be read as the application's login."""
    session.add(new_todo(user_id=USER, title="buy milk"))
    session.flush()
    user = session.get(User, USER)
    assert user is not None
    assert [todo.title for todo in user.todos] == ["buy milk"]
    assert user.todos[0].user is user


def test_deleting_a_user_leaves_the_children_to_the_database(
    session: Session, better_auth: URL
) -> None:
    """The ORM must not load or update the todos, which Better Auth's login cannot see."""
    session.add(new_todo(user_id=USER, title="buy milk"))
    session.commit()
    with Session(create_engine(better_auth, poolclass=NullPool)) as deleting:
        deleting.delete(deleting.get_one(User, USER))
        deleting.commit()
    act(session)
    assert session.exec(select(Todo)).all() == []
