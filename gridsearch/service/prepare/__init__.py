"""From a spec to trials that can be stored: plug-ins, data and keys are found and checked, once."""
