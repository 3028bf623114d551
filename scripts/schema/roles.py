"""The group roles, as the migrations name them.

models/roles.py names them too: the models are checked against the migrations, so neither side
imports the other.
"""

APPLICATION = "todo_app"
BETTER_AUTH = "todo_auth"
GROUPS = (APPLICATION, BETTER_AUTH)
"""A login holds one of them."""
