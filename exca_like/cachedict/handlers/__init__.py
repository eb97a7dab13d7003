"""Handlers: how values of each type are stored, one module per family."""
