"""Scored runs as one HTML page that needs nothing beside it: what they are, how they learned, what they answer."""
