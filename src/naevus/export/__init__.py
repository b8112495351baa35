"""From finished runs to one bundle."""
