"""What an application's Better Auth needs of the schema, and the models that give it that."""
