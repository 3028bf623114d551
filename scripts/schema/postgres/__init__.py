"""PostgreSQL servers: embedded or given, scratch databases, connections, logins."""
