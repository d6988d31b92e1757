-- What all migrations come to. Written by `python -m tests.tidy.schema`; migrations are the source.

CREATE SCHEMA control;

CREATE DOMAIN control.tenant_id AS text
	CONSTRAINT tenant_id_check CHECK ((VALUE ~ '^[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,99}$'::text));

CREATE FUNCTION control.addressed(of_tenant text, of_run uuid, body jsonb) RETURNS text[]
    LANGUAGE plpgsql STABLE
    AS $$
begin return (
    select array_agg(name)
    from control.approval a,
         lateral (select jsonb_array_elements_text(coalesce(
                      (body -> 'to') || coalesce(body -> 'notify', '[]'),
                      coalesce(a.gate -> 'roles', '[]') || coalesce(a.gate -> 'voters', '[]')))
                  union all select a.assignee where a.assignee is not null) as named(name)
    where a.tenant = of_tenant and a.run_id = of_run and a.interrupt_id = body ->> 'interrupt_id'
); end $$;

CREATE FUNCTION control.announce() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION control.build_queue() RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION control.build_walls() RETURNS void
    LANGUAGE plpgsql
    AS $$
declare t record;
begin
    for t in select * from control.walled_tables() w
             where not exists (select from pg_policy where polrelid = w.walled and polname = 'control_flush') loop
        execute format('alter table %s enable row level security', t.walled);
        execute format('create policy control_command on %s to control_command using (%s)', t.walled, t.commanded);
        execute format('create policy control_flush on %s to control_flush using (%s)', t.walled, t.flushed);
        execute format('grant %s on %s to control_command', t.command, t.walled);
        execute format('grant %s on %s to control_flush', t.flush, t.walled);
    end loop;
end $$;

