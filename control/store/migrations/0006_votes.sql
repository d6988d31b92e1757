-- Votes: how a question is decided by several, in whose place, by whom it is to be decided, and what time does to it.

-- gate: what was fixed when the question was opened (control/core/gate.py), null for one plain yes or no. due_at: what
-- the clock brings next. overdue: its time is over, and the ladder's last rung has it. reviews: how often an assignee
-- was sought because its time had come.
alter table control.approval
    add column gate         jsonb,
    add column due_at       timestamptz,
    add column overdue      boolean not null default false,
    add column rung         smallint not null default 0,
    add column reviews      smallint not null default 0,
    add column assignee     text,
    add column assigned_why text;
create index approval_by_deadline on control.approval (tenant, expires_at, opened_at, run_id) where decision is null;
create index approval_assigned on control.approval (tenant, assignee) where decision is null and assignee is not null;

-- seat: whose vote it is; another than the voter's where somebody stood in. roles: those it was cast with. digest: of
-- the answer, which is what was agreed to beside a yes.
create table control.vote (
    tenant       control.tenant_id not null,
    run_id       uuid not null,
    interrupt_id text not null,
    voter        text not null,
    vote         text not null check (vote in ('yes', 'no')),
    seat         text not null,
    roles        text[] not null default '{}',
    answer       text,
    digest       text not null,
    note         text,
    at           timestamptz not null,
    primary key (tenant, run_id, interrupt_id, voter, vote),
    unique (tenant, run_id, interrupt_id, seat, vote),
    foreign key (tenant, run_id, interrupt_id)
        references control.approval (tenant, run_id, interrupt_id) on delete cascade
);

-- Between two instants the taker may vote in the giver's place, with these roles of theirs.
create table control.delegation (
    tenant        control.tenant_id not null,
    delegation_id uuid not null,
    giver         text not null,
    taker         text not null,
    roles         text[] not null default '{}',
    starts_at     timestamptz not null,
    ends_at       timestamptz not null,
    made_by       text not null,
    made_at       timestamptz not null,
    reason        text,
    revoked_by    text,
    revoked_at    timestamptz,
    primary key (tenant, delegation_id),
    check (giver <> taker and starts_at < ends_at)
);
create index delegation_to on control.delegation (tenant, taker, giver) where revoked_at is null;

-- Whom questions are given to. capacity: how many at once.
create table control.assignee (
    tenant     control.tenant_id not null,
    name       text not null check (name <> ''),
    roles      text[] not null default '{}',
    skills     text[] not null default '{}',
    capacity   int not null check (capacity between 0 and 10000),
    away_until timestamptz,
    set_by     text not null,
    set_at     timestamptz not null,
    primary key (tenant, name)
);

do $$
declare tenant_table text;
begin
    foreach tenant_table in array array['vote', 'delegation', 'assignee'] loop
        execute format('alter table control.%I enable row level security', tenant_table);
        execute format('alter table control.%I force row level security', tenant_table);
        execute format('create policy command on control.%I to control_command
            using (tenant = (select control.commanded_tenant()))', tenant_table);
        execute format('create policy flush on control.%I to control_flush
            using (tenant = any ((select control.flushed_tenants())::text[]))', tenant_table);
    end loop;
end $$;

grant select, insert on control.vote to control_command;
grant select, insert, update on control.delegation to control_command;
grant select, insert, update, delete on control.assignee to control_command;
grant select on control.vote, control.assignee to control_flush;
grant update (answer, note) on control.vote to control_flush;  -- erasing is the flush role's
