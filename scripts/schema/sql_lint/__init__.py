"""Lint the SQL that the revisions execute, and the .sql files.

squawk checks the effect of a statement on a database in use, sqlfluff its style; layout and
capitalisation only if a person wrote the SQL. A comment above a statement accepts a finding:

    # lint: allow require-concurrent-index-creation: the table was made in this revision

A comment without a reason or without a matching finding is a finding.
"""
