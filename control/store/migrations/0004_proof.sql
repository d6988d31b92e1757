-- The ledger that proves it: trees over the runs' heads, the keys that sign them, erasure on record, and retention.

-- Names the database for good. A copy keeps the name, which is how an earlier copy is known for one.
create table control.lineage (
    one     boolean primary key default true check (one),
    lineage uuid not null,
    since   timestamptz not null default control.clock()
);
insert into control.lineage (lineage) values (gen_random_uuid());

-- The public keys that sign. `text` is the statement that brings a key in, `signature` that of the key it replaces, or
-- its own. A key is valid until another replaces it. The private keys are never here.
create table control.signing_key (
    key_id    text primary key check (key_id ~ '^[0-9a-f]{16}$'),
    public    bytea not null check (length(public) = 32),
    replaces  text unique references control.signing_key (key_id),
    made_by   text not null,
    since     timestamptz not null,
    text      text not null,
    signature bytea not null check (length(signature) = 64)
);

-- A tree over heads that have moved since the tree before; control/core/tree.py says what `text` is and what is signed.
create table control.tree (
    tenant    control.tenant_id not null,
    number    bigint not null check (number > 0),
    at        timestamptz not null,
    size      int not null,
    text      text not null,
    digest    bytea not null,
    restored  boolean not null default false,
    key_id    text references control.signing_key (key_id),
    signature bytea,
    primary key (tenant, number),
    check ((key_id is null) = (signature is null))
);

create table control.tree_leaf (
    tenant control.tenant_id not null,
    number bigint not null,
    place  int not null,
    run_id uuid not null,
    seq    bigint not null,
    hash   bytea not null,
    primary key (tenant, number, place),
    unique (tenant, run_id, seq),
    foreign key (tenant, number) references control.tree (tenant, number)
);

-- Whom a run is about, so that everything about a person can be found. Not part of the ledger: it is erased too.
create table control.run_subject (
    tenant  control.tenant_id not null,
    subject text not null check (subject <> '' and length(subject) <= 255),
    run_id  uuid not null,
    primary key (tenant, subject, run_id),
    unique (tenant, run_id, subject),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);

-- How long a tenant keeps its payloads. Not below half a year, whoever asks.
create table control.retention (
    tenant control.tenant_id primary key,
    days   int not null constraint retention_floor check (days >= 180),
    set_by text not null,
    set_at timestamptz not null
);

alter table control.run add column erased_at timestamptz;
create index run_closed on control.run (tenant, closed_at) where closed_at is not null and erased_at is null;

-- What was appended since an instant: entries come nearly in the order of their time, so a few pages are looked at.
create index ledger_at on control.ledger using brin (at) with (pages_per_range = 16, autosummarize = on);

-- Append-only, but for one thing: a body may become null, where the same transaction has appended an entry that says so.
-- That entry comes after it in the run's chain and is never erased itself.
create function control.erase_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and old.kind <> 'erased' and old.body is not null and new.body is null
       and (to_jsonb(new) - 'body') = (to_jsonb(old) - 'body')
       and exists (select from control.ledger e
                   where e.tenant = old.tenant and e.run_id = old.run_id and e.seq > old.seq and e.kind = 'erased'
                     and e.body is not null and e.xmin = pg_current_xact_id()::xid) then
        return new;
    end if;
    raise exception using errcode = 'CTL01', message = 'the ledger is append-only',
        hint = 'Record a correction as a new entry.';
end $$;
drop trigger ledger_is_append_only on control.ledger;
create trigger ledger_is_append_only before update or delete on control.ledger
    for each row execute function control.erase_only();

do $$
declare kept text;
begin
    foreach kept in array array['lineage', 'signing_key', 'tree', 'tree_leaf'] loop
        execute format('create trigger %I before update or delete on control.%I
            for each row execute function control.refuse_change()', kept || '_is_append_only', kept);
        execute format('create trigger %I before truncate on control.%I
            for each statement execute function control.refuse_change()', kept || '_is_never_truncated', kept);
    end loop;
end $$;

do $$
declare tenant_table text;
begin
    foreach tenant_table in array array['tree', 'tree_leaf', 'run_subject', 'retention'] loop
        execute format('alter table control.%I enable row level security', tenant_table);
        execute format('alter table control.%I force row level security', tenant_table);
        execute format('create policy command on control.%I to control_command
            using (tenant = (select control.commanded_tenant()))', tenant_table);
        execute format('create policy flush on control.%I to control_flush
            using (tenant = any ((select control.flushed_tenants())::text[]))', tenant_table);
    end loop;
end $$;

grant select on control.lineage, control.signing_key to control_command, control_flush, control_claim;
grant insert on control.signing_key to control_command;
grant select on control.tree, control.tree_leaf to control_command;
grant select, insert on control.tree, control.tree_leaf to control_flush;
grant select, insert on control.run_subject to control_command;
grant select, delete on control.run_subject to control_flush;
grant select, insert, update on control.retention to control_command;
grant select on control.retention to control_flush;

-- Erasing is the flush role's, which may delete checkpoints already.
grant update (body) on control.ledger to control_flush;
grant select, delete on control.run_input to control_flush;
grant update (created_at) on control.thread to control_flush;  -- to lock it; nobody changes it
