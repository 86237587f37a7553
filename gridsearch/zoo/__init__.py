"""The plug-ins that come with the program: models and datasets, with no privileges over a user's own.

Nothing is imported here, so that planning and `--help` stay free of torch.
"""
