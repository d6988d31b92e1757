-- :name claim
-- Up to `free` queued runs of workflows this worker holds, for it alone, under their next epoch. Free slots go to the
-- tenant with the least in progress, counted together with how far it is `behind` (`core.turns`); of two that are
-- level, now to the one and now to the other. Within a tenant they go to the highest priority, then to the longest
-- accepted, so that what was begun goes on first. No tenant gets more than its limits leave room for. A run that was
-- begun under another version of its graph is left to the workers that hold that version, while any is alive by the
-- rule of `control.gone`: one that a restart of the server has cut off is, until its time to come back is over.
-- `digests` names the version held of each of `workflows`. What the claim builds on (epoch, ledger) is read with the
-- lock, since the row may have changed after this statement's snapshot. A worker whose lease has run out takes nothing
-- until it has renewed it: its peers would take it away again.
-- locks: run (skipping), then ledger
with recursive tenants as (
    (select tenant::text from control.run where status = 'queued' and worker_id is null order by tenant limit 1)
    union all
    select (select r.tenant::text from control.run r
            where r.status = 'queued' and r.worker_id is null and r.tenant > t.tenant order by r.tenant limit 1)
    from tenants t where t.tenant is not null
), clock as materialized (
    select control.clock() as at
), server as materialized (
    select control.server_seen_at() as seen_at
), held as materialized (
    select array_agg(distinct d) as digests from control.worker w cross join server, unnest(w.digests) d
    where w.ended_at is null and not w.draining and w.worker_id <> %(worker_id)s and not w.digests <@ %(digests)s
      and (w.lease_until > clock_timestamp() or clock_timestamp() <= server.seen_at + %(grace)s)
      and control.gone(w.worker_id, %(grace)s) is null
), busy as materialized (
    select tenant, count(*) as n from control.run where worker_id is not null group by tenant
), late as materialized (
    select tenant, n from unnest(%(served)s::text[], %(behind)s::float8[]) as s(tenant, n)
), room as materialized (
    select tenant, room from control.rooms(array(select tenant from tenants where tenant is not null))
), candidate as (
    select c.*, coalesce(b.n, 0) + coalesce(late.n, 0) + row_number() over (partition by c.tenant order by c.place)
           as turn
    from tenants t
    left join room on room.tenant = t.tenant
    left join busy b on b.tenant = t.tenant
    left join late on late.tenant = t.tenant
    cross join held
    cross join lateral (
        select r.*, row_number() over () as place
        from (
            select q.tenant, q.run_id, q.created_at, q.epoch, q.ledger_seq, q.ledger_hash from control.run q
            where q.tenant = t.tenant and q.status = 'queued' and q.worker_id is null
              and q.workflow = any (%(workflows)s)
              and (q.graph_digest is null or q.graph_digest = any (%(digests)s)
                   or not q.graph_digest = any (coalesce(held.digests, '{}')))
            order by q.priority desc, q.created_at, q.run_id limit least(%(free)s, room.room)
            for no key update skip locked
        ) r
    ) c
    where t.tenant is not null
      and not exists (select from control.worker where worker_id = %(worker_id)s and lease_until <= clock_timestamp())
), chosen as (
    select * from candidate order by turn, random() limit %(free)s
), entry as (
    select tenant, run_id, epoch + 1 as epoch, ledger_seq + 1 as seq, ledger_hash as prev,
           '{"worker":"' || %(worker_id)s::text || '"}' as body
    from chosen
), linked as (
    select e.*, sha256(convert_to(e.body, 'UTF8')) as digest from entry e
), hashed as (
    select l.*, sha256(l.prev || control.link(l.seq, clock.at, 'claimed', %(actor)s, l.epoch, l.digest)) as hash
    from linked l, clock
), put_ledger as (
    insert into control.ledger (tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)
    select tenant, run_id, seq, clock.at, 'claimed', %(actor)s, epoch, body, digest, hash from hashed, clock
)
update control.run r
set epoch = h.epoch, last_flush = 0, worker_id = %(worker_id)s, claimed_at = clock.at, progress_at = clock.at,
    graph_digest = coalesce(r.graph_digest, held.digest), blocked_in = null, outcome = null, outcome_at = null,
    retry_at = null, status = 'running', since = clock.at, due_at = null, ledger_seq = h.seq, ledger_hash = h.hash,
    version = r.version + 1
