-- When a run was deleted: its checkpoints and what it was given are gone, its record stays.
alter table control.run add column deleted_at timestamptz;
