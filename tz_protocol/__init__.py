"""The gateway as a pure core: it decides everything and touches nothing."""

__version__ = "0.1.0"
