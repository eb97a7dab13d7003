"""Keys of values by their content: equal exactly for values of the same types with the same content, in every process.

Unlike the uid of a config, which takes ``1`` and ``1.0`` for one number, a content key tells apart whatever a function could:
``1``, ``1.0`` and ``True``, ``0.0`` and ``-0.0``, lists and tuples, dictionaries in another order. Each part is written with
a type tag and, where it is free, a length. Nothing is taken from a ``repr``, from an address, or from a part of an array.
"""

from exca_like.content import arrays as arrays
from exca_like.content import frames as frames
from exca_like.content.parts import DIGEST_SIZE as DIGEST_SIZE
from exca_like.content.parts import Parts as Parts
from exca_like.content.parts import digest_of_parts as digest_of_parts
from exca_like.content.values import digest, feed, has_key, register

__all__ = ["digest", "feed", "has_key", "register"]
