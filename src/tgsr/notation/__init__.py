"""How models write intervals down: times, what joins two of them, and what says that no interval is meant."""
