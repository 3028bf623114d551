"""The `schema` command: checks, shows and serves the schema that the migrations build."""