from hashed h
join control.run_input i on i.tenant = h.tenant and i.run_id = h.run_id
cross join clock
cross join unnest(%(workflows)s::text[], %(digests)s::text[]) as held(workflow, digest)
where r.tenant = h.tenant and r.run_id = h.run_id and r.workflow = held.workflow
returning r.tenant, r.run_id, r.thread_id, r.fresh_thread, r.workflow, r.graph_digest, i.type as input_type,
          i.data as input, r.config, r.epoch, r.execution, r.parts, r.retries, r.crashes, r.branch, r.shortfalls,
          r.version, r.created_at;

-- :name register
-- A process that may hold claims. Its lock's number is made here; the lock itself is taken next, on the same session.
-- locks: worker
insert into control.worker (worker_id, kind, host, pid, digests, lease_until, server_seen_at)
values (%(worker_id)s, %(kind)s, %(host)s, %(pid)s, %(digests)s, clock_timestamp() + %(lease)s,
        control.server_seen_at())
returning lock_id;

-- :name hold
-- The sign of life: held by the session until the process or its connection ends.
-- locks: none
select pg_try_advisory_lock(control.lock_class(), %(lock_id)s);

-- :name renew
-- The lease, and the server it was renewed on. Real time, not the tests' clock: moving that must not end the living.
-- locks: worker
update control.worker set lease_until = clock_timestamp() + %(lease)s, server_seen_at = control.server_seen_at()
where worker_id = %(worker_id)s;

-- :name advertise
-- Which versions of which graphs this worker holds, and whether it still takes work.
-- locks: worker
update control.worker set digests = %(digests)s, draining = %(draining)s where worker_id = %(worker_id)s;

-- :name sign_off
-- A process that ended in order.
-- locks: worker
update control.worker set ended_at = clock_timestamp(), lease_until = clock_timestamp() where worker_id = %(worker_id)s;

-- :name lost
-- Claims of others whose holder is gone, by the rule of `control.gone`. Those that wait longest come first. A worker
-- that signed off did not crash: it left while its run would not stop.
-- locks: none
with holder as materialized (
    select worker_id, control.gone(worker_id, %(grace)s) as why
    from (select distinct worker_id from control.run where worker_id is not null and worker_id <> %(worker_id)s) held
)
select r.tenant, r.run_id, r.epoch, r.worker_id, h.why, h.why <> 'it left' as crashed
from holder h join control.run r on r.worker_id = h.worker_id
where h.why is not null
order by r.since limit %(limit)s;

-- :name mine
-- Which claims this worker still has, and the version of each: what changed under it shows here. `overdrawn`: a budget
-- of the tenant is used up.
-- locks: none
with mine as materialized (
    select tenant, run_id, epoch, version, pause_at is not null as pause, cancel_at is not null as cancel
    from control.run where worker_id = %(worker_id)s
), overdrawn as materialized (
    select tenant from (select distinct tenant from mine) t where control.overdrawn(tenant)
)
select m.*, m.tenant in (select tenant from overdrawn) as overdrawn from mine m;

-- :name mark_blocking
-- A node of this run that holds the event loop; shown until the run makes progress.
-- locks: run
update control.run set blocked_in = %(node)s
where tenant = %(tenant)s and run_id = %(run_id)s and epoch = %(epoch)s and worker_id = %(worker_id)s
returning run_id;

-- :name readopt
-- Runs that were blocked for want of a version that fits, of workflows that this worker holds.
-- locks: none
select tenant, run_id, thread_id, workflow, graph_digest from control.run
where fit = 'changed' and closed_at is null and workflow = any (%(workflows)s) and run_id <> all (%(known)s::uuid[])
limit %(limit)s;

-- :name workers
-- Who works, and how much of it.
-- locks: none
select w.worker_id, w.kind, w.host, w.pid, w.started_at, w.lease_until, w.draining, w.ended_at,
       control.gone(w.worker_id, %(grace)s) is null as alive
from control.worker w where w.ended_at is null order by w.started_at;

-- :name due
-- Runs with something to wake for: a timer, a retry or a start whose time has come. Oldest first.
-- locks: none
select tenant, run_id from control.run
where due_at <= control.clock() and worker_id is null order by due_at limit %(limit)s;
