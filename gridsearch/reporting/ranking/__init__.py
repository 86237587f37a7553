"""From trials to ranked points, and from ranked points to what can be claimed of them: the heart of reporting."""
