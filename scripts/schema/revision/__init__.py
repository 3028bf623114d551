"""Writing revisions: moving those of a branch behind the main branch's head."""