CREATE FUNCTION control.chain_step(hash bytea, link bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$select sha256(hash || link)$$;

CREATE FUNCTION control.clock() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$select pg_catalog.clock_timestamp()$$;

CREATE FUNCTION control.commanded_tenant() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ select current_setting('control.tenant', true) $$;

CREATE FUNCTION control.enqueue() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    insert into control_queue.procrastinate_jobs (queue_name, task_name, args)
    values ('notices', 'deliver', jsonb_build_object('tenant', new.tenant::text, 'notice', new.notice_id));
    return null;
end $$;

CREATE FUNCTION control.erase_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION control.flushed_tenants() RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ select string_to_array(current_setting('control.tenants', true), ',') $$;

CREATE FUNCTION control.gone(holder uuid, grace interval) RETURNS text
    LANGUAGE plpgsql
    AS $$
begin
    return (
        select case
            when w.ended_at is not null then 'it left'
            when w.holds and w.lease_until > clock_timestamp() then null
            when w.server_seen_at is distinct from server.seen_at and clock_timestamp() <= server.seen_at + grace
                 then null
            when w.holds then 'its lease ran out'
            else 'its session is gone' end
        from (select control.server_seen_at() as seen_at) server
        left join (select *, lock_id in (select lock_id from control.living) as holds from control.worker) w
            on w.worker_id = holder
    );
end $$;

CREATE FUNCTION control.keep_revoked() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'CTL02', message = 'a revoked key stays revoked', hint = 'Make another one.';
end $$;

CREATE FUNCTION control.link(seq bigint, at timestamp with time zone, kind text, actor text, epoch bigint, digest bytea) RETURNS bytea
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$ select convert_to(
        seq || '|' || (extract(epoch from at) * 1000000)::bigint || '|' || kind || '|' || actor || '|' || epoch || '|',
        'UTF8') || digest $$;

CREATE FUNCTION control.lock_class() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$select 1668183154$$;

CREATE FUNCTION control.overdrawn(of_tenant text) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
begin
    return exists (
        select from (select * from control.tenant_limit where tenant = of_tenant order by version desc limit 1) l,
                    control.clock() as now
        where l.usd <= (select coalesce(sum(h.usd), 0) from control.spend_hour h
                        where h.tenant = of_tenant and h.hour >= date_trunc(l.usd_per, now, 'UTC'))
           or l.tokens <= (select coalesce(sum(h.tokens), 0) from control.spend_hour h
                           where h.tenant = of_tenant and h.hour >= date_trunc(l.tokens_per, now, 'UTC')));
end $$;

CREATE FUNCTION control.presented_digest() RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ select decode(current_setting('control.presented', true), 'hex') $$;

CREATE FUNCTION control.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'CTL01', message = 'the ledger is append-only',
        hint = 'Record a correction as a new entry.';
end $$;

CREATE FUNCTION control.remove_walls() RETURNS text[]
    LANGUAGE plpgsql
    AS $$
declare t record; freed text[] := '{}';
begin
    for t in select * from control.walled_tables() loop
        execute format('drop policy if exists control_command on %s', t.walled);
        execute format('drop policy if exists control_flush on %s', t.walled);
        execute format('alter table %s disable row level security', t.walled);
        execute format('revoke all on %s from control_command, control_flush, control_claim', t.walled);
        freed := freed || t.walled::text;
    end loop;
    return freed;
end $$;

CREATE FUNCTION control.rooms(of_tenants text[]) RETURNS TABLE(tenant text, room bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare limited text;
begin
    if not exists (select from control.tenant_limit) then
        return;
    end if;
    for limited in
        select distinct l.tenant::text from control.tenant_limit l
        where l.tenant = any (of_tenants) and l.runs_at_once is not null order by 1
    loop
        perform pg_advisory_xact_lock(hashtextextended('control.limit ' || limited, 0));
    end loop;
    return query
        select l.tenant::text,
               case when control.overdrawn(l.tenant) then 0
                    when l.runs_at_once is not null then greatest(l.runs_at_once - coalesce(busy.n, 0), 0) end
        from (select distinct on (t.tenant) t.* from control.tenant_limit t where t.tenant = any (of_tenants)
              order by t.tenant, t.version desc) l
        left join (select r.tenant, count(*) as n from control.run r where r.worker_id is not null group by r.tenant)
            busy on busy.tenant = l.tenant
        where l.runs_at_once is not null or l.usd is not null or l.tokens is not null;
end $$;

CREATE FUNCTION control.server_seen_at() RETURNS timestamp with time zone
    LANGUAGE plpgsql
    AS $$
declare seen timestamptz;
begin
    select s.seen_at into seen from control.server_seen s where s.start_at = pg_postmaster_start_time();
    if found then
        return seen;
    end if;
    seen := clock_timestamp();
    if not current_setting('transaction_read_only')::bool and pg_try_advisory_xact_lock(control.lock_class()) then
        insert into control.server_seen values (pg_postmaster_start_time(), seen) on conflict do nothing;
    end if;
    return seen;
end $$;

CREATE FUNCTION control.walled_tables() RETURNS TABLE(walled regclass, command text, flush text, commanded text, flushed text)
    LANGUAGE sql STABLE
    AS $$
    select to_regclass(name), command, flush, owned, owned
    from (values ('checkpoints', 'select, insert', 'select, insert, update, delete'),
                 ('checkpoint_blobs', 'select', 'select, insert, update, delete'),
                 ('checkpoint_writes', 'select', 'select, insert, update, delete')) as t(name, command, flush),
         -- The policy of control.thread says which of its rows the role may see.
         format('exists (select from control.thread t where t.thread_id = %I.thread_id)', name) as owned
    where to_regclass(name) is not null
    union all
    select to_regclass(name), 'select', 'select, insert, update, delete',
           'split_part(prefix, ''.'', 1) = (select control.commanded_tenant())',
           'split_part(prefix, ''.'', 1) = any ((select control.flushed_tenants())::text[])'
    from unnest(array['store', 'store_vectors']) as name
    where to_regclass(name) is not null
$$;

CREATE AGGREGATE control.chain(bytea) (
    SFUNC = control.chain_step,
    STYPE = bytea,
    PARALLEL = safe
);

CREATE TABLE control.api_key (
    tenant control.tenant_id NOT NULL,
    key_id text NOT NULL,
    digest bytea NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    roles text[] NOT NULL,
    scopes text[],
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_on date,
    revoked_by text,
    revoked_at timestamp with time zone,
    via text[] DEFAULT '{}'::text[] NOT NULL,
    made_with text,
    CONSTRAINT api_key_check CHECK ((expires_at > created_at)),
    CONSTRAINT api_key_check1 CHECK (((revoked_by IS NULL) = (revoked_at IS NULL))),
    CONSTRAINT api_key_digest_check CHECK ((length(digest) = 32)),
    CONSTRAINT api_key_key_id_check CHECK ((key_id ~ '^[0-9a-f]{16}$'::text)),
    CONSTRAINT api_key_kind_check CHECK ((kind = ANY (ARRAY['person'::text, 'service'::text, 'agent'::text]))),
    CONSTRAINT api_key_name_check CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT api_key_roles_check CHECK ((roles <> '{}'::text[]))
);

ALTER TABLE ONLY control.api_key FORCE ROW LEVEL SECURITY;

CREATE TABLE control.approval (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    interrupt_id text NOT NULL,
    checkpoint_id text NOT NULL,
    node text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    packet text NOT NULL,
    packet_digest bytea NOT NULL,
    schema jsonb,
    opened_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    decision text,
    answer text,
    note text,
    decided_by text,
    decided_at timestamp with time zone,
    delivered_at timestamp with time zone,
    gate jsonb,
    due_at timestamp with time zone,
    overdue boolean DEFAULT false NOT NULL,
    rung smallint DEFAULT 0 NOT NULL,
    reviews smallint DEFAULT 0 NOT NULL,
    assignee text,
    assigned_why text,
    stale jsonb,
    consumed_by text,
    consumed_at timestamp with time zone,
    returned text,
    CONSTRAINT approval_consumed_check CHECK (((consumed_by IS NULL) OR (decision = 'approved'::text))),
    CONSTRAINT approval_decision_check CHECK ((decision = ANY (ARRAY['approved'::text, 'rejected'::text, 'answered'::text, 'superseded'::text, 'stale'::text]))),
    CONSTRAINT approval_kind_check CHECK ((kind = ANY (ARRAY['approval'::text, 'input'::text, 'doubt'::text])))
);

ALTER TABLE ONLY control.approval FORCE ROW LEVEL SECURITY;

CREATE TABLE control.assignee (
    tenant control.tenant_id NOT NULL,
    name text NOT NULL,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    skills text[] DEFAULT '{}'::text[] NOT NULL,
    capacity integer NOT NULL,
    away_until timestamp with time zone,
    set_by text NOT NULL,
    set_at timestamp with time zone NOT NULL,
    CONSTRAINT assignee_capacity_check CHECK (((capacity >= 0) AND (capacity <= 10000))),
    CONSTRAINT assignee_name_check CHECK ((name <> ''::text))
);

ALTER TABLE ONLY control.assignee FORCE ROW LEVEL SECURITY;

CREATE TABLE control.delegation (
    tenant control.tenant_id NOT NULL,
    delegation_id uuid NOT NULL,
    giver text NOT NULL,
    taker text NOT NULL,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    made_by text NOT NULL,
    made_at timestamp with time zone NOT NULL,
    reason text,
    revoked_by text,
    revoked_at timestamp with time zone,
    CONSTRAINT delegation_check CHECK (((giver <> taker) AND (starts_at < ends_at)))
);

ALTER TABLE ONLY control.delegation FORCE ROW LEVEL SECURITY;

CREATE TABLE control.effect (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    effect_key text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    calls integer DEFAULT 1 NOT NULL,
    epoch bigint NOT NULL,
    outcome_type text,
    outcome bytea,
    how text,
    error text,
    began_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT effect_kind_check CHECK ((kind = ANY (ARRAY['effect'::text, 'model'::text]))),
    CONSTRAINT effect_state_check CHECK ((state = ANY (ARRAY['began'::text, 'done'::text, 'failed'::text])))
);

ALTER TABLE ONLY control.effect FORCE ROW LEVEL SECURITY;

CREATE TABLE control.fact (
    tenant control.tenant_id NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    set_at timestamp with time zone NOT NULL,
    set_by text NOT NULL,
    CONSTRAINT fact_name_check CHECK ((name <> ''::text)),
    CONSTRAINT fact_value_check CHECK ((value IS JSON))
);

ALTER TABLE ONLY control.fact FORCE ROW LEVEL SECURITY;

CREATE TABLE control.ledger (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    epoch bigint NOT NULL,
    body text,
    digest bytea NOT NULL,
    hash bytea NOT NULL
);

ALTER TABLE ONLY control.ledger FORCE ROW LEVEL SECURITY;

CREATE TABLE control.lineage (
    one boolean DEFAULT true NOT NULL,
    lineage uuid NOT NULL,
    since timestamp with time zone DEFAULT control.clock() NOT NULL,
    CONSTRAINT lineage_one_check CHECK (one)
);

CREATE VIEW control.living AS
 SELECT (objid)::bigint AS lock_id
   FROM pg_locks
  WHERE ((locktype = 'advisory'::text) AND ((classid)::bigint = control.lock_class()) AND (objsubid = 2) AND granted AND (database = ( SELECT pg_database.oid
           FROM pg_database
          WHERE (pg_database.datname = current_database()))));

CREATE TABLE control.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE control.notice (
    tenant control.tenant_id NOT NULL,
    notice_id uuid DEFAULT gen_random_uuid() NOT NULL,
    sink_id text NOT NULL,
    event text NOT NULL,
    run_id uuid,
    seq bigint,
    made_at timestamp with time zone NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    tried_at timestamp with time zone,
    delivered_at timestamp with time zone,
    failed_at timestamp with time zone,
    error text,
    CONSTRAINT notice_check CHECK (((run_id IS NULL) = (seq IS NULL))),
    CONSTRAINT notice_check1 CHECK (((delivered_at IS NULL) OR (failed_at IS NULL)))
);

ALTER TABLE ONLY control.notice FORCE ROW LEVEL SECURITY;

CREATE TABLE control.policy (
    tenant control.tenant_id NOT NULL,
    version integer NOT NULL,
    digest text NOT NULL,
    text text NOT NULL,
    note text,
    applied_at timestamp with time zone NOT NULL,
    applied_by text NOT NULL,
    CONSTRAINT policy_check CHECK ((digest = encode(sha256(convert_to(text, 'UTF8'::name)), 'hex'::text))),
    CONSTRAINT policy_version_check CHECK ((version > 0))
);

ALTER TABLE ONLY control.policy FORCE ROW LEVEL SECURITY;

CREATE TABLE control.retention (
    tenant control.tenant_id NOT NULL,
    days integer NOT NULL,
    set_by text NOT NULL,
    set_at timestamp with time zone NOT NULL,
    CONSTRAINT retention_floor CHECK ((days >= 180))
);

ALTER TABLE ONLY control.retention FORCE ROW LEVEL SECURITY;

CREATE TABLE control.run (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    thread_id text NOT NULL,
    fresh_thread boolean DEFAULT false NOT NULL,
    workflow text,
    graph_digest text,
    config jsonb DEFAULT '{}'::jsonb NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    restarted_from uuid,
    not_before timestamp with time zone,
    epoch bigint DEFAULT 0 NOT NULL,
    worker_id uuid,
    claimed_at timestamp with time zone,
    progress_at timestamp with time zone,
    blocked_in text,
    execution text DEFAULT 'none'::text NOT NULL,
    head_checkpoint_id text,
    head_step integer,
    parts text[] DEFAULT '{}'::text[] NOT NULL,
    parts_total integer,
    outcome text,
    outcome_at timestamp with time zone,
    failure_class text,
    failure jsonb,
    crashes integer DEFAULT 0 NOT NULL,
    retries integer DEFAULT 0 NOT NULL,
    retry_at timestamp with time zone,
    woken_at timestamp with time zone,
    takeovers integer DEFAULT 0 NOT NULL,
    shortfalls integer DEFAULT 0 NOT NULL,
    branch integer DEFAULT 0 NOT NULL,
    fit text DEFAULT 'fits'::text NOT NULL,
    pause_at timestamp with time zone,
    pause_by text,
    cancel_at timestamp with time zone,
    cancel_by text,
    ledger_seq bigint DEFAULT 0 NOT NULL,
    ledger_hash bytea DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea NOT NULL,
    last_flush bigint DEFAULT 0 NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    since timestamp with time zone NOT NULL,
    due_at timestamp with time zone,
    closed_at timestamp with time zone,
    erased_at timestamp with time zone,
    deleted_at timestamp with time zone,
    created_via text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT run_fit_check CHECK ((fit = ANY (ARRAY['fits'::text, 'changed'::text])))
)
WITH (fillfactor='70');

ALTER TABLE ONLY control.run FORCE ROW LEVEL SECURITY;

CREATE TABLE control.run_input (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    type text NOT NULL,
    data bytea NOT NULL
);

ALTER TABLE ONLY control.run_input FORCE ROW LEVEL SECURITY;

CREATE TABLE control.run_subject (
    tenant control.tenant_id NOT NULL,
    subject text NOT NULL,
    run_id uuid NOT NULL,
    CONSTRAINT run_subject_subject_check CHECK (((subject <> ''::text) AND (length(subject) <= 255)))
);

ALTER TABLE ONLY control.run_subject FORCE ROW LEVEL SECURITY;

CREATE UNLOGGED TABLE control.server_seen (
    start_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL
);

CREATE TABLE control.signal (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    n bigint NOT NULL,
    name text NOT NULL,
    payload text NOT NULL,
    sent_by text NOT NULL,
    sent_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY control.signal FORCE ROW LEVEL SECURITY;

ALTER TABLE control.signal ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.signal_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.signing_key (
    key_id text NOT NULL,
    public bytea NOT NULL,
    replaces text,
    made_by text NOT NULL,
    since timestamp with time zone NOT NULL,
    text text NOT NULL,
    signature bytea NOT NULL,
    CONSTRAINT signing_key_key_id_check CHECK ((key_id ~ '^[0-9a-f]{16}$'::text)),
    CONSTRAINT signing_key_public_check CHECK ((length(public) = 32)),
    CONSTRAINT signing_key_signature_check CHECK ((length(signature) = 64))
);

CREATE TABLE control.sink (
    tenant control.tenant_id NOT NULL,
    sink_id text NOT NULL,
    kind text NOT NULL,
    target text NOT NULL,
    events text[] NOT NULL,
    audience text[],
    made_by text NOT NULL,
    made_at timestamp with time zone NOT NULL,
    removed_by text,
    removed_at timestamp with time zone,
    CONSTRAINT sink_audience_check CHECK ((audience <> '{}'::text[])),
    CONSTRAINT sink_check CHECK (((removed_by IS NULL) = (removed_at IS NULL))),
    CONSTRAINT sink_events_check CHECK ((events <> '{}'::text[])),
    CONSTRAINT sink_kind_check CHECK ((kind = ANY (ARRAY['webhook'::text, 'mail'::text]))),
    CONSTRAINT sink_sink_id_check CHECK ((sink_id ~ '^[0-9a-f]{8}$'::text)),
    CONSTRAINT sink_target_check CHECK (((target <> ''::text) AND (length(target) <= 2000)))
);

ALTER TABLE ONLY control.sink FORCE ROW LEVEL SECURITY;

CREATE TABLE control.sink_secret (
    tenant control.tenant_id NOT NULL,
    sink_id text NOT NULL,
    secret bytea NOT NULL,
    before bytea,
    before_until timestamp with time zone,
    CONSTRAINT sink_secret_check CHECK (((before IS NULL) = (before_until IS NULL))),
    CONSTRAINT sink_secret_secret_check CHECK (((length(secret) >= 24) AND (length(secret) <= 64)))
);

ALTER TABLE ONLY control.sink_secret FORCE ROW LEVEL SECURITY;

CREATE TABLE control.spend (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    spend_key text NOT NULL,
    usd numeric(18,9) NOT NULL,
    tokens bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT spend_tokens_check CHECK ((tokens >= 0)),
    CONSTRAINT spend_usd_check CHECK ((usd >= (0)::numeric))
);

ALTER TABLE ONLY control.spend FORCE ROW LEVEL SECURITY;

CREATE TABLE control.spend_hour (
    tenant control.tenant_id NOT NULL,
    hour timestamp with time zone NOT NULL,
    usd numeric(24,9) NOT NULL,
    tokens numeric(24,0) NOT NULL
);

ALTER TABLE ONLY control.spend_hour FORCE ROW LEVEL SECURITY;

CREATE TABLE control.tenant_limit (
    tenant control.tenant_id NOT NULL,
    version integer NOT NULL,
    runs_at_once integer,
    starts integer,
    starts_per text,
    usd numeric(18,6),
    usd_per text,
    tokens bigint,
    tokens_per text,
    set_at timestamp with time zone NOT NULL,
    set_by text NOT NULL,
    CONSTRAINT tenant_limit_check CHECK (((starts IS NULL) = (starts_per IS NULL))),
    CONSTRAINT tenant_limit_check1 CHECK (((usd IS NULL) = (usd_per IS NULL))),
    CONSTRAINT tenant_limit_check2 CHECK (((tokens IS NULL) = (tokens_per IS NULL))),
    CONSTRAINT tenant_limit_runs_at_once_check CHECK ((runs_at_once >= 0)),
    CONSTRAINT tenant_limit_starts_check CHECK ((starts >= 0)),
    CONSTRAINT tenant_limit_starts_per_check CHECK ((starts_per = ANY (ARRAY['minute'::text, 'hour'::text, 'day'::text]))),
    CONSTRAINT tenant_limit_tokens_check CHECK ((tokens >= 0)),
    CONSTRAINT tenant_limit_tokens_per_check CHECK ((tokens_per = ANY (ARRAY['hour'::text, 'day'::text, 'month'::text]))),
    CONSTRAINT tenant_limit_usd_check CHECK ((usd >= (0)::numeric)),
    CONSTRAINT tenant_limit_usd_per_check CHECK ((usd_per = ANY (ARRAY['hour'::text, 'day'::text, 'month'::text]))),
    CONSTRAINT tenant_limit_version_check CHECK ((version > 0))
);

ALTER TABLE ONLY control.tenant_limit FORCE ROW LEVEL SECURITY;

CREATE TABLE control.thread (
    tenant control.tenant_id NOT NULL,
    thread_id text NOT NULL,
    created_at timestamp with time zone DEFAULT control.clock() NOT NULL,
    CONSTRAINT thread_thread_id_check CHECK (((thread_id <> ''::text) AND (length(thread_id) <= 255)))
);

ALTER TABLE ONLY control.thread FORCE ROW LEVEL SECURITY;

CREATE TABLE control.tree (
    tenant control.tenant_id NOT NULL,
    number bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    size integer NOT NULL,
    text text NOT NULL,
    digest bytea NOT NULL,
    restored boolean DEFAULT false NOT NULL,
    key_id text,
    signature bytea,
    CONSTRAINT tree_check CHECK (((key_id IS NULL) = (signature IS NULL))),
    CONSTRAINT tree_number_check CHECK ((number > 0))
);

ALTER TABLE ONLY control.tree FORCE ROW LEVEL SECURITY;

CREATE TABLE control.tree_leaf (
    tenant control.tenant_id NOT NULL,
    number bigint NOT NULL,
    place integer NOT NULL,
    run_id uuid NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL
);

ALTER TABLE ONLY control.tree_leaf FORCE ROW LEVEL SECURITY;

CREATE TABLE control.vote (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    interrupt_id text NOT NULL,
    voter text NOT NULL,
    vote text NOT NULL,
    seat text NOT NULL,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    answer text,
    digest text NOT NULL,
    note text,
    at timestamp with time zone NOT NULL,
    via text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT vote_vote_check CHECK ((vote = ANY (ARRAY['yes'::text, 'no'::text])))
);

ALTER TABLE ONLY control.vote FORCE ROW LEVEL SECURITY;

CREATE TABLE control.wait (
    tenant control.tenant_id NOT NULL,
    run_id uuid NOT NULL,
    interrupt_id text NOT NULL,
    checkpoint_id text NOT NULL,
    node text NOT NULL,
    kind text NOT NULL,
    due_at timestamp with time zone,
    signal text,
    opened_at timestamp with time zone NOT NULL,
    payload text,
    fired_at timestamp with time zone,
    withdrawn_at timestamp with time zone,
    delivered_at timestamp with time zone,
    CONSTRAINT wait_check CHECK ((((kind = 'timer'::text) = (due_at IS NOT NULL)) AND ((kind = 'signal'::text) = (signal IS NOT NULL)))),
    CONSTRAINT wait_kind_check CHECK ((kind = ANY (ARRAY['timer'::text, 'signal'::text])))
);

ALTER TABLE ONLY control.wait FORCE ROW LEVEL SECURITY;

CREATE TABLE control.worker (
    worker_id uuid NOT NULL,
    lock_id integer NOT NULL,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    digests text[] DEFAULT '{}'::text[] NOT NULL,
    draining boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone DEFAULT control.clock() NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    server_seen_at timestamp with time zone,
    CONSTRAINT worker_kind_check CHECK ((kind = ANY (ARRAY['worker'::text, 'writer'::text])))
);

ALTER TABLE control.worker ALTER COLUMN lock_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.worker_lock_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY control.api_key
    ADD CONSTRAINT api_key_key_id_key UNIQUE (key_id);

ALTER TABLE ONLY control.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (tenant, key_id);

ALTER TABLE ONLY control.approval
    ADD CONSTRAINT approval_pkey PRIMARY KEY (tenant, run_id, interrupt_id);

ALTER TABLE ONLY control.assignee
    ADD CONSTRAINT assignee_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY control.delegation
    ADD CONSTRAINT delegation_pkey PRIMARY KEY (tenant, delegation_id);

ALTER TABLE ONLY control.effect
    ADD CONSTRAINT effect_pkey PRIMARY KEY (tenant, run_id, effect_key);

ALTER TABLE ONLY control.fact
    ADD CONSTRAINT fact_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY control.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (tenant, run_id, seq);

ALTER TABLE ONLY control.lineage
    ADD CONSTRAINT lineage_pkey PRIMARY KEY (one);

ALTER TABLE ONLY control.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY control.notice
    ADD CONSTRAINT notice_pkey PRIMARY KEY (tenant, notice_id);

ALTER TABLE ONLY control.notice
    ADD CONSTRAINT notice_tenant_run_id_seq_sink_id_key UNIQUE (tenant, run_id, seq, sink_id);

ALTER TABLE ONLY control.policy
    ADD CONSTRAINT policy_pkey PRIMARY KEY (tenant, version);

ALTER TABLE ONLY control.retention
    ADD CONSTRAINT retention_pkey PRIMARY KEY (tenant);

ALTER TABLE ONLY control.run_input
    ADD CONSTRAINT run_input_pkey PRIMARY KEY (tenant, run_id);

ALTER TABLE ONLY control.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (tenant, run_id);

ALTER TABLE ONLY control.run_subject
    ADD CONSTRAINT run_subject_pkey PRIMARY KEY (tenant, subject, run_id);

ALTER TABLE ONLY control.run_subject
    ADD CONSTRAINT run_subject_tenant_run_id_subject_key UNIQUE (tenant, run_id, subject);

ALTER TABLE ONLY control.server_seen
    ADD CONSTRAINT server_seen_pkey PRIMARY KEY (start_at);

ALTER TABLE ONLY control.signal
    ADD CONSTRAINT signal_pkey PRIMARY KEY (tenant, run_id, n);

ALTER TABLE ONLY control.signing_key
    ADD CONSTRAINT signing_key_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY control.signing_key
    ADD CONSTRAINT signing_key_replaces_key UNIQUE (replaces);

ALTER TABLE ONLY control.sink
    ADD CONSTRAINT sink_pkey PRIMARY KEY (tenant, sink_id);

ALTER TABLE ONLY control.sink_secret
    ADD CONSTRAINT sink_secret_pkey PRIMARY KEY (tenant, sink_id);

ALTER TABLE ONLY control.spend_hour
    ADD CONSTRAINT spend_hour_pkey PRIMARY KEY (tenant, hour);

ALTER TABLE ONLY control.spend
    ADD CONSTRAINT spend_pkey PRIMARY KEY (tenant, run_id, spend_key);

ALTER TABLE ONLY control.tenant_limit
    ADD CONSTRAINT tenant_limit_pkey PRIMARY KEY (tenant, version);

ALTER TABLE ONLY control.thread
    ADD CONSTRAINT thread_pkey PRIMARY KEY (tenant, thread_id);

ALTER TABLE ONLY control.thread
    ADD CONSTRAINT thread_thread_id_key UNIQUE (thread_id);

ALTER TABLE ONLY control.tree_leaf
    ADD CONSTRAINT tree_leaf_pkey PRIMARY KEY (tenant, number, place);

ALTER TABLE ONLY control.tree_leaf
    ADD CONSTRAINT tree_leaf_tenant_run_id_seq_key UNIQUE (tenant, run_id, seq);

ALTER TABLE ONLY control.tree
    ADD CONSTRAINT tree_pkey PRIMARY KEY (tenant, number);

ALTER TABLE ONLY control.vote
    ADD CONSTRAINT vote_pkey PRIMARY KEY (tenant, run_id, interrupt_id, voter, vote);

ALTER TABLE ONLY control.vote
    ADD CONSTRAINT vote_tenant_run_id_interrupt_id_seat_vote_key UNIQUE (tenant, run_id, interrupt_id, seat, vote);

ALTER TABLE ONLY control.wait
    ADD CONSTRAINT wait_pkey PRIMARY KEY (tenant, run_id, interrupt_id);

ALTER TABLE ONLY control.worker
    ADD CONSTRAINT worker_lock_id_key UNIQUE (lock_id);

ALTER TABLE ONLY control.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (worker_id);

CREATE INDEX approval_assigned ON control.approval USING btree (tenant, assignee) WHERE ((decision IS NULL) AND (assignee IS NOT NULL));

CREATE INDEX approval_by_deadline ON control.approval USING btree (tenant, expires_at, opened_at, run_id) WHERE (decision IS NULL);

CREATE INDEX approval_open ON control.approval USING btree (tenant, opened_at, run_id) WHERE (decision IS NULL);

CREATE INDEX delegation_to ON control.delegation USING btree (tenant, taker, giver) WHERE (revoked_at IS NULL);

CREATE INDEX ledger_at ON control.ledger USING brin (at) WITH (pages_per_range='16', autosummarize='on');

CREATE INDEX notice_listed ON control.notice USING btree (tenant, made_at DESC, notice_id);

CREATE INDEX run_claimable ON control.run USING btree (tenant, priority DESC, created_at, run_id) WHERE ((status = 'queued'::text) AND (worker_id IS NULL));

CREATE INDEX run_claimed ON control.run USING btree (worker_id) INCLUDE (tenant) WHERE (worker_id IS NOT NULL);

CREATE INDEX run_closed ON control.run USING btree (tenant, closed_at) WHERE ((closed_at IS NOT NULL) AND (erased_at IS NULL));

CREATE INDEX run_due ON control.run USING btree (due_at) WHERE ((due_at IS NOT NULL) AND (worker_id IS NULL));

CREATE INDEX run_listed ON control.run USING btree (tenant, created_at DESC, run_id DESC);

CREATE INDEX run_listed_by_status ON control.run USING btree (tenant, status, created_at DESC, run_id DESC);

CREATE INDEX run_on_thread ON control.run USING btree (tenant, thread_id, created_at DESC);

CREATE UNIQUE INDEX run_open_on_thread ON control.run USING btree (thread_id) WHERE (closed_at IS NULL);

CREATE INDEX run_unfit ON control.run USING btree (workflow) WHERE ((fit = 'changed'::text) AND (closed_at IS NULL));

CREATE INDEX worker_living ON control.worker USING btree (lease_until) WHERE (ended_at IS NULL);

CREATE TRIGGER api_key_stays_revoked BEFORE UPDATE ON control.api_key FOR EACH ROW WHEN (((old.revoked_at IS NOT NULL) AND ((new.revoked_at IS DISTINCT FROM old.revoked_at) OR (new.revoked_by IS DISTINCT FROM old.revoked_by)))) EXECUTE FUNCTION control.keep_revoked();

CREATE CONSTRAINT TRIGGER ledger_is_announced AFTER INSERT ON control.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((new.kind = ANY (ARRAY['asked'::text, 'escalated'::text, 'reassigned'::text, 'expired'::text, 'decided'::text, 'worker_lost'::text])) OR ((new.kind = 'ended'::text) AND (new.body !~~ '%"execution":"finished"%'::text)))) EXECUTE FUNCTION control.announce();

CREATE TRIGGER ledger_is_append_only BEFORE DELETE OR UPDATE ON control.ledger FOR EACH ROW EXECUTE FUNCTION control.erase_only();

CREATE TRIGGER ledger_is_never_truncated BEFORE TRUNCATE ON control.ledger FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER lineage_is_append_only BEFORE DELETE OR UPDATE ON control.lineage FOR EACH ROW EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER lineage_is_never_truncated BEFORE TRUNCATE ON control.lineage FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER notice_is_enqueued AFTER INSERT ON control.notice FOR EACH ROW EXECUTE FUNCTION control.enqueue();

CREATE TRIGGER signing_key_is_append_only BEFORE DELETE OR UPDATE ON control.signing_key FOR EACH ROW EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER signing_key_is_never_truncated BEFORE TRUNCATE ON control.signing_key FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER tree_is_append_only BEFORE DELETE OR UPDATE ON control.tree FOR EACH ROW EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER tree_is_never_truncated BEFORE TRUNCATE ON control.tree FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER tree_leaf_is_append_only BEFORE DELETE OR UPDATE ON control.tree_leaf FOR EACH ROW EXECUTE FUNCTION control.refuse_change();

CREATE TRIGGER tree_leaf_is_never_truncated BEFORE TRUNCATE ON control.tree_leaf FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

ALTER TABLE ONLY control.api_key
    ADD CONSTRAINT api_key_tenant_made_with_fkey FOREIGN KEY (tenant, made_with) REFERENCES control.api_key(tenant, key_id);

ALTER TABLE ONLY control.approval
    ADD CONSTRAINT approval_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.effect
    ADD CONSTRAINT effect_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.notice
    ADD CONSTRAINT notice_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.notice
    ADD CONSTRAINT notice_tenant_sink_id_fkey FOREIGN KEY (tenant, sink_id) REFERENCES control.sink(tenant, sink_id);

ALTER TABLE ONLY control.run_input
    ADD CONSTRAINT run_input_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.run_subject
    ADD CONSTRAINT run_subject_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.run
    ADD CONSTRAINT run_tenant_thread_id_fkey FOREIGN KEY (tenant, thread_id) REFERENCES control.thread(tenant, thread_id);

ALTER TABLE ONLY control.signal
    ADD CONSTRAINT signal_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.signing_key
    ADD CONSTRAINT signing_key_replaces_fkey FOREIGN KEY (replaces) REFERENCES control.signing_key(key_id);

ALTER TABLE ONLY control.sink_secret
    ADD CONSTRAINT sink_secret_tenant_sink_id_fkey FOREIGN KEY (tenant, sink_id) REFERENCES control.sink(tenant, sink_id);

ALTER TABLE ONLY control.spend
    ADD CONSTRAINT spend_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.tree
    ADD CONSTRAINT tree_key_id_fkey FOREIGN KEY (key_id) REFERENCES control.signing_key(key_id);

ALTER TABLE ONLY control.tree_leaf
    ADD CONSTRAINT tree_leaf_tenant_number_fkey FOREIGN KEY (tenant, number) REFERENCES control.tree(tenant, number);

ALTER TABLE ONLY control.vote
    ADD CONSTRAINT vote_tenant_run_id_interrupt_id_fkey FOREIGN KEY (tenant, run_id, interrupt_id) REFERENCES control.approval(tenant, run_id, interrupt_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.wait
    ADD CONSTRAINT wait_tenant_run_id_fkey FOREIGN KEY (tenant, run_id) REFERENCES control.run(tenant, run_id) ON DELETE CASCADE;

ALTER TABLE control.api_key ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.approval ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.assignee ENABLE ROW LEVEL SECURITY;

CREATE POLICY claim ON control.ledger FOR INSERT TO control_claim WITH CHECK (true);

CREATE POLICY claim ON control.run TO control_claim USING (true);

CREATE POLICY claim ON control.run_input FOR SELECT TO control_claim USING (true);

CREATE POLICY claim ON control.spend_hour FOR SELECT TO control_claim USING (true);

CREATE POLICY claim ON control.tenant_limit FOR SELECT TO control_claim USING (true);

CREATE POLICY command ON control.api_key TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.approval TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.assignee TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.delegation TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.effect TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.fact TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.ledger TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.notice TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.policy TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.retention TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.run TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.run_input TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.run_subject TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.signal TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.sink TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.sink_secret TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.spend TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.spend_hour TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.tenant_limit TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.thread TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.tree TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.tree_leaf TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.vote TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

CREATE POLICY command ON control.wait TO control_command USING (((tenant)::text = ( SELECT control.commanded_tenant() AS commanded_tenant)));

ALTER TABLE control.delegation ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.effect ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.fact ENABLE ROW LEVEL SECURITY;

CREATE POLICY flush ON control.approval TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.assignee TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.delegation TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.effect TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.fact FOR SELECT TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.ledger TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.notice TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.policy FOR SELECT TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.retention TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.run TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.run_input TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.run_subject TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.signal TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.sink TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.spend TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.spend_hour TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.tenant_limit TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.thread TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.tree TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.tree_leaf TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.vote TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

CREATE POLICY flush ON control.wait TO control_flush USING (((tenant)::text = ANY (( SELECT control.flushed_tenants() AS flushed_tenants)::text[])));

ALTER TABLE control.ledger ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.notice ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.policy ENABLE ROW LEVEL SECURITY;

CREATE POLICY presented ON control.api_key FOR SELECT TO control_command USING ((digest = ( SELECT control.presented_digest() AS presented_digest)));

ALTER TABLE control.retention ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.run ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.run_input ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.run_subject ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.signal ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.sink ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.sink_secret ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.spend ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.spend_hour ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.tenant_limit ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.thread ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.tree ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.tree_leaf ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.vote ENABLE ROW LEVEL SECURITY;

ALTER TABLE control.wait ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA control TO control_command;
GRANT USAGE ON SCHEMA control TO control_flush;
GRANT USAGE ON SCHEMA control TO control_claim;

REVOKE ALL ON FUNCTION control.build_queue() FROM PUBLIC;

REVOKE ALL ON FUNCTION control.build_walls() FROM PUBLIC;

REVOKE ALL ON FUNCTION control.remove_walls() FROM PUBLIC;

REVOKE ALL ON FUNCTION control.walled_tables() FROM PUBLIC;

GRANT SELECT,INSERT ON TABLE control.api_key TO control_command;

GRANT UPDATE(used_on) ON TABLE control.api_key TO control_command;

GRANT UPDATE(revoked_by) ON TABLE control.api_key TO control_command;

GRANT UPDATE(revoked_at) ON TABLE control.api_key TO control_command;

GRANT SELECT,INSERT,UPDATE ON TABLE control.approval TO control_command;
GRANT SELECT,INSERT,UPDATE ON TABLE control.approval TO control_flush;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE control.assignee TO control_command;
GRANT SELECT ON TABLE control.assignee TO control_flush;

GRANT SELECT,INSERT,UPDATE ON TABLE control.delegation TO control_command;

GRANT SELECT ON TABLE control.effect TO control_command;
GRANT SELECT,INSERT,UPDATE ON TABLE control.effect TO control_flush;

GRANT SELECT,INSERT,UPDATE ON TABLE control.fact TO control_command;
GRANT SELECT ON TABLE control.fact TO control_flush;

GRANT SELECT,INSERT ON TABLE control.ledger TO control_command;
GRANT SELECT,INSERT ON TABLE control.ledger TO control_flush;
GRANT INSERT ON TABLE control.ledger TO control_claim;

GRANT UPDATE(body) ON TABLE control.ledger TO control_flush;

GRANT SELECT ON TABLE control.lineage TO control_command;
GRANT SELECT ON TABLE control.lineage TO control_flush;
GRANT SELECT ON TABLE control.lineage TO control_claim;

GRANT SELECT ON TABLE control.living TO control_command;
GRANT SELECT ON TABLE control.living TO control_flush;
GRANT SELECT ON TABLE control.living TO control_claim;

GRANT SELECT ON TABLE control.migration TO control_command;
GRANT SELECT ON TABLE control.migration TO control_flush;
GRANT SELECT ON TABLE control.migration TO control_claim;

GRANT SELECT,INSERT,DELETE ON TABLE control.notice TO control_command;
GRANT INSERT ON TABLE control.notice TO control_flush;

GRANT UPDATE(tries) ON TABLE control.notice TO control_command;

GRANT UPDATE(tried_at) ON TABLE control.notice TO control_command;

GRANT UPDATE(delivered_at) ON TABLE control.notice TO control_command;

GRANT UPDATE(failed_at) ON TABLE control.notice TO control_command;

GRANT UPDATE(error) ON TABLE control.notice TO control_command;

GRANT SELECT,INSERT ON TABLE control.policy TO control_command;
GRANT SELECT ON TABLE control.policy TO control_flush;

GRANT SELECT,INSERT,UPDATE ON TABLE control.retention TO control_command;
GRANT SELECT ON TABLE control.retention TO control_flush;

GRANT SELECT,INSERT,UPDATE ON TABLE control.run TO control_command;
GRANT SELECT,INSERT,UPDATE ON TABLE control.run TO control_flush;

GRANT SELECT(tenant) ON TABLE control.run TO control_claim;

GRANT SELECT(run_id) ON TABLE control.run TO control_claim;

GRANT SELECT(thread_id) ON TABLE control.run TO control_claim;

GRANT SELECT(fresh_thread) ON TABLE control.run TO control_claim;

GRANT SELECT(workflow) ON TABLE control.run TO control_claim;

GRANT SELECT(graph_digest),UPDATE(graph_digest) ON TABLE control.run TO control_claim;

GRANT SELECT(config) ON TABLE control.run TO control_claim;

GRANT SELECT(priority) ON TABLE control.run TO control_claim;

GRANT SELECT(created_at) ON TABLE control.run TO control_claim;

GRANT SELECT(epoch),UPDATE(epoch) ON TABLE control.run TO control_claim;

GRANT SELECT(worker_id),UPDATE(worker_id) ON TABLE control.run TO control_claim;

GRANT UPDATE(claimed_at) ON TABLE control.run TO control_claim;

GRANT UPDATE(progress_at) ON TABLE control.run TO control_claim;

GRANT UPDATE(blocked_in) ON TABLE control.run TO control_claim;

GRANT SELECT(execution) ON TABLE control.run TO control_claim;

GRANT SELECT(parts) ON TABLE control.run TO control_claim;

GRANT UPDATE(outcome) ON TABLE control.run TO control_claim;

GRANT UPDATE(outcome_at) ON TABLE control.run TO control_claim;

GRANT SELECT(crashes) ON TABLE control.run TO control_claim;

GRANT SELECT(retries) ON TABLE control.run TO control_claim;

GRANT UPDATE(retry_at) ON TABLE control.run TO control_claim;

GRANT SELECT(shortfalls) ON TABLE control.run TO control_claim;

GRANT SELECT(branch) ON TABLE control.run TO control_claim;

GRANT SELECT(fit) ON TABLE control.run TO control_claim;

GRANT SELECT(pause_at) ON TABLE control.run TO control_claim;

GRANT SELECT(cancel_at) ON TABLE control.run TO control_claim;

GRANT SELECT(ledger_seq),UPDATE(ledger_seq) ON TABLE control.run TO control_claim;

GRANT SELECT(ledger_hash),UPDATE(ledger_hash) ON TABLE control.run TO control_claim;

GRANT UPDATE(last_flush) ON TABLE control.run TO control_claim;

GRANT SELECT(version),UPDATE(version) ON TABLE control.run TO control_claim;

GRANT SELECT(status),UPDATE(status) ON TABLE control.run TO control_claim;

GRANT SELECT(since),UPDATE(since) ON TABLE control.run TO control_claim;

GRANT SELECT(due_at),UPDATE(due_at) ON TABLE control.run TO control_claim;

GRANT SELECT(closed_at) ON TABLE control.run TO control_claim;

GRANT SELECT,INSERT ON TABLE control.run_input TO control_command;
GRANT SELECT ON TABLE control.run_input TO control_claim;
GRANT SELECT,DELETE ON TABLE control.run_input TO control_flush;

GRANT SELECT,INSERT ON TABLE control.run_subject TO control_command;
GRANT SELECT,DELETE ON TABLE control.run_subject TO control_flush;

GRANT SELECT,INSERT ON TABLE control.server_seen TO control_command;
GRANT SELECT,INSERT ON TABLE control.server_seen TO control_flush;
GRANT SELECT,INSERT ON TABLE control.server_seen TO control_claim;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE control.signal TO control_command;
GRANT SELECT,DELETE ON TABLE control.signal TO control_flush;

GRANT SELECT,INSERT ON TABLE control.signing_key TO control_command;
GRANT SELECT ON TABLE control.signing_key TO control_flush;
GRANT SELECT ON TABLE control.signing_key TO control_claim;

GRANT SELECT,INSERT ON TABLE control.sink TO control_command;
GRANT SELECT ON TABLE control.sink TO control_flush;

GRANT UPDATE(removed_by) ON TABLE control.sink TO control_command;

GRANT UPDATE(removed_at) ON TABLE control.sink TO control_command;

GRANT SELECT,INSERT,DELETE ON TABLE control.sink_secret TO control_command;

GRANT UPDATE(secret) ON TABLE control.sink_secret TO control_command;

GRANT UPDATE(before) ON TABLE control.sink_secret TO control_command;

GRANT UPDATE(before_until) ON TABLE control.sink_secret TO control_command;

GRANT SELECT ON TABLE control.spend TO control_command;
GRANT SELECT,INSERT ON TABLE control.spend TO control_flush;

GRANT SELECT ON TABLE control.spend_hour TO control_command;
GRANT SELECT,INSERT,UPDATE ON TABLE control.spend_hour TO control_flush;
GRANT SELECT ON TABLE control.spend_hour TO control_claim;

GRANT SELECT,INSERT ON TABLE control.tenant_limit TO control_command;
GRANT SELECT ON TABLE control.tenant_limit TO control_flush;
GRANT SELECT ON TABLE control.tenant_limit TO control_claim;

GRANT SELECT,INSERT ON TABLE control.thread TO control_command;
GRANT SELECT,INSERT ON TABLE control.thread TO control_flush;

GRANT UPDATE(created_at) ON TABLE control.thread TO control_flush;

GRANT SELECT ON TABLE control.tree TO control_command;
GRANT SELECT,INSERT ON TABLE control.tree TO control_flush;

GRANT SELECT ON TABLE control.tree_leaf TO control_command;
GRANT SELECT,INSERT ON TABLE control.tree_leaf TO control_flush;

GRANT SELECT,INSERT ON TABLE control.vote TO control_command;
GRANT SELECT,DELETE ON TABLE control.vote TO control_flush;

GRANT UPDATE(answer) ON TABLE control.vote TO control_flush;

GRANT UPDATE(note) ON TABLE control.vote TO control_flush;

GRANT SELECT,INSERT,UPDATE ON TABLE control.wait TO control_command;
GRANT SELECT,INSERT,UPDATE ON TABLE control.wait TO control_flush;

GRANT SELECT ON TABLE control.worker TO control_command;
GRANT SELECT ON TABLE control.worker TO control_flush;
GRANT SELECT,INSERT,UPDATE ON TABLE control.worker TO control_claim;
