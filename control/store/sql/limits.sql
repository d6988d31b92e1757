-- :name in_force
-- What time it is, and what the tenant is allowed; nulls where it has no limits.
-- locks: none
select control.clock() as at, l.version, l.runs_at_once, l.starts, l.starts_per, l.usd, l.usd_per, l.tokens,
       l.tokens_per, l.set_at, l.set_by
from (values (1)) as one left join (
    select * from control.tenant_limit where tenant = %(tenant)s order by version desc limit 1) l on true;

-- :name history
-- Every set of limits that the tenant has had, newest first.
-- locks: none
select version, runs_at_once, starts, starts_per, usd, usd_per, tokens, tokens_per, set_at, set_by
from control.tenant_limit where tenant = %(tenant)s order by version desc limit %(limit)s;

-- :name serialise
-- Let one set of limits be set at a time for a tenant, until the transaction ends.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.limits ' || %(tenant)s, 0));

-- :name add
-- Limits become those in force. The caller holds the lock of `serialise`.
-- locks: tenant_limit
insert into control.tenant_limit (tenant, version, runs_at_once, starts, starts_per, usd, usd_per, tokens, tokens_per,
                                  set_at, set_by)
select %(tenant)s::text, coalesce(max(version), 0) + 1, %(runs_at_once)s, %(starts)s, %(starts_per)s, %(usd)s,
       %(usd_per)s, %(tokens)s, %(tokens_per)s, control.clock(), %(by)s
from control.tenant_limit where tenant = %(tenant)s;

-- :name take_turn
-- One start of the tenant at a time, until the transaction ends: each counts those before it.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.start ' || %(tenant)s, 0));

-- :name nth_start
-- When the start was made that lies so many starts back, if it was made since an instant. `run_id` is not counted.
-- locks: none
select created_at from control.run
where tenant = %(tenant)s and created_at > %(since)s and run_id <> %(run_id)s
order by created_at desc offset %(back)s limit 1;

-- :name starts_since
-- How many runs were started since an instant.
-- locks: none
select count(*) as n from control.run where tenant = %(tenant)s and created_at > %(since)s;

-- :name spent
-- What the tenant has spent since the beginning of an hour.
-- locks: none
select coalesce(sum(usd), 0) as usd, coalesce(sum(tokens), 0)::bigint as tokens
from control.spend_hour where tenant = %(tenant)s and hour >= %(since)s;

-- :name recorded
-- A row if this was recorded before.
-- locks: none
select from control.spend where tenant = %(tenant)s and run_id = %(run_id)s and spend_key = %(key)s;

-- :name at_work
-- How many runs of the tenant are held by somebody.
-- locks: none
select count(*) as n from control.run where tenant = %(tenant)s and worker_id is not null;

-- :name queued
-- How many runs of the tenant are ready and held by nobody.
-- locks: none
select count(*) as n from control.run where tenant = %(tenant)s and status = 'queued' and worker_id is null;

-- :name limited
-- Every tenant that has ever had limits. For the claim role, which may see that much.
-- locks: none
select distinct tenant from control.tenant_limit;

-- :name overdrawn
-- Whether a budget of the tenant is used up.
-- locks: none
select control.overdrawn(%(tenant)s) as overdrawn;
