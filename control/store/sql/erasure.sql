-- :name about
-- The runs that are about a person.
-- locks: none
select run_id from control.run_subject where tenant = %(tenant)s and subject = %(subject)s order by run_id;

-- :name aged
-- Runs that ended before an instant and still have their payloads, on threads where all have; the oldest first, behind
-- a place.
-- locks: none
select r.closed_at, r.run_id from control.run r
where r.tenant = %(tenant)s and r.closed_at < %(before)s and r.closed_at is not null and r.erased_at is null
  and not exists (select from control.run o
                  where o.tenant = r.tenant and o.thread_id = r.thread_id
                    and (o.closed_at is null or o.closed_at >= %(before)s))
  and (r.closed_at, r.run_id) > (%(after_at)s, %(after_id)s)
order by r.closed_at, r.run_id limit %(limit)s;

-- :name hold
-- The threads of some runs: no run is started on them until this transaction ends.
-- locks: thread in the order of its key
select t.thread_id from control.thread t
where t.tenant = %(tenant)s and t.thread_id in (
    select r.thread_id from control.run r where r.tenant = %(tenant)s and r.run_id = any (%(runs)s))
order by t.tenant, t.thread_id for update;

-- :name lock
-- All runs on some threads: what one of them left there, the next has read.
-- locks: run in the order of its key
select * from control.run where tenant = %(tenant)s and thread_id = any (%(threads)s)
order by tenant, run_id for no key update;

-- :name bodies
-- How many bodies each of some runs has left in its ledger.
-- locks: none
select run_id, count(*) as bodies from control.ledger
where tenant = %(tenant)s and run_id = any (%(runs)s) and body is not null and kind <> 'erased' group by run_id;

-- :name erase_bodies
-- The bodies of some ledgers. The transaction has appended an entry to each that says so.
-- locks: ledger
update control.ledger set body = null
where tenant = %(tenant)s and run_id = any (%(runs)s) and body is not null and kind <> 'erased';

-- :name erase_checkpoints
-- Everything LangGraph keeps of some threads.
-- locks: checkpoints, checkpoint_blobs, checkpoint_writes
with blobs as (
    delete from checkpoint_blobs where thread_id = any (%(threads)s) returning 1
), writes as (
    delete from checkpoint_writes where thread_id = any (%(threads)s) returning 1
), points as (
    delete from checkpoints where thread_id = any (%(threads)s) returning 1
)
select (select count(*) from points) + (select count(*) from blobs) + (select count(*) from writes) as rows;

-- :name erase_input
-- What some runs were started with.
-- locks: run_input
delete from control.run_input where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_approvals
-- What was asked and answered in some runs. The digest of what was shown stays.
-- locks: approval
update control.approval set title = '', packet = '{}', schema = null, answer = null, note = null,
       assigned_why = null, returned = null
where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_votes
-- What was agreed to in the votes of some runs. Who voted, how and when stays, as in the ledger.
-- locks: vote
update control.vote set answer = null, note = null where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_waits
-- What came with the signals that some runs waited for.
-- locks: wait
update control.wait set payload = null where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_signals
-- Signals that nobody in some runs has waited for.
-- locks: signal
delete from control.signal where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_effects
-- What came of the effects of some runs.
-- locks: effect
update control.effect set outcome_type = null, outcome = null, error = null
where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_subjects
-- Whom some runs were about.
-- locks: run_subject
delete from control.run_subject where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name erase_runs
-- What the rows of some runs say beyond their state. They have nothing left to go on from.
-- locks: run
update control.run set erased_at = %(at)s, config = '{}', failure = null, blocked_in = null, version = version + 1
where tenant = %(tenant)s and run_id = any (%(runs)s);

-- :name open
-- A run on these threads that has not ended.
-- locks: none
select run_id, status from control.run
where tenant = %(tenant)s and thread_id = any (%(threads)s) and closed_at is null limit 1;

-- :name delete_own
-- The checkpoints that a run wrote, by its ledger, with those of its subgraphs, which name the root's; and all writes
-- of the thread that have no checkpoint left. Returns how many checkpoints.
-- locks: checkpoints, checkpoint_writes
with own as (
    select body::jsonb ->> 'checkpoint_id' as checkpoint_id from control.ledger
    where tenant = %(tenant)s and run_id = %(run_id)s and kind in ('stepped', 'rewound') and body is not null
), gone as (
    delete from checkpoints
    where thread_id = %(thread_id)s
      and case when checkpoint_ns = '' then checkpoint_id else metadata -> 'parents' ->> '' end
          in (select checkpoint_id from own)
    returning checkpoint_ns, checkpoint_id
), writes as (
    delete from checkpoint_writes w
    where w.thread_id = %(thread_id)s and (w.checkpoint_ns, w.checkpoint_id) not in (
        select checkpoint_ns, checkpoint_id from checkpoints c where c.thread_id = %(thread_id)s
        except select checkpoint_ns, checkpoint_id from gone)
)
select count(*) as checkpoints from gone;

-- :name patchwork
-- Whether what is left of some threads is written as changes to checkpoints that may be gone (a DeltaChannel).
-- locks: none
select from checkpoints where thread_id = any (%(threads)s)
 and (metadata ? 'counters_since_delta_snapshot' or metadata ? 'delta_writes_versioned') limit 1;

-- :name mark_deleted
-- A run has nothing left to go on from, and its record stays.
-- locks: run
update control.run set deleted_at = %(at)s, config = '{}', blocked_in = null
where tenant = %(tenant)s and run_id = %(run_id)s;

-- :name retention
-- How many days the tenant keeps its payloads, if it says so itself.
-- locks: none
select days from control.retention where tenant = %(tenant)s;

-- :name keep
-- The tenant's own word on it. Below the floor it is a check violation.
-- locks: retention
insert into control.retention (tenant, days, set_by, set_at) values (%(tenant)s, %(days)s, %(by)s, %(at)s)
on conflict (tenant) do update set days = excluded.days, set_by = excluded.set_by, set_at = excluded.set_at;
