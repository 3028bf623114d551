"""The way from one schema to another, in stages that are safe for tables in use."""
