"""Tools for writing configs, gathered from where they are made."""

from exca_like.models.discriminated import DiscriminatedModel

__all__ = ["DiscriminatedModel"]
