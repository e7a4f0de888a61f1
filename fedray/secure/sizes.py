"""How many bytes the messages of secure aggregation have."""

from typing import Literal

# In the order in which they go: up, down, up, down, (the masked update), down, up.
Message = Literal["keys", "peer_keys", "shares", "peer_shares", "survivors", "unmask"]

PUBLIC_KEY_BYTES = 32  # X25519, RFC 7748
SHARE_BYTES = 33  # a number below shamir.PRIME
TAG_BYTES = 16  # of AES-GCM
CLIENT_BYTES = 4  # a client's number


def message_bytes(message: Message, neighbours: int) -> int:
    """Bytes of one message from or to a client of so many neighbours. Two public keys a client; two shares,
    of its key and of its seed, encrypted for each neighbour; a bit for each neighbour and itself that says
    who survived;
    one share of each of these."""
    pair = 2 * PUBLIC_KEY_BYTES
    encrypted = CLIENT_BYTES + 2 * SHARE_BYTES + TAG_BYTES
    nbytes: dict[Message, int] = {
        "keys": pair,
        "peer_keys": neighbours * (CLIENT_BYTES + pair),
        "shares": neighbours * encrypted,
        "peer_shares": neighbours * encrypted,
        "survivors": -(-(neighbours + 1) // 8),
        "unmask": (neighbours + 1) * SHARE_BYTES,
    }
    return nbytes[message]
