"""Where everything that holds a socket, a pool or a clock is built, from the settings, and closed again.

    async with opened(settings) as app:
        await app.worker().run()

`checkpointer` is what `langgraph.json` names, so that `langgraph dev` writes through the saver that governs; `saver`
and `saver_sync` are the same for scripts.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from control import settings as configuration
from control.core.principal import Principal
from control.runtime.commands import Control
from control.runtime.signing import Keys
from control.settings import Settings
from control.store import embedded
from control.store.database import Address, Database
from control.store.flush import Flusher
from control.store.migrations import migrate
from control.store.serde import StrictSerializer
from control.store.session import Session

if TYPE_CHECKING:  # imported where they are made: a command that only decides or looks needs no LangGraph runtime
    from concurrent.futures import Executor

    from control.identity.bearer import Bearers
    from control.runtime.authentication import Authentication
    from control.runtime.webhook import Webhooks
    from control.runtime.worker import Worker
    from control.runtime.workflows import Workflow
    from control.store.queue import Queue
    from control.store.saver import ControlSaver

_AT_ONCE: Final = 16
"""How many notices a worker delivers at the same time."""


def address(settings: Settings) -> Address:
    """Where the database is. Starts the embedded one, and brings it up to date, where no address is set."""
    if settings.database_url is None:
        conninfo = embedded.ensure(settings.data_dir)
        migrate(conninfo)
        return Address.of(conninfo)
    direct = settings.database_direct_url
    return Address.of(settings.database_url.get_secret_value(), direct.get_secret_value() if direct else None)


def signing_keys(settings: Settings) -> Keys:
    """Where this installation's private keys are."""
    secret = settings.audit_key
    return Keys(settings.audit_folder, secret.get_secret_value() if secret else None)


@dataclass
class App:
    """What one process works with. Its parts are made when they are first asked for."""

    settings: Settings
    database: Database
    flusher: Flusher
    saver: ControlSaver
    given: Mapping[str, Workflow] | None = None

    @cached_property
    def workflows(self) -> Mapping[str, Workflow]:
        """The graphs given, or those of `langgraph.json`; their types may be stored from now on."""
        from control.runtime.workflows import load_workflows

        loaded = load_workflows(self.settings.config) if self.given is None else self.given
        for workflow in loaded.values():
            self.saver.serde.allow(workflow.allowed)
        return loaded

    def control(self, *, principal: Principal | None = None, by: str | None = None, workflows: bool = False) -> Control:
        """The commands, as given by a principal, or by whoever runs this process, who may be named by `by`;
        `workflows` where one of them starts a run.
        """
        who, given = principal or local_person(self.settings, by), self.workflows if workflows else {}
        return _control(self.settings, self.database, self.saver.serde, principal=who, workflows=given)

    def worker(self) -> Worker:
        from control.runtime.attempt import Tools
        from control.runtime.attestation import Attestor
        from control.runtime.worker import Pace, Worker

        s = self.settings
        tools = Tools(self.database, self.saver, self.flusher, s.crash_limit, s.cancel_grace_s)
        pace = Pace(
            slots=s.worker_slots,
            sync_node_threads=s.sync_node_threads,
            poll_s=s.poll_s,
            takeover_poll_s=s.takeover_poll_s,
            failover_wait_s=s.failover_wait_s,
            lease_s=s.lease_s,
            block_after_s=s.block_after_s,
            drain_grace_s=s.drain_grace_s,
            attest_s=s.attest_s,
        )
        attestor = Attestor(self.database, signing_keys(s))
        chores = notifications(s, self.database)
        return Worker(self.database, self.workflows, tools, pace=pace, attestor=attestor, chores=chores)


def webhooks(settings: Settings, threads: Executor | None = None) -> Webhooks:
    """How webhooks are sent; names are resolved in these threads, or in the loop's own."""
    from control.runtime.webhook import Webhooks

    return Webhooks(tuple(map(ip_network, settings.notify_networks)), settings.notify_timeout_s, threads)


def notifications(settings: Settings, database: Database) -> Queue:
    """What delivers this installation's notices."""
    from concurrent.futures import ThreadPoolExecutor

    from control.runtime.courier import Courier
    from control.runtime.mail import Post
    from control.store.queue import Queue

    threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="notify")  # the loop's own may be full of nodes
    timeout_s, mail = settings.notify_timeout_s, settings.smtp_url
    post = Post(mail.get_secret_value(), settings.smtp_sender, timeout_s, threads) if mail else None
    tries, link, kept = settings.notify_tries_limit, settings.notify_link, timedelta(days=settings.notify_kept_days)
    courier = Courier(database, webhooks(settings, threads), post, tries, link, kept, timeout_s)
    lost_after = timedelta(seconds=settings.lease_s)
    return Queue(database.address, courier.deliver, at_once=_AT_ONCE, lost_after=lost_after)


