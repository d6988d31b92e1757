-- :name open
-- The tenant's open questions, each with the run that asks, its gate and its votes. store.inbox puts an order in the
-- place of /* order */, and store.visibility a condition in that of /* visible */ true.
-- locks: none
select a.tenant, a.run_id, r.workflow, r.thread_id, r.created_by, r.created_via, r.priority,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock()) then 'stalled'
            when r.status = 'waiting' and r.due_at <= (select control.clock())
                then 'queued' else r.status end as status,
       a.interrupt_id, a.node, a.kind, a.title, a.packet, a.opened_at,
       a.expires_at, a.due_at, a.gate, a.rung, a.reviews, a.overdue, a.assignee, a.assigned_why,
       (select jsonb_agg(jsonb_build_array(v.voter, v.seat, v.roles, v.via, v.vote = 'yes', v.at, v.digest)
                         order by v.at, v.voter)
        from control.vote v
        where v.tenant = a.tenant and v.run_id = a.run_id and v.interrupt_id = a.interrupt_id) as votes
from control.approval a join control.run r using (tenant, run_id)
where a.tenant = %(tenant)s and a.decision is null and (/* visible */ true)
order by /* order */ a.opened_at, a.run_id, a.interrupt_id limit %(limit)s;
