"""What a generated model says of a table and of its columns, in one sentence each.

What is known of Better Auth's plugins is written out. Of other columns the name is all there is.
"""

import re

from schema.better_auth.needs import Field, Table
from schema.text import capitalized

SECRET, PERSONAL = "SECRET: ", "PERSONAL: "

_TABLES = {
    "organization": "A group of users that shares what it owns",
    "member": "A user's membership in an organization",
    "invitation": "An invitation to join an organization",
    "team": "A part of an organization",
    "teamMember": "A user's membership in a team",
    "organizationRole": "A role that an organization has defined itself",
    "twoFactor": "A user's second factor: a secret for one-time codes",
    "jwks": "A key pair that signs and verifies tokens",
    "rateLimit": "How often a client has called an endpoint",
    "deviceCode": "A device that waits for its user's approval",
    "walletAddress": "A user's address on a blockchain",
    "passkey": "A user's passkey",
}

_COLUMNS = {
    "user.role": "The user's roles, separated by commas",
    "user.banned": "Whether the user may not sign in",
    "user.banReason": "PERSONAL: why the user may not sign in",
    "user.banExpires": "From then on the ban is void; NULL means never",
    "user.twoFactorEnabled": "Whether the user signs in with a second factor",
    "user.username": "PERSONAL: what the user signs in with, normalized",
    "user.displayUsername": "PERSONAL: the user name as its user spells it",
    "user.phoneNumber": "PERSONAL: the number that the user signs in with",
    "user.phoneNumberVerified": "Whether the user has proven to receive messages there",
    "user.isAnonymous": "Whether the user has no way to sign in again",
    "user.lastLoginMethod": "How the user signed in last",
    "session.activeOrganizationId": "The id of the organization that the user works in",
    "session.activeTeamId": "The id of the team that the user works in",
    "session.impersonatedBy": "The id of the administrator who acts as the user",
    "organization.name": "PERSONAL: the name shown to its members",
    "organization.slug": "PERSONAL: its name in addresses",
    "organization.logo": "PERSONAL: the address of a picture",
    "organization.metadata": "PERSONAL: what the application keeps of it, as JSON",
    "member.role": "What the member may do: roles, separated by commas",
    "invitation.email": "PERSONAL: who is invited",
    "invitation.role": "The roles that the new member gets, separated by commas",
    "invitation.teamId": "The ids of the teams to join, separated by commas",
    "invitation.status": "pending, accepted, rejected or canceled",
    "invitation.inviterId": "Who has invited",
    "invitation.expiresAt": "From then on the invitation is void",
    "team.name": "PERSONAL: the name shown to its members",
    "team.memberCount": "How many members it has, kept by Better Auth",
    "teamMember.membershipKey": "SECRET: a hash of team and user, so that there is no second one",
    "organizationRole.role": "The role's name",
    "organizationRole.permission": "What the role allows, as JSON",
    "twoFactor.secret": "SECRET: what the one-time codes are made from, encrypted",
    "twoFactor.backupCodes": "SECRET: codes that each replace a one-time code once",
    "twoFactor.userId": "Who signs in with it",
    "twoFactor.verified": "Whether the user has shown a valid code",
    "twoFactor.failedVerificationCount": "Wrong codes since the last right one",
    "twoFactor.lockedUntil": "Until then no code is accepted",
    "jwks.publicKey": "What verifies a token; published",
    "jwks.privateKey": "SECRET: what signs tokens",
    "jwks.expiresAt": "From then on the key signs nothing",
    "jwks.alg": "The algorithm that it signs with",
    "jwks.crv": "The curve that it is on",
    "rateLimit.key": "PERSONAL: the client's address and the endpoint",
    "rateLimit.count": "Calls in the current window",
    "rateLimit.lastRequest": "The last call, in milliseconds since 1970",
    "deviceCode.deviceCode": "SECRET: what the device shows to get a session",
    "deviceCode.userCode": "SECRET: what the user types to approve the device",
    "deviceCode.userId": "The id of the user who has decided",
    "deviceCode.status": "pending, approved or denied",
    "deviceCode.lastPolledAt": "When the device last asked",
    "deviceCode.pollingInterval": "Milliseconds that the device must wait before it asks again",
    "deviceCode.clientId": "The client that the device runs",
    "deviceCode.scope": "What the device asks for",
    "walletAddress.address": "PERSONAL: the address",
    "walletAddress.chainId": "The blockchain",
    "walletAddress.isPrimary": "Whether it is the user's main address",
}
"""By Better Auth's own names, whatever the configuration calls the table and the column."""

_TIMES = {
    "createdAt": "When it was made",
    "updatedAt": "Last change, kept by Better Auth",
    "expiresAt": "From then on it is void",
}

_SECRET = re.compile(r"secret|token|passw|private ?key|backup ?code|otp\b|api ?key")
_OPEN = re.compile(r"\b(role|status|type|kind|scope|locale|language|time ?zone|currency|plan)s?\b")
"""Names of columns that hold one of few words."""


def words(name: str) -> str:
    """Split a name into its words, in lower case: `backupCodes` is `backup codes`."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    return " ".join(re.split(r"[\W_]+", spaced)).strip().lower()


def of_table(table: Table) -> str:
    """Say what a row of the table is."""
    if (known := _TABLES.get(table.key)) is not None:
        return known
    who = f"Better Auth's plugin {table.plugin}" if table.plugin else "Better Auth"
    return f"{words(table.name).capitalize()}: a row of {who}"


def of_column(table: Table, field: Field) -> str:
    """Say what the column holds; the text begins with SECRET: or PERSONAL: where that is so."""
    if (known := _COLUMNS.get(f"{table.key}.{field.key}")) is not None:
        return known
    if field.reference:
        return _reference(field)
    if field.kind == "date" and field.key in _TIMES:
        return _TIMES[field.key]
    return _mark(field) + _plain(field)


def _reference(field: Field) -> str:
    """Say what the row belongs to."""
    if field.reference is None:
        return ""
    target = words(field.reference.table)
    role = re.sub(r" id$", "", words(field.key))
    what = f"Its {target}" if role == target else f"Its {role}: a row of {target}"
    if field.reference.on_delete == "SET NULL":
        return f"{what}; NULL when that is deleted"
    return f"{what}; deleted with it" if field.reference.on_delete == "CASCADE" else what


def _mark(field: Field) -> str:
    """Mark a text that may hold a secret, or what a person has written.

    Better Auth returns no secret to clients; a text that it does not return is taken for one.
    """
    name = words(field.key)
    if field.kind in {"boolean", "date", "number", "number[]"}:
        return ""
    if _SECRET.search(name) or not field.returned:
        return SECRET
    if name.endswith(" id") or _OPEN.search(name) or not field.written_by_clients:
        return ""
    return PERSONAL


def _plain(field: Field) -> str:
    """Say what the name says, and who writes it."""
    said = words(field.key)
    if field.kind == "boolean":
        said = f"{said} or not"
    text = (
        f"{said}, of the plugin {field.plugin}" if field.plugin else f"{said}, an additional field"
    )
    return text if _mark(field) else capitalized(text)
