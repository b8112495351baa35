"""Jobs that span several packages."""
