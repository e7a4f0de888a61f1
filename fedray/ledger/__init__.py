"""The ledger of a run: signed leaves in a Merkle tree, and signed heads."""
