"""A webhook leads to public addresses alone, and to the address that was checked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.core.sink import Event, SinkKind, Wanted
from control.runtime import mail, webhook
from control.runtime.commands.notify import add_sink, log, try_sink
from control.runtime.mail import Post
from control.runtime.webhook import Undelivered, Webhooks
from control.testing.stage import staged
from tests.notify.receivers import mail_server, web_server

LOOPBACK = (ip_network("127.0.0.0/8"),)
NAME = "sink.example"
PATIENCE = timedelta(seconds=15)


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]",
     "[::ffff:7f00:1]", "0.0.0.0", "[::]"],
)  # fmt: skip
async def test_this_machine_is_refused_however_it_is_written(threads: ThreadPoolExecutor, host: str) -> None:
    with web_server() as web:
        for scheme in ("http", "https"):
            with pytest.raises(Undelivered, match="is not a public address, and CONTROL_NOTIFY_NETWORKS") as refused:
                await Webhooks((), 5, threads).send(f"{scheme}://{host}:{web.port}/", b"{}", {})
            assert refused.value.for_good
        assert web.received == []


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "192.168.0.1", "[fd00:ec2::254]", "[fe80::1]"])
async def test_private_networks_are_refused(threads: ThreadPoolExecutor, host: str) -> None:
    with pytest.raises(Undelivered, match="is not a public address"):
        await Webhooks((), 5, threads).send(f"https://{host}/latest/meta-data", b"{}", {})


async def test_one_bad_address_of_a_name_is_enough(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_resolved", lambda *_: ["1.1.1.1", "10.0.0.1"])
    with pytest.raises(Undelivered, match=r"10\.0\.0\.1 is not a public address"):
        await Webhooks((), 5, threads).send(f"https://{NAME}/", b"{}", {})


async def test_beyond_ones_own_networks_it_is_encrypted(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_resolved", lambda *_: ["1.1.1.1"])
    with pytest.raises(Undelivered, match="It is not encrypted"):
        await Webhooks(LOOPBACK, 5, threads).send(f"http://{NAME}/", b"{}", {})


async def test_the_connection_goes_to_the_address_that_was_checked(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name means something else at each asking, and is asked once."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    monkeypatch.setattr(webhook, "_resolved", lambda *_: next(answers))
    with web_server() as web:
        await Webhooks(LOOPBACK, 5, threads).send(f"http://{NAME}:{web.port}/a?b=c", b"{}", {"webhook-id": "1"})
        (sent,) = web.received
    assert (sent.path, sent.headers["host"], sent.headers["webhook-id"]) == ("/a?b=c", f"{NAME}:{web.port}", "1")


async def test_the_certificate_is_the_names(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webhook, "_resolved", lambda *_: ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(NAME, tmp_path))
    believed = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    monkeypatch.setattr(webhook, "trusted", lambda: believed)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    with web_server(context) as web:
        webhooks = Webhooks(LOOPBACK, 5, threads)
        await webhooks.send(f"https://{NAME}:{web.port}/", b"{}", {})
        with pytest.raises(Undelivered, match="CERTIFICATE_VERIFY_FAILED"):
            await webhooks.send(f"https://other.example:{web.port}/", b"{}", {})
        assert asked == [NAME, "other.example"] and len(web.received) == 1


async def test_mail_is_encrypted_before_its_password_is_sent(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate("localhost", tmp_path))
    seen: list[tuple[bytes, bytes, bool]] = []

    def known(_: Any, session: Session, __: Any, ___: Any, given: LoginPassword) -> AuthResult:
        seen.append((given.login, given.password, session.ssl is not None))
        return AuthResult(success=given.password == b"s@cret", handled=False)

    monkeypatch.setattr(mail, "trusted", lambda: ssl.create_default_context(cafile=str(tmp_path / "server.pem")))
    async with mail_server(tls_context=context, authenticator=known, auth_required=True) as server:
        for password in ("s%40cret", "wrong"):
            post = Post(f"smtp://me:{password}@localhost:{server.port}", "us@example.org", 5, threads)
            sending = post.send("a@example.org", message_id="n1", subject="s", text="t")
            if password == "wrong":
                with pytest.raises(Undelivered, match="The mail server answered 535"):
                    await sending
            else:
                await sending
        assert seen[0] == (b"me", b"s@cret", True) and all(encrypted for *_, encrypted in seen)
        assert len(server.mail) == 1


async def test_a_refused_address_is_in_the_log(database: str) -> None:
    async with staged(database, {}) as stage:
        wanted = Wanted(SinkKind.WEBHOOK, "http://localhost:1/", frozenset({Event.ASKED}))
        made, _ = await add_sink(stage.control, wanted)
        told = await try_sink(stage.control, made.sink_id, patience=PATIENCE)
        assert told.condition == "failed" and told.tries == 1
        assert told.error is not None and "is not a public address" in told.error
        assert await log(stage.control, failed=True) == [told]


def certificate(name: str, folder: Path) -> Path:
    """A certificate for a name that signs itself, with its key."""
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
    )
    now = datetime.now(UTC)
    made: Any = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file
