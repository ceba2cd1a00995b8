"""Tests of the conformance suite: wrong backends, which it must report, and right ones, which it must not."""
