-- :name open
-- A run's open questions, oldest first.
-- locks: none
select interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest, schema, opened_at, expires_at
from control.approval where tenant = %(tenant)s and run_id = %(run_id)s and decision is null
order by opened_at, interrupt_id;

-- :name read
-- One question, decided or not.
-- locks: none
select interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest, schema, opened_at, expires_at, decision,
       answer, note, decided_by, decided_at, delivered_at
from control.approval where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s;

-- :name decide
-- One decision per question. No row where it was decided already.
-- locks: approval
update control.approval
set decision = %(decision)s, answer = %(answer)s, note = %(note)s, decided_by = %(by)s, decided_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and interrupt_id = %(interrupt_id)s and decision is null
returning interrupt_id;

-- :name supersede
-- The open questions of a run no longer exist on its head; neither do answers that were not delivered.
-- locks: approval
update control.approval set decision = coalesce(decision, 'superseded'), decided_at = coalesce(decided_at, %(at)s),
       delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and delivered_at is null and interrupt_id <> all (%(keep)s)
returning interrupt_id;

-- :name answers
-- What has been answered and not delivered: the resume value of each interrupt.
-- locks: none
select interrupt_id, kind, decision, answer, note, decided_by, decided_at
from control.approval
where tenant = %(tenant)s and run_id = %(run_id)s and decision in ('approved', 'rejected', 'answered')
  and delivered_at is null;

-- :name settle
-- Answers that the graph has taken in: decided, and no longer pending on the head.
-- locks: approval
update control.approval set delivered_at = %(at)s
where tenant = %(tenant)s and run_id = %(run_id)s and decision in ('approved', 'rejected', 'answered')
  and delivered_at is null and interrupt_id <> all (%(pending)s)
returning interrupt_id;

-- :name expired
-- The open approvals of a run whose time is over.
-- locks: none
select interrupt_id, packet from control.approval
where tenant = %(tenant)s and run_id = %(run_id)s and decision is null and expires_at <= %(at)s;
