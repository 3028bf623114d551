"""Lint the SQL that runs: what the revisions really execute, and the .sql files.

squawk judges what a statement does to a live database, sqlfluff how it is written; layout and
capitalisation only where a person wrote it. A finding is accepted by a comment above it that gives
the reason:

    # lint: allow require-concurrent-index-creation: the table was made in this revision

One that no longer accepts anything is a finding itself.
"""
