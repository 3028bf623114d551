"""What each role can see and do, tried before the revisions and after."""
