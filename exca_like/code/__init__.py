"""Code that a result depends on: found from its source, and told from other versions of it by digests."""
