"""The claims of the paper: derivation, proof, counterexample, verdict. May import `reference` only.

`python -m proofs` re-runs all evidence. A claim is one file in `claims`, named in the table of `claims/__init__.py`.
"""