@asynccontextmanager
async def opened(
    settings: Settings, at: Address | None = None, workflows: Mapping[str, Workflow] | None = None
) -> AsyncIterator[App]:
    """Everything of one process, opened, and closed in the reverse order. Raises the problems of `Database.open`."""
    from control.runtime.agency import judge, terms
    from control.runtime.back_doors import permits
    from control.runtime.dissent import dissent
    from control.store.binding import Rules
    from control.store.saver import ControlSaver
    from control.store.writers import ImplicitWriters

    where = await asyncio.to_thread(address, settings) if at is None else at
    database = Database(where, size=settings.pool_limit)
    async with AsyncExitStack() as stack:
        await database.open()
        stack.push_async_callback(database.close)
        flusher = Flusher(
            lambda: database.connect("control_flush"),
            batch_limit=settings.flush_batch_limit,
            queue_limit=settings.flush_queue_limit,
            queue_bytes=settings.flush_queue_limit_mb * 1_000_000,
        )
        await flusher.start()
        stack.push_async_callback(flusher.stop)
        lease = timedelta(seconds=settings.lease_s)
        session = Session(where.session("control_claim"), "writer", lease)
        stack.push_async_callback(asyncio.to_thread, session.stop)
        writers = ImplicitWriters(
            database,
            session,
            tenant=settings.tenant,
            by=_person(),
            crash_limit=settings.crash_limit,
            failover_wait=timedelta(seconds=settings.failover_wait_s),
            permit=permits(local_person(settings)),
        )
        serde = _serde(settings)
        saver = ControlSaver(database.reader, flusher, serde=serde, writers=writers, rules=Rules(dissent, judge, terms))
        yield App(settings, database, flusher, saver, workflows)


@asynccontextmanager
async def commanding(settings: Settings, *, by: str | None = None) -> AsyncIterator[Control]:
    """The commands alone, except those that need a workflow (start, restart). Opens in half the time of `opened`.

    Given by whoever the settings' token stands for, or else by whoever runs this process, who may be named by `by`.
    """
    database = Database(await asyncio.to_thread(address, settings), size=settings.pool_limit)
    await database.open()
    try:
        yield _control(settings, database, _serde(settings), principal=await whoever(settings, database, by))
    finally:
        await database.close()


@asynccontextmanager
async def checkpointer() -> AsyncIterator[ControlSaver]:
    """The saver for `langgraph dev`, and for scripts that drive a graph themselves."""
    async with opened(configuration.read()) as app:
        _ = app.workflows
        yield app.saver


@contextmanager
def saver_sync(settings: Settings | None = None) -> Iterator[ControlSaver]:
    """The same saver for blocking code: its event loop runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="control-saver", daemon=True)
    thread.start()
    context = opened(settings or configuration.read())
    app = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
    try:
        yield app.saver
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _control(
    settings: Settings,
    database: Database,
    serde: StrictSerializer,
    *,
    principal: Principal,
    workflows: Mapping[str, Workflow] | None = None,
) -> Control:
    return Control(
        database=database,
        principal=principal,
        workflows=workflows or {},
        serde=serde,
        crash_limit=settings.crash_limit,
        stall_after=timedelta(seconds=settings.stall_after_s),
        failover_wait=timedelta(seconds=settings.failover_wait_s),
        input_limit=settings.input_limit_mb * 1024 * 1024,
    )


def local_person(settings: Settings, by: str | None = None) -> Principal:
    """Whoever works on the database itself: named by `by` or by the account, with the roles that settings give. An
    administrator there operates the installation; one of a tenant, who has a credential, does not.
    """
    roles = frozenset(settings.local_roles)
    return Principal(by or _person(), settings.tenant, roles=roles, operates="admin" in roles)


async def whoever(settings: Settings, database: Database, by: str | None = None) -> Principal:
    """Who gives orders here. Raises the problems of `Authentication.principal`."""
    if settings.token is None:
        return local_person(settings, by)
    async with authentication(settings, database) as authenticated:
        return await authenticated.principal(settings.token.get_secret_value())


@asynccontextmanager
async def authentication(settings: Settings, database: Database) -> AsyncIterator[Authentication]:
    """What tells who sent a credential. Issuers are read when the first token comes, with a client for their keys."""
    from control.runtime.authentication import Authentication

    async with AsyncExitStack() as stack:

        @cache
        def bearers() -> Bearers:
            import httpx

            from control.identity.bearer import Bearers
            from control.identity.issuers import load

            client = httpx.AsyncClient()
            stack.push_async_callback(client.aclose)
            return Bearers(load(settings.issuers) if settings.issuers is not None else (), client)

        yield Authentication(database, bearers)


def _serde(settings: Settings) -> StrictSerializer:
    return StrictSerializer(secrets=_secrets(settings), patterns=_patterns(settings))


def _person() -> str:
    """Who runs this process: the name of its account, or its number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _secrets(settings: Settings) -> list[str]:
    """The values of the environment variables that settings name as secret."""
    return [os.environ[name] for name in settings.redact if os.environ.get(name)]


def _patterns(settings: Settings) -> list[str]:
    """The regular expressions among what settings name as secret: whatever cannot be a variable's name."""
    return [part for part in settings.redact if not part.isidentifier()]
