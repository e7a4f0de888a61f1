"""The Ed25519 keys of a run's clients, its server and its edge servers (RFC 8032): from the scenario's seed,
or from PEM files.

A key that follows from the seed can be computed by anybody who has the scenario: such signatures show how a
ledger works, and prove nothing.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedray.ledger.records import canonical
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario

SERVER = "server"
KEY = "ledger.keys"  # of the scenario, in errors


def client_name(client: int) -> str:
    return f"client-{client}"


def edge_name(edge: int) -> str:
    return f"edge-{edge}"


def from_seed(seed: int, name: str) -> Ed25519PrivateKey:
    """The key of the server or a client in a simulation: HKDF (RFC 5869) of the scenario's seed, for the
    owner's name."""
    info = f"fedray ledger {name}".encode()
    derived = HKDF(SHA256(), length=32, salt=None, info=info).derive(str(seed).encode())
    return Ed25519PrivateKey.from_private_bytes(derived)


def from_file(file: Path) -> Ed25519PrivateKey:
    """The key in a PEM file without a password.

    Raises:
        Refused: where there is none.
    """
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except OSError as e:
        got = f"no file {file}" if not file.exists() else f"{file}, which cannot be read ({e.strerror})"
        raise Refused(KEY, got, "a private key of the server and of each client") from None
    except (ValueError, TypeError):  # no PEM, or one with a password
        raise Refused(KEY, f"{file}, which holds no key", _PEM) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(KEY, f"{file}, which holds another kind of key", _PEM)
    return key


_PEM = "an Ed25519 private key as PEM without a password (openssl genpkey -algorithm ed25519)"


class KeyRing:
    """The private keys of a run.

    Args:
        scenario: whose.
        folder: where its relative paths start.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        assert scenario.ledger is not None
        self.seed = scenario.seed
        self.clients = scenario.population.clients
        self.edges = scenario.ledger.edges
        self.files = None if scenario.ledger.keys is None else folder / scenario.ledger.keys
        self._keys: dict[str, Ed25519PrivateKey] = {}

    def sign(self, name: str, data: bytes) -> str:
        """The signature of the server's key or a client's, in hexadecimal digits."""
        return self.private(name).sign(data).hex()

    def private(self, name: str) -> Ed25519PrivateKey:
        """A key by its owner's name.

        Raises:
            Refused: where its file is not there.
        """
        if name not in self._keys:
            seeded = self.files is None
            self._keys[name] = from_seed(self.seed, name) if seeded else from_file(self._file(name))
        return self._keys[name]

    def public(self, name: str) -> str:
        """A public key by its owner's name, in hexadecimal digits."""
        return self.private(name).public_key().public_bytes_raw().hex()

    def public_file(self) -> bytes:
        """The contents of ledger-keys.json: each owner's public key."""
        names = [SERVER, *map(client_name, range(self.clients)), *map(edge_name, range(self.edges))]
        public = {name: self.public(name) for name in names}
        source = "files" if self.files else "seed"
        return canonical({"algorithm": "Ed25519", "source": source, "keys": public}) + b"\n"

    def _file(self, name: str) -> Path:
        assert self.files is not None
        return self.files / f"{name}.pem"


def verify_files(scenario: Scenario, folder: Path) -> None:
    """Raises Refused where a key that a scenario names is not there."""
    ring = KeyRing(scenario, folder)
    if ring.files is not None:
        ring.public_file()


class PublicKeys:
    """The public keys of a run, by the names of their owners.

    Args:
        keys: in hexadecimal digits.
        source: where the private ones are from, `seed` or `files`.
    """

    def __init__(self, keys: dict[str, str], source: str = "") -> None:
        self.keys = keys
        self.source = source
        self._loaded: dict[str, Ed25519PublicKey] = {}

    def verifies(self, name: str, signature: str, data: bytes) -> bool:
        """Whether a signature is the owner's over these bytes."""
        if name not in self.keys:
            return False
        try:
            if name not in self._loaded:
                self._loaded[name] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.keys[name]))
            self._loaded[name].verify(bytes.fromhex(signature), data)
        except (InvalidSignature, ValueError):
            return False
        return True
