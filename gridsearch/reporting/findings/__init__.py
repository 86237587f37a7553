"""What to try next: findings of a ranked study, each with a code, its evidence and the command that goes on."""
