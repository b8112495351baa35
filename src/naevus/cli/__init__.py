"""The `naevus` command."""
