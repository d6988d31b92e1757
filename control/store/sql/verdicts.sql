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
