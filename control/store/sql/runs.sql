-- :name scope
-- Who this transaction acts as, and for which tenant: nothing else is visible to it. Compiling short queries costs more
-- than it saves.
-- locks: none
select set_config('role', %(role)s, true), set_config('control.tenant', %(tenant)s, true),
       set_config('control.tenants', %(tenant)s, true), set_config('jit', 'off', true);

-- :name now
-- The only clock.
-- locks: none
select control.clock();

-- :name add_thread
-- A thread of this tenant. No row where it exists already; another tenant's thread of that name is a unique violation.
-- locks: thread
insert into control.thread (tenant, thread_id) values (%(tenant)s, %(thread_id)s)
on conflict (tenant, thread_id) do nothing;

-- :name add
-- An accepted run, not yet ready for anybody. It remembers whether its thread holds checkpoints already. A second open
-- run on its thread is a unique violation.
-- locks: run
insert into control.run (tenant, run_id, thread_id, fresh_thread, workflow, config, priority, created_at, created_by,
                         created_via, restarted_from, not_before, since, parts_total)
values (%(tenant)s, %(run_id)s, %(thread_id)s,
        not exists (select from checkpoints where thread_id = %(thread_id)s), %(workflow)s, %(config)s, %(priority)s,
        %(at)s, %(created_by)s, %(created_via)s, %(restarted_from)s, %(not_before)s, %(at)s, %(parts_total)s)
returning *;

-- :name add_input
-- What a run is started with.
-- locks: run_input
insert into control.run_input (tenant, run_id, type, data) values (%(tenant)s, %(run_id)s, %(type)s, %(data)s);

-- :name input
-- What a run was started with.
-- locks: none
select type, data from control.run_input where tenant = %(tenant)s and run_id = %(run_id)s;

-- :name add_subjects
-- Whom a run is about.
-- locks: run_subject
insert into control.run_subject (tenant, subject, run_id)
select %(tenant)s, subject, %(run_id)s from unnest(%(subjects)s::text[]) as subject
on conflict do nothing;

-- :name subjects
-- Whom a run is about, in order.
-- locks: none
select subject from control.run_subject where tenant = %(tenant)s and run_id = %(run_id)s order by subject;

-- :name lock_open
-- Every run of a tenant that has not ended.
-- locks: run in the order of its key
select * from control.run where tenant = %(tenant)s and closed_at is null order by tenant, run_id for no key update;

-- :name lock
-- One run, locked against claims, flushes and commands until the transaction ends.
-- locks: run
select * from control.run where tenant = %(tenant)s and run_id = %(run_id)s for no key update;

-- :name lock_if_free
-- As `lock`, without waiting: no row where somebody else holds it.
-- locks: run
select * from control.run where tenant = %(tenant)s and run_id = %(run_id)s for no key update skip locked;

-- :name read
-- One run as it stands.
-- locks: none
select * from control.run where tenant = %(tenant)s and run_id = %(run_id)s;

-- :name find
-- Runs whose id lies between two, or whose thread is named so; at most two, which is enough to call it ambiguous.
-- locks: none
(select r.run_id, r.created_at from control.run r
 where r.tenant = %(tenant)s and r.run_id between %(first)s and %(last)s and (/* visible */ true)
 order by r.run_id limit 2)
union
(select r.run_id, r.created_at from control.run r
 where r.tenant = %(tenant)s and r.thread_id = %(name)s and (/* visible */ true) order by r.created_at desc limit 2)
order by created_at desc limit 2;

-- :name open_on_thread
-- The run that has not ended on a thread.
-- locks: none
select * from control.run where tenant = %(tenant)s and thread_id = %(thread_id)s and closed_at is null;

-- :name worked_on
-- A row where a run of a workflow, which is the workers', has ever been on a thread.
-- locks: none
select run_id from control.run
where tenant = %(tenant)s and thread_id = %(thread_id)s and workflow is not null limit 1;

-- :name last_on_thread
-- The run of a workflow that was started last on a thread. No row: there never was one.
-- locks: none
select run_id from control.run
where tenant = %(tenant)s and thread_id = %(thread_id)s and workflow is not null
order by created_at desc, run_id limit 1;

-- :name standing
-- What time it is, and what of a run's questions and waits no attempt has delivered: the last of each says whether it
-- is answered or fired. Where no claim is held, or none is asked after, its holder counts as alive.
-- locks: none
select control.clock() as now,
       case when %(worker_id)s::uuid is null then true
            else control.gone(%(worker_id)s::uuid, %(grace)s::interval) is null end as alive,
       (select jsonb_agg(jsonb_build_array(
            interrupt_id, kind, title, node, opened_at, case when not overdue then expires_at end, due_at,
                coalesce(gate ->> 'quorum', '1')::int,
            case when gate is not null then
                (select jsonb_agg(v.voter order by v.at, v.voter) from control.vote v
                 where v.tenant = a.tenant and v.run_id = a.run_id and v.interrupt_id = a.interrupt_id
                   and v.vote = 'yes') end,
            rung, assignee, decision is not null))
        from control.approval a
        where tenant = %(tenant)s and run_id = %(run_id)s and delivered_at is null
          and decision is distinct from 'superseded') as asks,
       (select jsonb_agg(jsonb_build_array(interrupt_id, kind, node, opened_at, due_at, signal, fired_at is not null))
        from control.wait
        where tenant = %(tenant)s and run_id = %(run_id)s and delivered_at is null and withdrawn_at is null) as waits;

