"""Which weights learn, a module a kind: put on a base, written to a folder, put back."""
