-- Notifications: where a tenant wants to be told of what, and what became of each telling. The jobs that deliver are
-- Procrastinate's, in schema control_queue; the migration run makes its tables, and walls them off below.

-- audience: roles and persons; with it, a sink is told only of questions that are theirs.
create table control.sink (
    tenant     control.tenant_id not null,
    sink_id    text not null check (sink_id ~ '^[0-9a-f]{8}$'),
    kind       text not null check (kind in ('webhook', 'mail')),
    target     text not null check (target <> '' and length(target) <= 2000),
    events     text[] not null check (events <> '{}'),
    audience   text[] check (audience <> '{}'),
    made_by    text not null,
    made_at    timestamptz not null,
    removed_by text,
    removed_at timestamptz,
    primary key (tenant, sink_id),
    check ((removed_by is null) = (removed_at is null))
);

-- What signs a webhook's messages. The one before is valid beside it for a while.
create table control.sink_secret (
    tenant       control.tenant_id not null,
    sink_id      text not null,
    secret       bytea not null check (length(secret) between 24 and 64),
    before       bytea,
    before_until timestamptz,
    primary key (tenant, sink_id),
    foreign key (tenant, sink_id) references control.sink (tenant, sink_id),
    check ((before is null) = (before_until is null))
);

-- One telling of one entry to one sink; of none where somebody tried the sink out.
create table control.notice (
    tenant       control.tenant_id not null,
    notice_id    uuid not null default gen_random_uuid(),
    sink_id      text not null,
    event        text not null,
    run_id       uuid,
    seq          bigint,
    made_at      timestamptz not null,
    tries        int not null default 0,
    tried_at     timestamptz,
    delivered_at timestamptz,
    failed_at    timestamptz,
    error        text,
    primary key (tenant, notice_id),
    unique (tenant, run_id, seq, sink_id),
    foreign key (tenant, sink_id) references control.sink (tenant, sink_id),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade,
    check ((run_id is null) = (seq is null)),
    check (delivered_at is null or failed_at is null)
);
create index notice_listed on control.notice (tenant, made_at desc, notice_id);

-- Every ledger entry that somebody may want to be told of, whoever appends it. Deferred, so that it sees the run and the
-- question as the transaction leaves them; whether a run failed or is blocked is its status, not the entry's to say.
create function control.announce() returns trigger language plpgsql as $$
declare
    happened text := new.kind;
    whom     text[];
begin
    if not exists (select from control.sink where tenant = new.tenant and removed_at is null) then
        return null;
    end if;
    if new.kind in ('ended', 'worker_lost') then
        select case when status in ('failed', 'abandoned') then 'failed' when status = 'blocked' then 'blocked' end
        into happened
        from control.run r
        where r.tenant = new.tenant and r.run_id = new.run_id
          and not exists (select from control.ledger l
                          where l.tenant = new.tenant and l.run_id = new.run_id and l.seq > new.seq
                            and l.kind in ('ended', 'worker_lost'));
        if happened is null then
            return null;
        end if;
    else
        whom := control.addressed(new.tenant, new.run_id, new.body::jsonb);
    end if;
    insert into control.notice (tenant, sink_id, event, run_id, seq, made_at)
    select new.tenant, s.sink_id, happened, new.run_id, new.seq, new.at
    from control.sink s
    where s.tenant = new.tenant and s.removed_at is null and happened = any (s.events)
      and (s.audience is null or s.audience && whom);
    return null;
end $$;

-- Whose a question is: those that a rung calls in, or else those whom its gate names; and its assignee.
create function control.addressed(of_tenant text, of_run uuid, body jsonb) returns text[] language plpgsql stable as $$
begin return (
    select array_agg(name)
    from control.approval a,
         lateral (select jsonb_array_elements_text(coalesce(
                      (body -> 'to') || coalesce(body -> 'notify', '[]'),
                      coalesce(a.gate -> 'roles', '[]') || coalesce(a.gate -> 'voters', '[]')))
                  union all select a.assignee where a.assignee is not null) as named(name)
    where a.tenant = of_tenant and a.run_id = of_run and a.interrupt_id = body ->> 'interrupt_id'
); end $$;

