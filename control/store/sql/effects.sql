-- :name read
-- One effect of a run.
-- locks: none
select state, calls, epoch, outcome_type, outcome, name, kind from control.effect
where tenant = %(tenant)s and run_id = %(run_id)s and effect_key = %(key)s;

-- :name of_run
-- A run's effects in the order they began.
-- locks: none
select effect_key, name, kind, state, calls, how, error, began_at, ended_at from control.effect
where tenant = %(tenant)s and run_id = %(run_id)s order by began_at, effect_key;
