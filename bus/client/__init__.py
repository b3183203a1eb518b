"""What agent developers use: Bus, publish, subscribe."""
