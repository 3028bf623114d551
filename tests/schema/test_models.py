"""The models are usable as they are: an application's login reads and writes through them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import URL, create_engine, not_, text
from sqlalchemy.pool import NullPool
from sqlmodel import Session, select

from models import Todo, User

USER = UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")


@pytest.fixture(autouse=True)
def _user(better_auth: URL) -> None:
    """A user, written through the model as Better Auth's login."""
    with Session(create_engine(better_auth, poolclass=NullPool)) as session:
        session.add(User(id=USER, name="Alice", email="alice@example.invalid"))
        session.commit()


@pytest.fixture
def session(application: URL) -> Iterator[Session]:
    """The application's session, which acts for the user until it commits."""
    with Session(create_engine(application, poolclass=NullPool)) as session:
        act(session)
        yield session


def act(session: Session) -> None:
    """Say for whom the current transaction acts."""
    session.execute(text(f"SELECT set_config('app.user_id', '{USER}', true)"))


def test_a_todo_is_written_and_read_back(session: Session) -> None:
    """The database fills in the id and the times, and the model shows them without a query more."""
    todo = Todo(user_id=USER, title="buy milk")
    session.add(todo)
    session.flush()
    assert todo.id.version == 7
    assert todo.created_at == todo.updated_at
    assert todo.created_at.tzinfo is not None


def test_completed_means_the_same_in_python_and_in_sql(session: Session) -> None:
    """One name for one thing; in a query it is the condition of the partial indexes."""
    session.add_all(
        [
            Todo(user_id=USER, title="open"),
            Todo(user_id=USER, title="done", completed_at=datetime.now(UTC)),
        ]
    )
    session.flush()
    done = session.exec(select(Todo).where(Todo.completed)).one()
    assert (done.title, done.completed) == ("done", True)
    still_open = select(Todo).where(not_(Todo.completed))
    assert "completed_at IS NULL" in str(still_open)
    found = session.exec(still_open).one()
    assert (found.title, found.completed) == ("open", False)


def test_updated_at_is_read_anew_after_a_change(session: Session) -> None:
    """The trigger's value, not the one from before the change, is what the model shows."""
    todo = Todo(user_id=USER, title="buy milk")
    session.add(todo)
    session.commit()
    act(session)
    before = todo.updated_at
    todo.title = "buy oat milk"
    session.flush()
    assert todo.updated_at > before


def test_relationships_lead_both_ways(session: Session) -> None:
    """A user's todos and a todo's user, with the rights of the application's login."""
    session.add(Todo(user_id=USER, title="buy milk"))
    session.flush()
    user = session.get(User, USER)
    assert user is not None
    assert [todo.title for todo in user.todos] == ["buy milk"]
    assert user.todos[0].user is user


def test_deleting_a_user_leaves_the_children_to_the_database(
    session: Session, better_auth: URL
) -> None:
    """The ORM must not load or null out the todos, which Better Auth's login cannot even see."""
    session.add(Todo(user_id=USER, title="buy milk"))
    session.commit()
    with Session(create_engine(better_auth, poolclass=NullPool)) as deleting:
        deleting.delete(deleting.get_one(User, USER))
        deleting.commit()
    act(session)
    assert session.exec(select(Todo)).all() == []