-- An attempt that finished its graph cannot have failed: those, by far the most, stop at this condition.
create constraint trigger ledger_is_announced after insert on control.ledger deferrable initially deferred for each row
    when (new.kind in ('asked', 'escalated', 'reassigned', 'expired', 'decided', 'worker_lost')
          or (new.kind = 'ended' and new.body not like '%"execution":"finished"%'))
    execute function control.announce();

-- The job goes with the row. It holds ids alone.
create function control.enqueue() returns trigger language plpgsql as $$
begin
    insert into control_queue.procrastinate_jobs (queue_name, task_name, args)
    values ('notices', 'deliver', jsonb_build_object('tenant', new.tenant::text, 'notice', new.notice_id));
    return null;
end $$;
create trigger notice_is_enqueued after insert on control.notice for each row execute function control.enqueue();

do $$
declare tenant_table text;
begin
    foreach tenant_table in array array['sink', 'sink_secret', 'notice'] loop
        execute format('alter table control.%I enable row level security', tenant_table);
        execute format('alter table control.%I force row level security', tenant_table);
        execute format('create policy command on control.%I to control_command
            using (tenant = (select control.commanded_tenant()))', tenant_table);
    end loop;
    foreach tenant_table in array array['sink', 'notice'] loop
        execute format('create policy flush on control.%I to control_flush
            using (tenant = any ((select control.flushed_tenants())::text[]))', tenant_table);
    end loop;
end $$;

grant select, insert on control.sink, control.notice to control_command;
grant update (removed_by, removed_at) on control.sink to control_command;
grant update (tries, tried_at, delivered_at, failed_at, error) on control.notice to control_command;
grant select, insert, delete on control.sink_secret to control_command;
grant update (secret, before, before_until) on control.sink_secret to control_command;
grant select on control.sink to control_flush;
grant insert on control.notice to control_flush;

-- Whoever causes a job may only add it, and only for its own tenant; the claim role works jobs off. Procrastinate names
-- its tables without their schema. Its triggers keep a log of their own beside the jobs, with its owner's rights: nobody
-- can call a trigger. Called again whenever the queue's own schema may have changed.
create function control.build_queue() returns void language plpgsql as $$
declare routine record;
begin
    for routine in select oid::regprocedure as name, prorettype = 'trigger'::regtype as fires from pg_proc
                   where pronamespace = 'control_queue'::regnamespace loop
        execute format('alter function %s set search_path = control_queue, pg_temp', routine.name);
        if routine.fires then
            execute format('alter function %s security definer', routine.name);
        end if;
    end loop;
    grant usage on schema control_queue to control_command, control_flush, control_claim;
    grant select, insert, update, delete on all tables in schema control_queue to control_claim;
    grant usage on all sequences in schema control_queue to control_claim;
    grant insert on control_queue.procrastinate_jobs to control_command, control_flush;
    grant usage on sequence control_queue.procrastinate_jobs_id_seq to control_command, control_flush;
    if not exists (select from pg_policy where polrelid = 'control_queue.procrastinate_jobs'::regclass) then
        alter table control_queue.procrastinate_jobs enable row level security, force row level security;
        create policy claim on control_queue.procrastinate_jobs to control_claim using (true);
        create policy command on control_queue.procrastinate_jobs for insert to control_command
            with check (args ->> 'tenant' = (select control.commanded_tenant()));
        create policy flush on control_queue.procrastinate_jobs for insert to control_flush
            with check (args ->> 'tenant' = any ((select control.flushed_tenants())::text[]));
    end if;
end $$;
revoke execute on function control.build_queue() from public;
