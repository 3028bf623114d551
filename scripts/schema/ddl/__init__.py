"""SQL that turns one schema into another, written from the facts of two snapshots.

steps.py finds what to change; tables.py, objects.py and privileges.py write the statements for each
kind of object or part; definition.py reads definitions back. Nothing here is sure to work on its
own: schema.live.trial executes it on a copy, and only what did what it should is shown.
"""
