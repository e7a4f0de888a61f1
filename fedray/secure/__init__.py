"""Secure aggregation (Bonawitz et al. 2017; Bell et al. 2020): a server learns a sum, and nothing of whom it
is of. Needs the optional library `cryptography`."""
