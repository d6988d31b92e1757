"""The private keys of an installation, and what is signed with them.

A private key is a file of its own in the audit folder, `signing_key.<id>.pem`, that its owner alone may read; or the
setting CONTROL_AUDIT_KEY, for installations that keep secrets elsewhere. It is never in the database. Several may lie
there while one replaces another; the database's list of public keys says which of them signs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from control.core.problem import Problem
from control.core.tree import KEY_DOMAIN, key_id, key_text
from control.store import trees
from control.store.database import Connection
from control.store.trees import PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_UNUSABLE: Final = Problem(
    code="signing-key-unusable",
    status=500,
    title="A signing key cannot be used",
    next_step="Give an Ed25519 key as PEM, in a file that its owner alone may read or in CONTROL_AUDIT_KEY.",
)
KEY_EXISTS: Final = Problem(
    code="signing-key-exists",
    status=409,
    title="There is a signing key already",
    next_step="Replace it with `control audit key rotate`.",
)
NO_KEY: Final = Problem(
    code="signing-key-missing",
    status=409,
    title="There is no signing key here",
    next_step="Make one with `control audit key create`, or work where the key is.",
)
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. `file` is None where a setting holds it."""

    private: Ed25519PrivateKey
    file: Path | None

    @property
    def public(self) -> bytes:
        """The public key's 32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        return key_id(self.public)

    def sign(self, domain: bytes, text: str) -> bytes:
        return self.private.sign(domain + text.encode())


@dataclass(frozen=True, slots=True)
class Keys:
    """Where private keys are looked for. `secret` is the PEM of one that a setting holds."""

    folder: Path
    secret: str | None = None

    def held(self) -> list[PrivateKey]:
        """Every private key that is here. Raises `signing-key-unusable`."""
        files = sorted(self.folder.glob("signing_key.*.pem")) if self.folder.is_dir() else []
        found = [_read(_guarded(file), file) for file in files]
        return [*found, _read(self.secret.encode(), None)] if self.secret else found

    def active(self, known: Sequence[PublicKey]) -> PrivateKey | None:
        """The private key here that signs now: the newest that the database knows and nothing has replaced."""
        here = {key.id: key for key in self.held()}
        replaced = {key.replaces for key in known}
        current = [key.key_id for key in known if key.key_id in here and key.key_id not in replaced]
        return here[current[-1]] if current else None

    def made(self) -> PrivateKey:
        """A new private key, in a file that its owner alone may read."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        private = Ed25519PrivateKey.generate()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"signing_key.{key_id(private.public_key().public_bytes_raw())}.pem"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            out.flush()
            os.fsync(out.fileno())
        return PrivateKey(private, file)


async def bring_in(conn: Connection, keys: Keys, *, by: str, at: datetime) -> PublicKey:
    """The first key of this installation: the one that a setting holds, or a new one. Raises `signing-key-exists`."""
    await trees.hold_signing(conn)
    known = {key.key_id for key in await trees.keys(conn)}
    here = keys.held()
    if here and here[-1].id in known:
        raise KEY_EXISTS.because(f"Key {here[-1].id} is here, and the database knows it.", key=here[-1].id)
    return await _add(conn, here[-1] if here else keys.made(), replaces=None, by=by, at=at)


async def rotate(conn: Connection, keys: Keys, *, by: str, at: datetime) -> tuple[PublicKey, PrivateKey]:
    """A new key, brought in by the one that it replaces, and the old one: the caller destroys it once its transaction
    has committed. Raises `signing-key-missing`.
    """
    await trees.hold_signing(conn)
    old = keys.active(await trees.keys(conn))
    if old is None:
        raise NO_KEY.because("Only whoever holds the current key can replace it.")
    others = [key for key in keys.held() if old.file is None and key.file is not None]
    return await _add(conn, others[-1] if others else keys.made(), replaces=old, by=by, at=at), old


async def _add(conn: Connection, new: PrivateKey, *, replaces: PrivateKey | None, by: str, at: datetime) -> PublicKey:
    text = key_text(new.public, at=at, replaces=replaces.id if replaces else None)
    signature = (replaces or new).sign(KEY_DOMAIN, text)
    added = PublicKey(new.id, new.public, replaces.id if replaces else None, by, at, text, signature)
    await trees.add_key(conn, added)
    return added


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this public key made the signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_pem(public: bytes) -> str:
    """A public key as others are given it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_keys(files: Iterable[Path]) -> list[bytes]:
    """The public keys in these PEM files, as raw bytes. Raises `signing-key-unusable`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for file in files:
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise KEY_UNUSABLE.because(f"{file} holds no public key: {error}.") from None
        if not isinstance(key, Ed25519PublicKey):
            raise KEY_UNUSABLE.because(f"{file} holds a key of another kind.")
        found.append(key.public_bytes_raw())
    return found


def _guarded(file: Path) -> bytes:
    if file.stat().st_mode & _OTHERS:
        raise KEY_UNUSABLE.because(f"Others may read {file}; `chmod 600` it, or replace the key if they have.")
    return file.read_bytes()


def _read(pem: bytes, file: Path | None) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = str(file or "The setting CONTROL_AUDIT_KEY")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KEY_UNUSABLE.because(f"{where} holds no private key without a password.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KEY_UNUSABLE.because(f"{where} holds a key of another kind.")
    return PrivateKey(key, file)
