"""The claims of the paper, one file each: derivation, proof, counterexample, verdict. May import `reference` only."""
