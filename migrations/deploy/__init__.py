"""The safe deploy: what `alembic upgrade`, `downgrade` and `stamp` do to a live database.

    connect   through cold starts, with growing pauses                           sessions.py
    be alone  one deploy at a time, by an advisory lock                          sessions.py
    refuse    what would go wrong, before anything is done                       obstacles.py
    warn      of drift, long transactions, indexes that somebody is building     obstacles.py
    migrate   one transaction per revision, giving way to whoever holds a lock   watch.py
    verify    the database's schema against the committed one                    verify.py
    leave     a report                                                          report.py
    end       at a signal, wherever the deploy is                            interruption.py

The order, and what is tried again, is in run.py. Whatever ends a deploy, running it again goes on
after the last revision that was committed.
"""

from migrations.deploy.runner import deploy

__all__ = ["deploy"]
