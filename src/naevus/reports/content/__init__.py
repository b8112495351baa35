"""The sections of a report, made from `Results`."""
