-- The governed run: threads, runs, claims, questions, waits, signals, effects and the ledger.
--
-- Three roles, none of which may see a tenant it was not told to work for:
--   control_command  commands and reads; one tenant a transaction (setting control.tenant)
--   control_flush    the worker's writes; the tenants of one flush (setting control.tenants), each item checked
--   control_claim    finding work: every tenant's runs, but only the columns that claiming takes
-- LangGraph's own tables stay as its saver makes them.

do $$
declare wanted text;
begin
    foreach wanted in array array['control_command', 'control_flush', 'control_claim'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole nobypassrls', wanted);
        end if;
    end loop;
exception when duplicate_object or unique_violation then
    null;  -- another database of this server is being migrated at the same moment
end $$;

create schema control;

-- The only source of time. Tests replace it in their template database.
create function control.clock() returns timestamptz language sql volatile parallel safe
    as 'select pg_catalog.clock_timestamp()';

-- The ledger's chain: hash = sha256(previous hash || link). The aggregate starts from the first value it is given,
-- the run's last hash, and so gives each further row its own hash when used as a window function.
create function control.chain_step(hash bytea, link bytea) returns bytea language sql immutable strict parallel safe
    as 'select sha256(hash || link)';
create aggregate control.chain(bytea) (sfunc = control.chain_step, stype = bytea, parallel = safe);

create function control.link(seq bigint, at timestamptz, kind text, actor text, epoch bigint, digest bytea)
    returns bytea language sql stable strict parallel safe
    as $$ select convert_to(
        seq || '|' || (extract(epoch from at) * 1000000)::bigint || '|' || kind || '|' || actor || '|' || epoch || '|',
        'UTF8') || digest $$;

create function control.commanded_tenant() returns text language sql stable parallel safe
    as $$ select current_setting('control.tenant', true) $$;
create function control.flushed_tenants() returns text[] language sql stable parallel safe
    as $$ select string_to_array(current_setting('control.tenants', true), ',') $$;

create domain control.tenant_id as text check (value ~ '^[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,99}$');

create table control.migration (
    version    int primary key,
    name       text not null,
    checksum   text not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- A process that may hold claims. It lives while a session of its own holds the advisory lock (classid, lock_id), or,
-- where a whole machine or its network is lost, until the lease runs out.
create table control.worker (
    worker_id       uuid primary key,
    lock_id         int not null generated always as identity unique,
    kind            text not null check (kind in ('worker', 'writer')),
    host            text not null,
    pid             int not null,
    digests         text[] not null default '{}',
    draining        boolean not null default false,
    server_start_at timestamptz not null default pg_postmaster_start_time(),
    started_at      timestamptz not null default control.clock(),
    lease_until     timestamptz not null,
    ended_at        timestamptz
);
create index worker_living on control.worker (lease_until) where ended_at is null;

-- The first half of every worker's advisory lock: "cntr" as a number.
create function control.lock_class() returns int language sql immutable parallel safe as 'select 1668183154';

-- The locks of workers that a session holds at this moment. Reads what the server knows; nobody tries a lock.
create view control.living as
    select objid::bigint as lock_id from pg_locks
    where locktype = 'advisory' and classid::bigint = control.lock_class() and objsubid = 2 and granted
      and database = (select oid from pg_database where datname = current_database());

create table control.thread (
    tenant     control.tenant_id not null,
    thread_id  text not null check (thread_id <> '' and length(thread_id) <= 255),
    created_at timestamptz not null default control.clock(),
    primary key (tenant, thread_id),
    unique (thread_id)
);

create table control.run (
    tenant             control.tenant_id not null,
    run_id             uuid not null,
    thread_id          text not null,
    fresh_thread       boolean not null default false,
    workflow           text,
    graph_digest       text,
    config             jsonb not null default '{}',
    priority           smallint not null default 0,
    created_at         timestamptz not null,
    created_by         text not null,
    restarted_from     uuid,
    not_before         timestamptz,
    -- the claim
    epoch              bigint not null default 0,
    worker_id          uuid,
    claimed_at         timestamptz,
    progress_at        timestamptz,
    blocked_in         text,
    -- the checkpoint's state when nobody works, and the head at all times
    execution          text not null default 'none',
    head_checkpoint_id text,
    head_step          int,
    parts              text[] not null default '{}',
    parts_total        int,
    -- the last attempt
    outcome            text,
    outcome_at         timestamptz,
    failure_class      text,
    failure            jsonb,
    crashes            int not null default 0,
    retries            int not null default 0,
    retry_at           timestamptz,
    woken_at           timestamptz,
    takeovers          int not null default 0,
    shortfalls         int not null default 0,
    branch             int not null default 0,
    fit                text not null default 'fits' check (fit in ('fits', 'changed')),
    -- standing orders
    pause_at           timestamptz,
    pause_by           text,
    cancel_at          timestamptz,
    cancel_by          text,
    -- the ledger's head
    ledger_seq         bigint not null default 0,
    ledger_hash        bytea not null default '\x0000000000000000000000000000000000000000000000000000000000000000',
    -- the number of the last flush that wrote it under this epoch: a flush sent again is known by it
    last_flush         bigint not null default 0,
    -- the part of the status that does not depend on the clock; see control/core/run_status.py
    version            bigint not null default 0,
    status             text not null default 'queued',
    since              timestamptz not null,
    due_at             timestamptz,
    closed_at          timestamptz,
    primary key (tenant, run_id),
    foreign key (tenant, thread_id) references control.thread (tenant, thread_id)
) with (fillfactor = 70);
create unique index run_open_on_thread on control.run (thread_id) where closed_at is null;
create index run_on_thread on control.run (tenant, thread_id, created_at desc);
create index run_listed on control.run (tenant, created_at desc, run_id desc);
create index run_listed_by_status on control.run (tenant, status, created_at desc, run_id desc);
create index run_claimable on control.run (tenant, priority desc, created_at, run_id)
    where status = 'queued' and worker_id is null;
create index run_claimed on control.run (worker_id) include (tenant) where worker_id is not null;
create index run_due on control.run (due_at) where due_at is not null and worker_id is null;
create index run_unfit on control.run (workflow) where fit = 'changed' and closed_at is null;

-- What a run was started with, as LangGraph's serialiser writes it. Apart from the run, whose row is written often.
create table control.run_input (
    tenant control.tenant_id not null,
    run_id uuid not null,
    type   text not null,
    data   bytea not null,
    primary key (tenant, run_id),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);

-- A question only a person may answer: an approval, a typed input, or an effect in doubt.
create table control.approval (
    tenant        control.tenant_id not null,
    run_id        uuid not null,
    interrupt_id  text not null,
    checkpoint_id text not null,
    node          text not null,
    kind          text not null check (kind in ('approval', 'input', 'doubt')),
    title         text not null,
    packet        text not null,
    packet_digest bytea not null,
    schema        jsonb,
    opened_at     timestamptz not null,
    expires_at    timestamptz,
    decision      text check (decision in ('approved', 'rejected', 'answered', 'superseded')),
    answer        text,
    note          text,
    decided_by    text,
    decided_at    timestamptz,
    delivered_at  timestamptz,
    primary key (tenant, run_id, interrupt_id),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);
create index approval_open on control.approval (tenant, opened_at, run_id) where decision is null;

-- A suspension that no person ends: a clock or a signal.
create table control.wait (
    tenant        control.tenant_id not null,
    run_id        uuid not null,
    interrupt_id  text not null,
    checkpoint_id text not null,
    node          text not null,
    kind          text not null check (kind in ('timer', 'signal')),
    due_at        timestamptz,
    signal        text,
    opened_at     timestamptz not null,
    payload       text,
    fired_at      timestamptz,
    withdrawn_at  timestamptz,
    delivered_at  timestamptz,
    primary key (tenant, run_id, interrupt_id),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade,
    check ((kind = 'timer') = (due_at is not null) and (kind = 'signal') = (signal is not null))
);

-- Signals that came before anybody waited for them, in order.
create table control.signal (
    tenant     control.tenant_id not null,
    run_id     uuid not null,
    n          bigint not null generated always as identity,
    name       text not null,
    payload    text not null,
    sent_by    text not null,
    sent_at    timestamptz not null,
    primary key (tenant, run_id, n),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);

-- A change outside, or a model's answer: what was intended, and what came of it.
create table control.effect (
    tenant          control.tenant_id not null,
    run_id          uuid not null,
    effect_key      text not null,
    name            text not null,
    kind            text not null check (kind in ('effect', 'model')),
    state           text not null check (state in ('began', 'done', 'failed')),
    calls           int not null default 1,
    epoch           bigint not null,
    outcome_type    text,
    outcome         bytea,
    how             text,
    error           text,
    began_at        timestamptz not null,
    ended_at        timestamptz,
    primary key (tenant, run_id, effect_key),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);

-- Append-only. body is stored text, digest its sha256; an erased body leaves the chain whole.
create table control.ledger (
    tenant  control.tenant_id not null,
    run_id  uuid not null,
    seq     bigint not null,
    at      timestamptz not null,
    kind    text not null,
    actor   text not null,
    epoch   bigint not null,
    body    text,
    digest  bytea not null,
    hash    bytea not null,
    primary key (tenant, run_id, seq)
);

create function control.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'CTL01', message = 'the ledger is append-only',
        hint = 'Record a correction as a new entry.';
end $$;
create trigger ledger_is_append_only before update or delete on control.ledger
    for each row execute function control.refuse_change();
create trigger ledger_is_never_truncated before truncate on control.ledger
    for each statement execute function control.refuse_change();

-- Row security: no tenant told, no row seen.
do $$
declare tenant_table text;
begin
    foreach tenant_table in array array['thread', 'run', 'run_input', 'approval', 'wait', 'signal', 'effect', 'ledger'] loop
        execute format('alter table control.%I enable row level security', tenant_table);
        execute format('alter table control.%I force row level security', tenant_table);
        execute format('create policy command on control.%I to control_command
            using (tenant = (select control.commanded_tenant()))', tenant_table);
        execute format('create policy flush on control.%I to control_flush
            using (tenant = any ((select control.flushed_tenants())::text[]))', tenant_table);
    end loop;
end $$;
create policy claim on control.run to control_claim using (true);
create policy claim on control.run_input for select to control_claim using (true);
create policy claim on control.ledger for insert to control_claim with check (true);

grant usage on schema control, public to control_command, control_flush, control_claim;
grant select on control.migration to control_command, control_flush, control_claim;
grant select on control.worker to control_command, control_flush;
grant select on control.living to control_command, control_flush, control_claim;
grant select, insert, update on control.worker to control_claim;

grant select, insert on control.thread, control.run, control.run_input to control_command;
grant update on control.run to control_command;
grant select, insert, update on control.approval, control.wait to control_command;
grant select, insert, update, delete on control.signal to control_command;
grant select on control.effect to control_command;
grant select, insert on control.ledger to control_command;
grant select, insert on checkpoints to control_command;
grant select on checkpoint_blobs, checkpoint_writes to control_command;

grant select, insert on control.thread, control.run, control.ledger to control_flush;
grant update on control.run to control_flush;
grant select, insert, update on control.approval, control.wait, control.effect to control_flush;
grant select, delete on control.signal to control_flush;
grant select, insert, update, delete on checkpoints, checkpoint_blobs, checkpoint_writes to control_flush;

grant select (tenant, run_id, thread_id, fresh_thread, workflow, graph_digest, config, priority, created_at, epoch,
              worker_id, execution, parts, retries, crashes, branch, shortfalls, fit, pause_at, cancel_at, ledger_seq,
              ledger_hash, version, status, since, due_at, closed_at)
    on control.run to control_claim;
grant update (epoch, worker_id, graph_digest, claimed_at, progress_at, blocked_in, outcome, outcome_at, retry_at,
              last_flush, ledger_seq, ledger_hash, version, status, since, due_at)
    on control.run to control_claim;
grant select on control.run_input to control_claim;
grant insert on control.ledger to control_claim;
