"""Eyes on a run: how fast it is, what it waits for, and what grows before it breaks."""
