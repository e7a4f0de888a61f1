"""Shamir's secret sharing (Shamir 1979): a secret in n shares, of which any `threshold` give it back and
fewer tell nothing. Shares are the values of a polynomial over a prime field whose value at 0 is the
secret."""

from collections.abc import Mapping, Sequence

PRIME = 2**256 + 297  # the smallest prime above 2^256, so that a key of 32 bytes is a number of the field
SHARE_BYTES = 33


def split(
    secret: int, coefficients: Sequence[int], holders: Sequence[int], prime: int = PRIME
) -> dict[int, int]:
    """A share for each holder: the value of secret + c1 x + c2 x^2 + ... at the holder's own x.

    Args:
        secret: from 0, below the prime.
        coefficients: c1, c2, ...: drawn uniformly below the prime, one less than the threshold.
        holders: the x of each holder, from 1, all different.
        prime: of the field.
    """
    if min(holders) < 1 or len(set(holders)) < len(holders):
        raise ValueError("got holders at 0 or at one place, expected different ones from 1")
    return {x: _value([secret, *coefficients], x, prime) for x in holders}


def reconstruct(shares: Mapping[int, int], prime: int = PRIME) -> int:
    """The secret of shares by their holders' x: Lagrange's interpolation at 0. Of fewer shares than the
    threshold it is another number, and every number is equally likely."""
    secret = 0
    for x, value in shares.items():
        above = 1
        below = 1
        for other in shares:
            if other != x:
                above = above * other % prime
                below = below * (other - x) % prime
        secret = (secret + value * above * pow(below, -1, prime)) % prime
    return secret


def _value(coefficients: Sequence[int], x: int, prime: int) -> int:
    """Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % prime
    return value
