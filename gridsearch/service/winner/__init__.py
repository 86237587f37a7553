"""What comes after the search: the winner is refitted, tested, exported, and predicts."""
