"""Pure objects that decide where an exchange goes; each takes ``now``."""
