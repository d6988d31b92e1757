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

-- :name begin
-- The intent of an effect that an approval guards, outside a flush: its own transaction holds the run's lock.
-- locks: effect
insert into control.effect (tenant, run_id, effect_key, name, kind, state, calls, epoch, began_at)
values (%(tenant)s, %(run_id)s, %(key)s, %(name)s, %(kind)s, 'began', %(calls)s, %(epoch)s, %(at)s)
on conflict (tenant, run_id, effect_key) do update
set state = 'began', calls = greatest(effect.calls, excluded.calls), epoch = excluded.epoch, outcome_type = null,
    outcome = null, how = null, error = null, began_at = excluded.began_at, ended_at = null;
