"""The fields that users put on their models."""
