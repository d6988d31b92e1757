-- The flush without governance: each run's row locked, its epoch checked and the flush's number taken, as `flush` does
-- it, and LangGraph's rows written by the very text of `flush`; no entry of the ledger, no chain, and nothing of the
-- run indexed.
with admitted as materialized (
    select w.i, r.tenant, r.run_id, r.thread_id
    from unnest(%(tenant)s::text[], %(run)s::uuid[], %(thread)s::text[], %(epoch)s::bigint[], %(worker)s::uuid[])
        with ordinality as w(tenant, run_id, thread_id, epoch, worker_id, i)
    join control.run r on r.tenant = w.tenant and r.run_id = w.run_id
    where r.epoch = w.epoch and r.thread_id = w.thread_id and r.worker_id = w.worker_id
      and r.last_flush < %(flush)s::bigint
    order by r.tenant, r.run_id
    for no key update of r skip locked
/* rows */
)
update control.run r set last_flush = %(flush)s::bigint
from admitted a
where r.tenant = a.tenant and r.run_id = a.run_id
returning a.i;
