"""Timestamp-grounded speech reasoning: train, measure and use models that point at the seconds they heard."""

__version__ = "0.1.0"
