"""Reports, figures and tables for readers."""
