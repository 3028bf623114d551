"""The Python code of a revision: `op.` calls where Alembic has them, PostgreSQL's SQL elsewhere."""
