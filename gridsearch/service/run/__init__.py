"""What a run does while it goes on: claims trials, keeps workers busy, records what they report."""
