-- :name server
-- The server's version, as a number (150004) and for people.
-- locks: none
select current_setting('server_version_num')::int as number, current_setting('server_version') as version;

-- :name roles
-- The roles that do the work, and what each may do beyond it.
-- locks: none
select rolname, rolsuper or rolbypassrls or rolcreatedb or rolcreaterole or rolreplication as mighty
from pg_roles where rolname = any (%(roles)s);

-- :name unguarded
-- Tables that hold a tenant's rows without forcing row security on everybody; LangGraph's that are without it.
-- locks: none
select c.oid::regclass::text from pg_class c
where c.oid in (to_regclass('checkpoints'), to_regclass('checkpoint_blobs'), to_regclass('checkpoint_writes'),
                to_regclass('store'), to_regclass('store_vectors')) and not c.relrowsecurity
union all
select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant' and not a.attisdropped
where n.nspname = 'control' and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
order by 1;

-- :name guards
-- The triggers that are on and keep the ledger append-only.
-- locks: none
select tgname from pg_trigger
where tgrelid = 'control.ledger'::regclass and not tgisinternal and tgenabled in ('O', 'A')
  and tgfoid in ('control.refuse_change'::regproc, 'control.erase_only'::regproc);

-- :name tenants
-- Every tenant that has runs, found by hopping through an index. For the claim role, which may see that much.
-- locks: none
with recursive hop as (
    (select tenant::text from control.run order by tenant limit 1)
    union all
    select (select r.tenant::text from control.run r where r.tenant > h.tenant order by r.tenant limit 1)
    from hop h where h.tenant is not null
)
select tenant from hop where tenant is not null;

-- :name runs
-- A page of a tenant's runs in the order of their ids, whole.
-- locks: none
select * from control.run where tenant = %(tenant)s and run_id > %(after)s order by run_id limit %(limit)s;

-- :name asks
-- The questions of some runs that no attempt has taken in.
-- locks: none
select run_id, interrupt_id, kind, title, node, opened_at, case when not overdue then expires_at end as expires_at,
       due_at, rung, assignee, decision is not null as settled,
       coalesce(gate ->> 'quorum', '1')::int as quorum,
       array(select v.voter from control.vote v
             where v.tenant = a.tenant and v.run_id = a.run_id and v.interrupt_id = a.interrupt_id and v.vote = 'yes'
             order by v.at, v.voter) as voters
from control.approval a
where tenant = %(tenant)s and run_id = any (%(runs)s) and delivered_at is null and decision is distinct
    from 'superseded';

-- :name waits
-- The timers and signals of some runs that no attempt has taken in.
-- locks: none
select run_id, interrupt_id, kind, node, opened_at, due_at, signal, fired_at is not null as settled
from control.wait
where tenant = %(tenant)s and run_id = any (%(runs)s) and delivered_at is null and withdrawn_at is null;

-- :name leaves
-- Where the ledgers of some runs stood when a tree gathered them last.
-- locks: none
select distinct on (run_id) run_id, number, seq, hash from control.tree_leaf
where tenant = %(tenant)s and run_id > %(after)s and (%(upto)s::uuid is null or run_id <= %(upto)s::uuid)
order by run_id, seq desc;

-- :name entries
-- The ledgers of all runs after one id, up to another where there is one; also of runs that are gone.
-- locks: none
select run_id, seq, at, kind, actor, epoch, body, digest, hash
from control.ledger
where tenant = %(tenant)s and run_id > %(after)s and (%(upto)s::uuid is null or run_id <= %(upto)s::uuid)
order by run_id, seq;
