"""Keys: RFC 8032's own signature, keys from the seed, and keys from files."""

import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.checks import check
from fedray.ledger.keys import SERVER, KeyRing, PublicKeys, client_name, from_seed
from fedray.scenario import ScenarioError
from tests.helpers import garments, run


def public(key):
    return key.public_key().public_bytes_raw().hex()


def write_key(file, algorithm="ed25519"):
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", file], check=True)


@pytest.fixture
def files(tmp_path):
    """A folder with a key of the server and of each of two clients."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in (SERVER, client_name(0), client_name(1)):
        write_key(folder / f"{name}.pem")
    return folder


def with_files(folder, keys="keys"):
    changes = {"population": {"clients": 2, "per_round": 2}, "training.rounds": 1, "ledger": {"keys": keys}}
    return garments(folder, changes)


def test_a_signature_is_that_of_rfc_8032_test_1():
    secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert public(key) == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.sign(b"").hex() == signature
    assert PublicKeys({SERVER: public(key)}).verifies(SERVER, signature, b"")
    assert not PublicKeys({SERVER: public(key)}).verifies(SERVER, signature, b"other")


def test_keys_from_the_seed_differ_by_owner_and_by_seed():
    keys = {public(from_seed(seed, name)) for seed in (0, 1) for name in (SERVER, "client-0", "client-1")}
    assert len(keys) == 6
    assert public(from_seed(0, SERVER)) == public(from_seed(0, SERVER))


def test_keys_from_files_sign(tmp_path, files):
    loaded = check(with_files(tmp_path))
    ring = KeyRing(loaded.scenario, loaded.folder)
    keys = PublicKeys({SERVER: public(ring.private(SERVER))})
    assert keys.verifies(SERVER, ring.sign(SERVER, b"text"), b"text")
    assert not keys.verifies(SERVER, ring.sign(client_name(0), b"text"), b"text")


def test_a_run_with_keys_from_files_verifies(tmp_path, files):
    from fedray.verification import verify

    run(with_files(tmp_path), tmp_path / "run")
    result = verify(tmp_path / "run")
    assert (result["problems"], result["keys"]) == ([], "files")


def test_a_missing_key_file_is_named_before_anything_trains(tmp_path, files):
    (files / "client-1.pem").unlink()
    with pytest.raises(ScenarioError, match=r"ledger\.keys: got no file .*client-1\.pem, expected a private"):
        check(with_files(tmp_path))


def test_a_file_of_another_kind_of_key_is_refused(tmp_path, files):
    write_key(files / "server.pem", "x25519")
    with pytest.raises(ScenarioError, match=r"server\.pem, which holds another kind of key"):
        check(with_files(tmp_path))
    (files / "server.pem").write_text("no key")
    with pytest.raises(ScenarioError, match=r"server\.pem, which holds no key"):
        check(with_files(tmp_path))


def test_a_ledger_without_the_package_that_signs_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("fedray.checks.find_spec", lambda name: None if name == "cryptography" else object())
    with pytest.raises(ScenarioError, match=r"ledger: got one without .* pip install 'fedray\[ledger\]'"):
        check(garments(tmp_path, {"ledger": {}}))
