-- :name fire_timers
-- The timers of a run whose time has come; each fires once.
-- locks: wait
update control.wait set fired_at = %(at)s, payload = 'null'
where tenant = %(tenant)s and run_id = %(run_id)s and kind = 'timer' and fired_at is null and withdrawn_at is null
  and due_at <= %(at)s
returning interrupt_id, kind, signal;

-- :name add_signal
-- A signal for a run, kept until somebody waits for it.
-- locks: signal
insert into control.signal (tenant, run_id, name, payload, sent_by, sent_at)
values (%(tenant)s, %(run_id)s, %(name)s, %(payload)s, %(by)s, %(at)s);

-- :name fire_signals
-- Gives each signal kept to the oldest wait for its name. One signal ends one wait.
-- locks: wait, signal
with waiting as (
    select interrupt_id, signal, row_number() over (partition by signal order by opened_at, interrupt_id) as turn
    from control.wait
    where tenant = %(tenant)s and run_id = %(run_id)s and kind = 'signal' and fired_at is null and withdrawn_at is null
), kept as (
    select n, name, payload, row_number() over (partition by name order by n) as turn
    from control.signal where tenant = %(tenant)s and run_id = %(run_id)s
), matched as (
    select w.interrupt_id, k.n, k.payload from waiting w join kept k on k.name = w.signal and k.turn = w.turn
), used as (
    delete from control.signal s using matched m
    where s.tenant = %(tenant)s and s.run_id = %(run_id)s and s.n = m.n
)
update control.wait w set fired_at = %(at)s, payload = m.payload from matched m
where w.tenant = %(tenant)s and w.run_id = %(run_id)s and w.interrupt_id = m.interrupt_id
returning w.interrupt_id, w.kind, w.signal;

-- :name withdraw
-- Waits that no longer exist on the head.
-- locks: wait
update control.wait set withdrawn_at = case when fired_at is null then %(at)s end, delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and delivered_at is null and withdrawn_at is null
  and interrupt_id <> all (%(keep)s)
returning interrupt_id;

-- :name fired
-- What has fired and was not delivered: the resume value of each interrupt.
-- locks: none
select interrupt_id, kind, signal, payload, fired_at
from control.wait
where tenant = %(tenant)s and run_id = %(run_id)s and fired_at is not null and delivered_at is null;

-- :name settle
-- Fired waits that the graph has taken in: no longer pending on the head.
-- locks: wait
update control.wait set delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and fired_at is not null and delivered_at is null
  and interrupt_id <> all (%(pending)s)
returning interrupt_id;
