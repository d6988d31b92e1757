-- :name page_by_clock
-- The newest runs whose status is this word now: running, stalled, waiting or queued, which pass into each other with time
-- and without a transaction. The stored words are the filter that an index serves.
-- locks: none
select * from (
    select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_at, r.created_by, r.epoch, r.takeovers, r.parts,
           r.parts_total, r.head_step, r.worker_id,
           case when r.status = 'running' and r.progress_at + %(stall_after)s <= control.clock() then 'stalled'
                when r.status = 'waiting' and r.due_at <= control.clock() then 'queued' else r.status end as status,
           case when r.status = 'running' and r.progress_at + %(stall_after)s <= control.clock()
                     then r.progress_at + %(stall_after)s
                when r.status = 'waiting' and r.due_at <= control.clock() then greatest(r.since, r.due_at)
                else r.since end as since,
           r.due_at
    from control.run r
    where r.tenant = %(tenant)s
      and r.status = any (case %(status)s when 'stalled' then array['running'] when 'queued' then array['queued', 'waiting']
                          else array[%(status)s] end)
) shown
where status = %(status)s
order by created_at desc, run_id desc limit %(limit)s;

-- :name inbox
-- The tenant's open questions, oldest first, each with the run that asks.
-- locks: none
select a.run_id, r.workflow, r.thread_id, a.interrupt_id, a.node, a.kind, a.title, a.packet, a.opened_at, a.expires_at
from control.approval a join control.run r using (tenant, run_id)
where a.tenant = %(tenant)s and a.decision is null
order by a.opened_at, a.run_id, a.interrupt_id limit %(limit)s;
