"""Who goes on and who is stopped: successive halving, and whether it lied."""
