"""What is served and how it is made. No weights in git."""
