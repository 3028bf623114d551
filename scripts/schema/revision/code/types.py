"""Types of columns as SQLAlchemy writes them."""

import re

_PLAIN = {
    "uuid": "sa.Uuid()",
    "text": "sa.Text()",
    "boolean": "sa.Boolean()",
    "smallint": "sa.SmallInteger()",
    "integer": "sa.Integer()",
    "bigint": "sa.BigInteger()",
    "real": "sa.REAL()",
    "double precision": "sa.Double()",
    "numeric": "sa.Numeric()",
    "date": "sa.Date()",
    "time without time zone": "sa.Time()",
    "timestamp without time zone": "sa.TIMESTAMP()",
    "timestamp with time zone": "sa.TIMESTAMP(timezone=True)",
    "bytea": "sa.LargeBinary()",
    "json": "sa.JSON()",
    "character varying": "sa.String()",
    "interval": "postgresql.INTERVAL()",
    "jsonb": "postgresql.JSONB()",
    "inet": "postgresql.INET()",
    "cidr": "postgresql.CIDR()",
    "macaddr": "postgresql.MACADDR()",
    "tsvector": "postgresql.TSVECTOR()",
    "daterange": "postgresql.DATERANGE()",
    "tstzrange": "postgresql.TSTZRANGE()",
    "int4range": "postgresql.INT4RANGE()",
    "int8range": "postgresql.INT8RANGE()",
    "numrange": "postgresql.NUMRANGE()",
}


def written(kind: str) -> str | None:
    """Return the Python expression of a type; None if SQLAlchemy has no class for it."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind.endswith("[]"):
        element = written(kind[:-2])
        return None if element is None else f"postgresql.ARRAY({element})"
    if found := re.fullmatch(r"character varying\((\d+)\)", kind):
        return f"sa.String(length={found[1]})"
    if found := re.fullmatch(r"numeric\((\d+),(\d+)\)", kind):
        return f"sa.Numeric(precision={found[1]}, scale={found[2]})"
    return None
