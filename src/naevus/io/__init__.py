"""What naevus asks of the machine it runs on."""
