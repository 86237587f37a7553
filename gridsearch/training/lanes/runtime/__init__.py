"""What a pack's program is made of while it trains: stacked layers, inputs, losses, optimizers, metrics."""
