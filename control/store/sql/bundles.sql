-- :name one
-- The head of one run, and what policy is shown of the run.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_by, r.priority,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock()) then 'stalled'
            when r.status = 'waiting' and r.due_at <= (select control.clock()) then 'queued'
            else r.status end as status,
       r.ledger_seq as seq, r.ledger_hash as hash
from control.run r where r.tenant = %(tenant)s and r.run_id = %(run_id)s;

-- :name all
-- As `one`, of a tenant's runs after one id, in their order.
-- locks: none
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_by, r.priority,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock()) then 'stalled'
            when r.status = 'waiting' and r.due_at <= (select control.clock()) then 'queued'
            else r.status end as status,
       r.ledger_seq as seq, r.ledger_hash as hash
from control.run r
where r.tenant = %(tenant)s and r.run_id > %(after)s and r.ledger_seq > 0 order by r.run_id limit %(limit)s;

-- :name since
-- As `all`, of the runs that have an entry since an instant.
-- locks: none
with lately as materialized (
    select distinct l.run_id from control.ledger l where l.tenant = %(tenant)s and l.at >= %(since)s
)
select r.tenant, r.run_id, r.thread_id, r.workflow, r.created_by, r.priority,
       case when r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock()) then 'stalled'
            when r.status = 'waiting' and r.due_at <= (select control.clock()) then 'queued'
            else r.status end as status,
       r.ledger_seq as seq, r.ledger_hash as hash
from lately join control.run r on r.tenant = %(tenant)s and r.run_id = lately.run_id
where r.run_id > %(after)s order by r.run_id limit %(limit)s;

-- :name trees
-- The trees that gathered last one run, or the runs with an entry since an instant, or all; and the newest tree.
-- locks: none
select distinct number from (
    select (select t.number from control.tree_leaf t
            where t.tenant = r.tenant and t.run_id = r.run_id order by t.seq desc limit 1) as number
    from control.run r
    where r.tenant = %(tenant)s and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
      and (%(since)s::timestamptz is null or r.run_id in (
          select l.run_id from control.ledger l where l.tenant = %(tenant)s and l.at >= %(since)s::timestamptz))
    union all
    select max(number) from control.tree where tenant = %(tenant)s
) needed order by number;
