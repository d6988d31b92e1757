-- :name judged
-- What policy said last of one intent of the run's present step. Reads back from the newest entry to the last step.
-- locks: none
select body from control.ledger
where tenant = %(tenant)s and run_id = %(run_id)s and kind = 'judged' and body::jsonb ->> 'key' = %(key)s
  and seq > coalesce((select seq from control.ledger
                      where tenant = %(tenant)s and run_id = %(run_id)s and kind = 'stepped'
                      order by seq desc limit 1), 0)
order by seq desc limit 1;

-- :name starter
-- What is on record of whoever started the run: the ledger's first entry, unless it was erased.
-- locks: none
select body from control.ledger where tenant = %(tenant)s and run_id = %(run_id)s and seq = 1;

-- :name refused_lately
-- Whether this version of the policy refused this action to this actor since an instant, by the newest entries of the
-- run's ledger: so many of them at most are read.
-- locks: none
select from (
    select kind, actor, at, body from control.ledger
    where tenant = %(tenant)s and run_id = %(run_id)s order by seq desc limit %(limit)s
) newest
where kind = 'refused' and actor = %(actor)s and at > %(since)s
  and body::jsonb ->> 'action' = %(action)s and body::jsonb ->> 'policy' = %(policy)s
limit 1;
