"""Measurements of this implementation: time per epoch, time to build the cache. Nothing imports from here."""
