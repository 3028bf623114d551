"""The version of the wheel, and the history that it was built from. `schema snapshot` writes it."""

__version__ = "0.1.0+0e6b52f3a9c4"

HISTORY = (
    "4c1f0b7a9d21",
    "8e5d2f6c3b04",
    "b93a7e1d5f68",
    "2d6f90c4e7a3",
    "c58e14a7d0b9",
    "7a4e1c93d2f6",
    "29dc03b443d2",
    "0e6b52f3a9c4",
)
"""Every revision, oldest first; the last one is the head that these models match."""