-- :name worker_alive
-- Whether the process that holds a claim lives, by the rule of `control.gone`.
-- locks: none
select control.gone(%(worker_id)s, %(grace)s) is null as alive;

-- :name save
-- The run's facts and the status that follows from them. The caller holds the row's lock.
-- locks: run
update control.run
set graph_digest = %(graph_digest)s, not_before = %(not_before)s, epoch = %(epoch)s, worker_id = %(worker_id)s,
    claimed_at = %(claimed_at)s, progress_at = %(progress_at)s, blocked_in = %(blocked_in)s, execution = %(execution)s,
    head_checkpoint_id = %(head_checkpoint_id)s, head_step = %(head_step)s, parts = %(parts)s,
    parts_total = %(parts_total)s, outcome = %(outcome)s, outcome_at = %(outcome_at)s,
    failure_class = %(failure_class)s, failure = %(failure)s, crashes = %(crashes)s, retries = %(retries)s,
    retry_at = %(retry_at)s, woken_at = %(woken_at)s, takeovers = %(takeovers)s, shortfalls = %(shortfalls)s,
    branch = %(branch)s, fit = %(fit)s, pause_at = %(pause_at)s, pause_by = %(pause_by)s, cancel_at = %(cancel_at)s,
    cancel_by = %(cancel_by)s, status = %(status)s, since = %(since)s, due_at = %(due_at)s, closed_at = %(closed_at)s,
    last_flush = case when epoch = %(epoch)s then last_flush else 0 end, version = version + 1
where tenant = %(tenant)s and run_id = %(run_id)s
returning version;

-- :name append
-- Entries at the end of a run's ledger, chained to it. The caller holds the run's lock.
-- locks: run, ledger
with run as materialized (
    select tenant, run_id, epoch, ledger_seq, ledger_hash
    from control.run where tenant = %(tenant)s and run_id = %(run_id)s
), entry as (
    select r.tenant, r.run_id, r.epoch, r.ledger_seq + e.n as seq, e.kind, e.actor, e.body,
           sha256(convert_to(e.body, 'UTF8')) as digest
    from unnest(%(kinds)s::text[], %(actors)s::text[], %(bodies)s::text[]) with ordinality as e(kind, actor, body, n),
         run r
), chained as (
    select seq, control.chain(link) over (order by seq) as hash
    from (
        select ledger_seq as seq, ledger_hash as link from run
        union all
        select seq, control.link(seq, %(at)s, kind, actor, epoch, digest) from entry
    ) links
), put as (
    insert into control.ledger (tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)
    select tenant, run_id, seq, %(at)s, kind, actor, epoch, body, digest, hash from entry join chained using (seq)
)
update control.run r set ledger_seq = last.seq, ledger_hash = last.hash
from (select seq, hash from chained order by seq desc limit 1) last
where r.tenant = %(tenant)s and r.run_id = %(run_id)s;

-- :name entries
-- A run's ledger in order, from an entry on.
-- locks: none
select seq, at, kind, actor, epoch, body, digest, hash
from control.ledger where tenant = %(tenant)s and run_id = %(run_id)s and seq > %(after)s order by seq;

-- :name page
-- A page of runs, newest first, after a key (`created_at`, `run_id`). The clock is applied here, as run_status says.
-- A filter by status looks at what is stored, since only running and waiting depend on the clock.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
       r.parts_total,
       r.head_step, r.worker_id, r.priority,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= control.clock() then 'stalled'
            when r.status = 'waiting' and r.due_at <= control.clock() then 'queued' else r.status end as status,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= control.clock()
                 then r.progress_at + %(stall_after)s
            when r.status = 'waiting' and r.due_at <= control.clock() then greatest(r.since, r.due_at)
            else r.since end as since,
       r.due_at
from control.run r
where r.tenant = %(tenant)s and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
order by r.created_at desc, r.run_id desc limit %(limit)s;

-- :name page_by_status
-- As `page`, of runs with one status word that does not depend on the clock.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
       r.parts_total, r.head_step, r.worker_id, r.priority, r.status, r.since, r.due_at
from control.run r
where r.tenant = %(tenant)s and r.status = %(status)s and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
order by r.created_at desc, r.run_id desc limit %(limit)s;

-- :name announce
-- Tell the workers, once this transaction commits: a run is ready, or (with its id) has an order.
-- locks: none
select pg_notify(%(channel)s, %(payload)s);
