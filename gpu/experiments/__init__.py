"""The paper's experiments, and its own figures to compare with."""
