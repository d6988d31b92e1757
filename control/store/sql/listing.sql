-- Where a list is filtered by policy, store.visibility puts the condition in the place of /* visible */ true.

-- :name page_waiting
-- A page of the runs that wait and whose time has not come, newest first, after a key.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
       r.parts_total, r.head_step, r.worker_id, r.priority, r.status, r.since, r.due_at
from control.run r
where r.tenant = %(tenant)s and r.status = 'waiting' and (r.due_at is null or r.due_at > (select control.clock()))
  and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
order by r.created_at desc, r.run_id desc limit %(limit)s;

-- :name page_queued
-- A page of the runs that any worker may take, newest first, after a key: those stored so, and those that wait and
-- whose time has come. The latter are few, since the sweep moves them on; found by their time, they are sorted here.
-- locks: none
with due as materialized (
    select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
           r.parts_total, r.head_step, r.worker_id, r.priority,
           'queued' as status, greatest(r.since, r.due_at) as since, r.due_at
    from control.run r
    where r.tenant = %(tenant)s and r.status = 'waiting' and r.worker_id is null
      and r.due_at <= (select control.clock()) and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
), stored as (
    select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
           r.parts_total, r.head_step, r.worker_id, r.priority,
           r.status, r.since, r.due_at
    from control.run r
    where r.tenant = %(tenant)s and r.status = 'queued' and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
    order by r.created_at desc, r.run_id desc limit %(limit)s
)
select * from due union all select * from stored order by created_at desc, run_id desc limit %(limit)s;

-- :name page_running
-- A page of the runs that a worker holds and that move, newest first, after a key.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
       r.parts_total, r.head_step, r.worker_id, r.priority, r.status, r.since, r.due_at
from control.run r
where r.tenant = %(tenant)s and r.status = 'running' and r.progress_at + %(stall_after)s > (select control.clock())
  and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
order by r.created_at desc, r.run_id desc limit %(limit)s;

-- :name page_stalled
-- A page of the runs that a worker holds and that have not moved for long, newest first, after a key.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
       r.parts_total, r.head_step, r.worker_id, r.priority, 'stalled' as status,
       r.progress_at + %(stall_after)s as since, r.due_at
from control.run r
where r.tenant = %(tenant)s and r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock())
  and (r.created_at, r.run_id) < (%(before_at)s, %(before_id)s)
  and (/* visible */ true)
order by r.created_at desc, r.run_id desc limit %(limit)s;
